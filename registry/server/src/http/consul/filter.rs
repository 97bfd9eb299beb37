//! `filter`, in the language of Consul's filters: `Service.Meta.zone == "z1" and "blue" in Service.Tags`.
//! <https://developer.hashicorp.com/consul/api-docs/features/filtering>

use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

/// The fields of a list's entries that a filter can speak of. `.*` at the end stands for any name.
pub(super) type Fields = [&'static str];

/// The longest filter, in bytes.
const LONGEST: usize = 2048;

/// How large a regular expression may become, in bytes, and how many there may be.
const LARGEST_REGEX: usize = 16 * 1024;
const MOST_REGEXES: usize = 2;

/// How deep parentheses may be.
const DEEPEST: usize = 32;

/// What is asked of each entry.
#[derive(Debug)]
pub(super) enum Filter {
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
    Test { path: Vec<String>, test: Test },
}

#[derive(Debug)]
pub(super) enum Test {
    Equals(String),
    /// A list has it, a text contains it, a map has it as a name.
    Contains(String),
    Matches(Regex),
    IsEmpty,
}

impl Filter {
    /// Parses a filter over entries with these fields. The error is for whoever wrote it.
    pub(super) fn parse(text: &str, fields: &'static Fields) -> Result<Filter, String> {
        if text.len() > LONGEST {
            return Err(format!("a filter has at most {LONGEST} bytes"));
        }
        let mut parser = Parser { words: words(text)?, next: 0, depth: 0, regexes: 0, fields };
        let filter = parser.any()?;
        match parser.peek() {
            None => Ok(filter),
            Some(word) => {
                Err(format!("after a whole expression there is {word}: write 'and' or 'or'"))
            }
        }
    }

    pub(super) fn takes(&self, entry: &Value) -> bool {
        match self {
            Filter::And(a, b) => a.takes(entry) && b.takes(entry),
            Filter::Or(a, b) => a.takes(entry) || b.takes(entry),
            Filter::Not(inner) => !inner.takes(entry),
            Filter::Test { path, test } => {
                let value = path.iter().try_fold(entry, |value, name| value.get(name));
                test.holds(value)
            }
        }
    }
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Test::IsEmpty => match value {
                None | Some(Value::Null) => true,
                Some(Value::String(text)) => text.is_empty(),
                Some(Value::Array(values)) => values.is_empty(),
                Some(Value::Object(fields)) => fields.is_empty(),
                Some(_) => false,
            },
            Test::Equals(wanted) => value.is_some_and(|value| is(value, wanted)),
            Test::Matches(regex) => {
                value.and_then(Value::as_str).is_some_and(|text| regex.is_match(text))
            }
            Test::Contains(wanted) => match value {
                Some(Value::String(text)) => text.contains(&wanted[..]),
                Some(Value::Array(values)) => values.iter().any(|value| is(value, wanted)),
                Some(Value::Object(fields)) => fields.contains_key(wanted),
                _ => false,
            },
        }
    }
}

fn is(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Number(number) => number.to_string() == wanted,
        Value::Bool(set) => wanted == if *set { "true" } else { "false" },
        _ => false,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// A name, a number or a word of the language.
    Bare(String),
    /// In quotes.
    Quoted(String),
    /// `(`, `)`, `[`, `]`, `.`, `==`, `!=`
    Sign(&'static str),
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Word::Bare(word) => write!(f, "'{word}'"),
            Word::Quoted(text) => write!(f, "\"{text}\""),
            Word::Sign(sign) => write!(f, "'{sign}'"),
        }
    }
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    const SIGNS: [&str; 7] = ["==", "!=", "(", ")", "[", "]", "."];
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            words.push(Word::Sign(sign));
            rest = &rest[sign.len()..];
        } else if first == '"' {
            let (text, after) = quoted(&rest[1..])?;
            words.push(Word::Quoted(text));
            rest = after;
        } else if first == '`' {
            let (text, after) = rest[1..].split_once('`').ok_or("a ` is not closed")?;
            words.push(Word::Quoted(text.to_owned()));
            rest = after;
        } else {
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ':');
            let end = rest.find(|c| !plain(c)).unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("'{first}' means nothing here: put texts in double quotes"));
            }
            words.push(Word::Bare(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(words)
}

/// A text up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut said = String::new();
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Ok((said, &text[at + 1..])),
            '\\' => match signs.next() {
                Some((_, escaped @ ('"' | '\\'))) => said.push(escaped),
                Some((_, other)) => return Err(format!("'\\{other}' is not known in a text")),
                None => break,
            },
            sign => said.push(sign),
        }
    }
    Err("a \" is not closed".to_owned())
}

struct Parser {
    words: Vec<Word>,
    next: usize,
    depth: usize,
    regexes: usize,
    fields: &'static Fields,
}

impl Parser {
    fn peek(&self) -> Option<&Word> {
        self.words.get(self.next)
    }

    fn take(&mut self) -> Option<Word> {
        let word = self.words.get(self.next).cloned();
        self.next += 1;
        word
    }

    fn takes(&mut self, word: &Word) -> bool {
        let there = self.peek() == Some(word);
        self.next += usize::from(there);
        there
    }

    fn takes_bare(&mut self, word: &str) -> bool {
        self.takes(&Word::Bare(word.to_owned()))
    }

    fn any(&mut self) -> Result<Filter, String> {
        let mut left = self.all()?;
        while self.takes_bare("or") {
            left = Filter::Or(Box::new(left), Box::new(self.all()?));
        }
        Ok(left)
    }

    fn all(&mut self) -> Result<Filter, String> {
        let mut left = self.one()?;
        while self.takes_bare("and") {
            left = Filter::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} expressions in one another"));
        }
        let one = if self.takes_bare("not") {
            Filter::Not(Box::new(self.one()?))
        } else if self.takes(&Word::Sign("(")) {
            let inner = self.any()?;
            if !self.takes(&Word::Sign(")")) {
                return Err("a ( is not closed".to_owned());
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(one)
    }

    /// `VALUE in SELECTOR` and the like, or a selector and what is asked of it.
    fn test(&mut self) -> Result<Filter, String> {
        if let Some(value) = self.value_before_in() {
            let negated = self.takes_bare("not");
            self.next += 1;
            let path = self.selector()?;
            return Ok(made(path, Test::Contains(value), negated));
        }
        let path = self.selector()?;
        if self.takes(&Word::Sign("==")) {
            return Ok(made(path, Test::Equals(self.value()?), false));
        }
        if self.takes(&Word::Sign("!=")) {
            return Ok(made(path, Test::Equals(self.value()?), true));
        }
        if self.takes_bare("is") {
            let negated = self.takes_bare("not");
            if self.takes_bare("empty") {
                return Ok(made(path, Test::IsEmpty, negated));
            }
            return Err("after 'is' comes 'empty' or 'not empty'".to_owned());
        }
        let negated = self.takes_bare("not");
        if self.takes_bare("contains") {
            return Ok(made(path, Test::Contains(self.value()?), negated));
        }
        if self.takes_bare("matches") {
            let text = self.value()?;
            self.regexes += 1;
            if self.regexes > MOST_REGEXES {
                return Err(format!("at most {MOST_REGEXES} regular expressions"));
            }
            let regex = RegexBuilder::new(&text)
                .size_limit(LARGEST_REGEX)
                .build()
                .map_err(|error| format!("\"{text}\" is not a regular expression: {error}"))?;
            return Ok(made(path, Test::Matches(regex), negated));
        }
        Err(format!(
            "after {} comes ==, !=, contains, matches, is empty, or these with not",
            path.join(".")
        ))
    }

    /// The value of `VALUE in ...` or `VALUE not in ...`, if that is what comes.
    fn value_before_in(&mut self) -> Option<String> {
        let bare = |at: usize, word: &str| matches!(self.words.get(at), Some(Word::Bare(there)) if there == word);
        let at = self.next + 1;
        let comes = bare(at, "in") || (bare(at, "not") && bare(at + 1, "in"));
        if !comes {
            return None;
        }
        match self.take()? {
            Word::Bare(value) | Word::Quoted(value) => Some(value),
            Word::Sign(_) => {
                self.next -= 1;
                None
            }
        }
    }

    fn value(&mut self) -> Result<String, String> {
        match self.take() {
            Some(Word::Quoted(text)) => Ok(text),
            Some(Word::Bare(mut text)) => {
                // A number with a fraction, or a name with dots.
                while self.takes(&Word::Sign(".")) {
                    match self.take() {
                        Some(Word::Bare(more)) => text = format!("{text}.{more}"),
                        _ => return Err(format!("after '{text}.' something is missing")),
                    }
                }
                Ok(text)
            }
            Some(word) => Err(format!("a value has to come here, not {word}")),
            None => Err("a value is missing at the end".to_owned()),
        }
    }

    fn selector(&mut self) -> Result<Vec<String>, String> {
        let mut path = match self.take() {
            Some(Word::Bare(name)) => vec![name],
            // A JSON pointer.
            Some(Word::Quoted(pointer)) if pointer.starts_with('/') => {
                pointer[1..].split('/').map(str::to_owned).collect()
            }
            Some(word) => return Err(format!("a field has to come here, not {word}")),
            None => return Err("a field is missing at the end".to_owned()),
        };
        loop {
            if self.takes(&Word::Sign(".")) {
                match self.take() {
                    Some(Word::Bare(name)) => path.push(name),
                    _ => return Err(format!("after {}. a name is missing", path.join("."))),
                }
            } else if self.takes(&Word::Sign("[")) {
                match (self.take(), self.takes(&Word::Sign("]"))) {
                    (Some(Word::Quoted(name)), true) => path.push(name),
                    _ => return Err(format!("write {}[\"NAME\"]", path.join("."))),
                }
            } else {
                break;
            }
        }
        let known = |field: &&&str| match field.strip_suffix(".*") {
            Some(map) => {
                let names: Vec<&str> = map.split('.').collect();
                path.starts_with(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
                    && path.len() <= names.len() + 1
            }
            None => field.split('.').eq(path.iter().map(String::as_str)),
        };
        match self.fields.iter().find(known) {
            Some(_) => Ok(path),
            None => Err(format!(
                "there is no field {}: there are {}",
                path.join("."),
                self.fields.join(", ").replace(".*", "[\"NAME\"]")
            )),
        }
    }
}

fn made(path: Vec<String>, test: Test, negated: bool) -> Filter {
    let test = Filter::Test { path, test };
    if negated { Filter::Not(Box::new(test)) } else { test }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::consul::shapes::HEALTH;
    use serde_json::json;

    fn takes(filter: &str) -> bool {
        let entry = json!({
            "Node": {"Node": "box-1", "Meta": {"zone": "z1"}},
            "Service": {
                "ID": "web-1", "Service": "web", "Port": 8080, "Tags": ["blue", "v1"],
                "Meta": {"version": "1.2.0", "a-b": "x"}, "EnableTagOverride": false
            },
            "Checks": []
        });
        match Filter::parse(filter, HEALTH) {
            Ok(filter) => filter.takes(&entry),
            Err(why) => panic!("{filter}: {why}"),
        }
    }

    #[test]
    fn filters_take_what_consul_s_would() {
        for filter in [
            r#"Service.Meta.version == "1.2.0""#,
            "Service.Meta.version == 1.2.0",
            "Service.Port == 8080",
            "Service.EnableTagOverride == false",
            r#""blue" in Service.Tags"#,
            "blue in Service.Tags and v2 not in Service.Tags",
            r#"Service.Tags contains "v1""#,
            r#"Service.Tags not contains "v2""#,
            r#"Service.Meta["a-b"] == `x`"#,
            r#"Service.Meta contains "version""#,
            r#"zone in Node.Meta"#,
            r#""/Service/Meta/version" matches "^1\\.""#,
            r#"Service.ID not matches "^db""#,
            "Checks is empty",
            "Service.Tags is not empty",
            "Service.Meta.nothing is empty",
            r#"Service.Meta.nothing != "x""#,
            r#"not (Node.Node == "box-2" or Service.Port == 1) and Service.Service == web"#,
            r#"Service.Port == 1 or Node.Meta.zone == "z1" and Service.Port == 8080"#,
        ] {
            assert!(takes(filter), "{filter}");
        }
        for filter in [
            r#"Service.Meta.version == "2""#,
            "red in Service.Tags",
            "Service.Meta.nothing == x",
            "not Service.Port == 8080",
            "(Service.Port == 8080 or Service.Port == 1) and Service.Port == 1",
        ] {
            assert!(!takes(filter), "{filter}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_meant_says_why() {
        for (filter, why) in [
            ("Service.Colour == 1", "there is no field Service.Colour"),
            ("Service.Meta.a.b == 1", "there is no field Service.Meta.a.b"),
            ("Service", "there is no field Service"),
            ("Service.Port", "comes =="),
            ("Service.Port ==", "a value is missing"),
            ("Service.Port == 1 Service.Port == 1", "write 'and' or 'or'"),
            ("(Service.Port == 1", "not closed"),
            ("Service.ID == \"x", "not closed"),
            ("Service.ID is nothing", "'empty' or 'not empty'"),
            ("Service.ID matches \"(\"", "not a regular expression"),
            ("Service.ID = x", "'=' means nothing"),
            ("", "a field is missing"),
            ("== in ==", "a field has to come here"),
        ] {
            let error = Filter::parse(filter, HEALTH).err().unwrap_or_else(|| panic!("{filter}"));
            assert!(error.contains(why), "{filter}: {error}");
        }
        let deep = format!("{}Service.Port == 1{}", "(".repeat(200), ")".repeat(200));
        assert!(Filter::parse(&deep, HEALTH).unwrap_err().contains("in one another"));
        assert!(Filter::parse(&"x".repeat(3000), HEALTH).unwrap_err().contains("at most"));
    }
}
