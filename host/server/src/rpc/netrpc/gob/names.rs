//! How Go's programmers spell the names of WIT.

use wharf_schema::net_rpc;

/// Words that Go's style writes in capitals, as its linters know them.
const INITIALISMS: &[&str] = &[
    "Acl", "Api", "Ascii", "Cpu", "Css", "Dns", "Eof", "Guid", "Html", "Http", "Https", "Id", "Ip",
    "Json", "Qps", "Ram", "Rpc", "Sla", "Smtp", "Sql", "Ssh", "Tcp", "Tls", "Ttl", "Udp", "Ui",
    "Uid", "Uri", "Url", "Utf8", "Uuid", "Vm", "Xml", "Xmpp", "Xsrf", "Xss",
];

/// The names that a field has in Go: `user-id` is `UserId`, and also `UserID`.
pub(super) fn of_field(wit: &str) -> Vec<String> {
    let plain = net_rpc(wit);
    let capitals: String = wit
        .split('-')
        .map(|word| {
            let word = net_rpc(word);
            if INITIALISMS.contains(&&word[..]) { word.to_uppercase() } else { word }
        })
        .collect();
    if capitals == plain { vec![plain] } else { vec![plain, capitals] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialisms_are_spelled_in_both_ways() {
        assert_eq!(of_field("quo"), ["Quo"]);
        assert_eq!(of_field("user-id"), ["UserId", "UserID"]);
        assert_eq!(of_field("api-url"), ["ApiUrl", "APIURL"]);
        assert_eq!(of_field("longest-word"), ["LongestWord"]);
    }
}
