//! Passes values of every type through a guest and back. Compares them with serde and postcard.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wharf_runtime::{Engine, MethodIndex, Plugin, Settings};
use wharf_tests::{Args, ArithError, Quotient, plugin};

async fn load(name: &str) -> Plugin {
    let engine = Engine::new(None).unwrap();
    Plugin::load(&engine, name, plugin(name).unwrap(), Settings::default()).await.unwrap()
}

async fn call<R: DeserializeOwned>(plugin: &Plugin, method: &str, arguments: &impl Serialize) -> R {
    let service = &plugin.services()[0];
    let index = service.methods().iter().position(|m| m.name == method).unwrap();
    let arguments = postcard::to_stdvec(arguments).unwrap();
    let index = MethodIndex { service: 0, method: index };
    let deadline = Instant::now() + Duration::from_secs(20);
    let reply =
        plugin.clone().call(index, arguments.into(), Instant::now(), deadline).await.unwrap();
    postcard::from_bytes(&reply).unwrap()
}

#[tokio::test]
async fn records_results_and_variants() {
    let arith = load("arith").await;
    let product: i64 = call(&arith, "multiply", &Args { a: 7, b: 8 }).await;
    assert_eq!(product, 56);
    let wrapped: i64 = call(&arith, "multiply", &Args { a: i64::MAX, b: 2 }).await;
    assert_eq!(wrapped, -2);
    type Division = Result<Quotient, ArithError>;
    let divide = async |a, b| call::<Division>(&arith, "divide", &Args { a, b }).await;
    assert_eq!(divide(-7, 2).await, Ok(Quotient { quo: -3, rem: -1 }));
    assert_eq!(divide(7, 0).await, Err(ArithError::DivideByZero));
    assert_eq!(divide(i64::MIN, -1).await, Err(ArithError::Overflow(i64::MIN)));
}

#[derive(Debug, PartialEq, Deserialize)]
struct Statistics {
    bytes: u64,
    chars: u64,
    words: u64,
    lines: u64,
    longest_word: Option<String>,
    words_per_line: f64,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Span {
    start: u32,
    end: u32,
    line: u32,
}

#[derive(Debug, PartialEq, Deserialize)]
enum Token {
    Word(String),
    Number(i64),
    Mark(char),
}

#[derive(Clone, Copy, Serialize)]
enum Encoding {
    Hex,
    Base32,
}

#[derive(Debug, PartialEq, Deserialize)]
enum DecodeError {
    BadCharacter((char, u32)),
    Truncated,
}

#[tokio::test]
async fn strings_lists_options_flags_tuples_enums_and_bytes() {
    let textkit = load("textkit").await;
    let statistics: Statistics = call(&textkit, "analyze", &"one two\nthrée").await;
    assert_eq!((statistics.bytes, statistics.chars, statistics.words), (14, 13, 3));
    assert_eq!((statistics.lines, statistics.words_per_line), (2, 1.5));
    assert_eq!(statistics.longest_word.as_deref(), Some("thrée"));
    let empty: Statistics = call(&textkit, "analyze", &"").await;
    assert_eq!(empty.longest_word, None);

    let counts: Vec<(String, u32)> = call(&textkit, "word-counts", &("b a b", None::<u32>)).await;
    assert_eq!(counts, [("b".into(), 2), ("a".into(), 1)]);
    let counts: Vec<(String, u32)> = call(&textkit, "word-counts", &("b a b", Some(1u32))).await;
    assert_eq!(counts.len(), 1);

    let both_flags = 0b11u8;
    let spans: Vec<Span> = call(&textkit, "find", &("Cat\ncatalog", "cat", both_flags)).await;
    assert_eq!(spans, [Span { start: 0, end: 3, line: 1 }]);

    let tokens: Vec<Token> = call(&textkit, "tokenize", &"a -7 \u{1F40B}").await;
    let expected =
        [Token::Word("a".into()), Token::Mark('-'), Token::Number(7), Token::Mark('\u{1F40B}')];
    assert_eq!(tokens, expected);

    let joined: String = call(&textkit, "join", &(["a", "", "c"].as_slice(), ", ")).await;
    assert_eq!(joined, "a, , c");

    for encoding in [Encoding::Hex, Encoding::Base32] {
        let data: Vec<u8> = (0..=255).collect();
        let text: String = call(&textkit, "encode", &(&data, encoding)).await;
        let decoded: Result<Vec<u8>, DecodeError> =
            call(&textkit, "decode", &(&text, encoding)).await;
        assert_eq!(decoded, Ok(data));
    }
    let decoded: Result<Vec<u8>, DecodeError> =
        call(&textkit, "decode", &("6é", Encoding::Hex)).await;
    assert_eq!(decoded, Err(DecodeError::BadCharacter(('é', 1))));
    let decoded: Result<Vec<u8>, DecodeError> =
        call(&textkit, "decode", &("666", Encoding::Hex)).await;
    assert_eq!(decoded, Err(DecodeError::Truncated));

    let checksum: u32 = call(&textkit, "checksum", &b"123456789".to_vec()).await;
    assert_eq!(checksum, 0xcbf4_3926);
    let large = vec![7u8; 300_000];
    let echoed: Vec<u8> = call(&textkit, "echo", &large).await;
    assert_eq!(echoed, large);
}

#[test]
fn documentation_reaches_the_description() {
    for name in ["arith", "textkit"] {
        let inspection = wharf_runtime::inspect(&plugin(name).unwrap()).unwrap();
        let service = &inspection.services[0];
        assert!(!service.docs().is_empty(), "{name}");
        for method in service.methods() {
            assert!(!method.docs.is_empty(), "{name}.{}", method.name);
            assert!(service.wit().contains(&method.docs), "{name}.{}", method.name);
        }
    }
    let inspection = wharf_runtime::inspect(&plugin("arith").unwrap()).unwrap();
    assert!(inspection.services[0].wit().contains("/// The first operand."));
    assert!(inspection.imports.is_empty(), "{:?}", inspection.imports);
}
