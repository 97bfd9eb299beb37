//! Services by DNS, as dig and others ask for them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::net::UdpSocket;
use tokio::process::Command;
use wharf_tests::{RegistryProcess, eventually, installed, run_command, within};

/// A registry that answers DNS, and what asks it.
struct Named {
    registry: RegistryProcess,
    address: SocketAddr,
    dig: PathBuf,
}

impl Named {
    async fn start(arguments: &[&str]) -> Option<Self> {
        let dig = installed("dig", "Debian: bind9-dnsutils")?;
        let base = ["--dns-listen", "127.0.0.1:0", "--dns-domain", "consul"];
        let mut registry = RegistryProcess::start(&[&base[..], arguments].concat()).await.unwrap();
        let address = registry.process.announced("dns").await.unwrap().parse().unwrap();
        Some(Named { registry, address, dig })
    }

    /// What dig prints.
    async fn dig(&self, words: &[&str]) -> String {
        let mut command = Command::new(&self.dig);
        command.args([&format!("@{}", self.address.ip()), "-p", &self.address.port().to_string()]);
        command.args(["+tries=1", "+time=5"]).args(words);
        let done = run_command(&mut command).await.unwrap();
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        done.stdout
    }

    /// The lines that dig finds, in order.
    async fn short(&self, words: &[&str]) -> Vec<String> {
        let text = self.dig(&[&["+short"], words].concat()).await;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    async fn register(&self, query: &str) {
        let (status, answer) = self.registry.get(&format!("/register?{query}")).await;
        assert_eq!(status, 200, "{answer}");
    }
}

#[tokio::test]
async fn dig_finds_services_their_ports_and_nothing_else() {
    let Some(named) = Named::start(&[]).await else { return };
    named.register("name=WordCount&addr=10.0.0.1:7001&tag=blue").await;
    named.register("name=WordCount&addr=10.0.0.2:7002").await;
    named.register("name=WordCount&addr=[fd00::7]:7003").await;
    named.register("name=Search&addr=search.example:80").await;
    assert_eq!(named.short(&["word-count.service.wharf"]).await, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(named.short(&["Word-Count.Service.Wharf", "AAAA"]).await, ["fd00::7"]);
    assert_eq!(named.short(&["word-count.service.consul"]).await, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(named.short(&["blue.word-count.service.dc1.consul"]).await, ["10.0.0.1"]);
    assert_eq!(
        named.short(&["_word-count._tcp.service.wharf", "SRV"]).await,
        [
            "1 1 7001 0a000001.addr.wharf.",
            "1 1 7002 0a000002.addr.wharf.",
            "1 1 7003 fd000000000000000000000000000007.addr.wharf."
        ]
    );
    // Who gets the name of an SRV record can look it up, and usually need not.
    assert_eq!(named.short(&["0a000001.addr.wharf"]).await, ["10.0.0.1"]);
    let all = named.dig(&["word-count.service.wharf", "SRV"]).await;
    assert!(all.contains("ADDITIONAL: 4") && all.contains("flags: qr aa rd;"), "{all}");
    assert_eq!(named.short(&["search.service.wharf"]).await, ["search.example."]);
    assert_eq!(named.short(&["search.service.wharf", "SRV"]).await, ["1 1 80 search.example."]);
    assert_eq!(named.short(&["word-count@10.0.0.1:7001.node.wharf"]).await, [] as [&str; 0]);
    for (name, kind, status) in [
        ("none.service.wharf", "A", "NXDOMAIN"),
        ("red.word-count.service.wharf", "A", "NXDOMAIN"),
        ("service.wharf", "A", "NOERROR"),
        ("word-count.service.wharf", "TXT", "NOERROR"),
        ("example.com", "A", "REFUSED"),
        ("wharf", "SOA", "NOERROR"),
    ] {
        let said = named.dig(&[name, kind]).await;
        assert!(said.contains(&format!("status: {status},")), "{name} {kind}: {said}");
        let nothing = status == "NXDOMAIN" || kind == "TXT";
        assert!(!nothing || said.contains("hostmaster.wharf."), "for how long that holds: {said}");
    }
}

#[tokio::test]
async fn only_those_are_named_that_take_calls_and_those_that_were_heard_first() {
    let Some(named) = Named::start(&["--ttl", "2s"]).await else { return };
    let registry = &named.registry;
    let declare = async |host: &str, address: &str, condition: &str| {
        let body = json!({"session": 1, "address": address, "endpoints": [
            {"service": "arith", "fingerprint": "0".repeat(32), "condition": condition}]});
        let path = format!("/v1/hosts/{host}");
        registry.send(reqwest::Method::PUT, &path, Some(body)).await.1["digest"].clone()
    };
    declare("broken", "10.0.0.9:1", "refused").await;
    let lives = declare("lives", "10.0.0.100:1", "serving").await;
    for number in 1..=30 {
        declare(&format!("h{number}"), &format!("10.0.1.{number}:1"), "serving").await;
    }
    assert_eq!(named.short(&["arith.service.wharf"]).await.len(), 31);
    assert_eq!(named.short(&["lives.node.wharf"]).await, ["10.0.0.100"]);
    // They all fall silent, but for one; most of them are not dropped yet.
    eventually("only who was heard is named", async || {
        assert_eq!(registry.beat("lives", 1, &lives).await.0, 200);
        (named.short(&["arith.service.wharf"]).await == ["10.0.0.100"]).then_some(())
    })
    .await
    .unwrap();
    assert!(registry.hosts("arith").await.len() > 15);
    // When nobody was heard, the network is more likely at fault.
    eventually("all are named again", async || {
        (named.short(&["arith.service.wharf"]).await.len() > 10).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_is_cut_off_and_comes_whole_over_a_connection() {
    let Some(named) = Named::start(&[]).await else { return };
    for number in 0..200 {
        named.register(&format!("name=Many&addr=10.0.0.{number}:{}", 7000 + number)).await;
    }
    let name = "many.service.wharf";
    for (size, words) in [(512, &["+noedns"][..]), (1232, &["+bufsize=4096"][..])] {
        let cut = named.dig(&[&["+ignore", name, "SRV"], words].concat()).await;
        assert!(cut.contains(" tc"), "{cut}");
        let received = cut.lines().find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "));
        let received: usize = received.unwrap().trim().parse().unwrap();
        assert!(received <= size && received > size / 2, "{received}");
    }
    // dig asks again over TCP, by itself.
    assert_eq!(named.short(&[name, "SRV"]).await.len(), 200);
    assert_eq!(named.short(&["+tcp", name]).await.len(), 200);
}

#[tokio::test]
async fn no_datagram_stops_the_registry_and_answers_are_not_answered() {
    let Some(named) = Named::start(&[]).await else { return };
    named.register("name=Arith&addr=10.0.0.1:1").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(named.address).await.unwrap();
    let query = |id: u8, flags: u8| {
        let mut query = vec![0, id, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x05arith\x07service\x05wharf\0\0\x01\0\x01");
        query
    };
    let mut answer = [0; 1500];
    fastrand::seed(7);
    for round in 0..2_000 {
        let mut bytes = query(1, 0x80);
        match round % 4 {
            0 => bytes = std::iter::repeat_with(|| fastrand::u8(..)).take(round % 200).collect(),
            1 => bytes.truncate(round % bytes.len()),
            // A name that points at itself, and ever so many records.
            2 => bytes = [&[0, 1, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0][..], &[0xc0, 12]].concat(),
            _ => {}
        }
        // It must not look like an answer to what is asked below.
        if let Some(id) = bytes.get_mut(1) {
            *id = 1;
        }
        socket.send(&bytes).await.unwrap();
    }
    let answered = async {
        loop {
            socket.send(&query(9, 1)).await.unwrap();
            let reading =
                tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut answer));
            if matches!(reading.await, Ok(Ok(12..)) if answer[1] == 9) {
                return;
            }
        }
    };
    within("it answers still", answered).await.unwrap();
    // An answer is not answered: two servers could talk without end.
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    other.connect(named.address).await.unwrap();
    let answered = async {
        loop {
            // The rate of answers is bounded, so one may be missing.
            other.send(&query(2, 0x80)).await.unwrap();
            other.send(&query(3, 1)).await.unwrap();
            let reading = tokio::time::timeout(Duration::from_millis(200), other.recv(&mut answer));
            if matches!(reading.await, Ok(Ok(_))) {
                return;
            }
        }
    };
    within("an answer", answered).await.unwrap();
    assert_eq!(answer[1], 3);
    assert_eq!(named.short(&["arith.service.wharf"]).await, ["10.0.0.1"]);
    // Two questions at once, and one for another class.
    let chaos = named.dig(&["-c", "CH", "version.bind", "TXT"]).await;
    assert!(chaos.contains("status: REFUSED"), "{chaos}");
    let status = named.dig(&["+opcode=STATUS", "arith.service.wharf"]).await;
    assert!(status.contains("status: NOTIMP"), "{status}");
    let edns = named.dig(&["+edns=7", "+noednsnegotiation", "arith.service.wharf"]).await;
    assert!(edns.contains("status: BADVERS"), "{edns}");
}
