//! Text tools, as a Wharf service. Together the methods use every kind of WIT value.

// The generated bindings are not ours to lint.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::pedantic)]
mod bindings {
    use super::Plugin;

    wit_bindgen::generate!({ path: "wit", world: "plugin" });
    export!(Plugin);
}
mod encodings;
mod text;

use bindings::exports::demo::textkit::textkit::{
    DecodeError, Encoding, Guest, LetterCase, SearchOptions, Span, Statistics, Token,
};

wharf_guest::wit_docs!("wit/textkit.wit");

struct Plugin;

impl Guest for Plugin {
    fn analyze(text: String) -> Statistics {
        text::analyze(&text)
    }

    fn word_counts(text: String, at_most: Option<u32>) -> Vec<(String, u32)> {
        text::word_counts(&text, at_most)
    }

    fn find(haystack: String, needle: String, options: SearchOptions) -> Vec<Span> {
        text::find(&haystack, &needle, options)
    }

    fn tokenize(text: String) -> Vec<Token> {
        text::tokenize(&text)
    }

    fn recase(text: String, to: LetterCase) -> String {
        text::recase(&text, to)
    }

    fn join(parts: Vec<String>, separator: String) -> String {
        parts.join(&separator)
    }

    fn encode(data: Vec<u8>, using: Encoding) -> String {
        encodings::encode(&data, using)
    }

    fn decode(text: String, using: Encoding) -> Result<Vec<u8>, DecodeError> {
        encodings::decode(&text, using)
    }

    fn checksum(data: Vec<u8>) -> u32 {
        encodings::crc32(&data)
    }

    fn echo(data: Vec<u8>) -> Vec<u8> {
        data
    }
}
