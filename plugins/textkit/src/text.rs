//! Counting, searching and splitting.

use std::collections::HashMap;

use crate::bindings::exports::demo::textkit::textkit::{
    LetterCase, SearchOptions, Span, Statistics, Token,
};

pub(crate) fn analyze(text: &str) -> Statistics {
    let words = text.split_whitespace().count();
    let lines = text.lines().count();
    Statistics {
        bytes: text.len() as u64,
        chars: text.chars().count() as u64,
        words: words as u64,
        lines: lines as u64,
        longest_word: text
            .split_whitespace()
            .rev()
            .max_by_key(|word| word.chars().count())
            .map(str::to_owned),
        words_per_line: if lines == 0 { 0.0 } else { words as f64 / lines as f64 },
    }
}

pub(crate) fn word_counts(text: &str, at_most: Option<u32>) -> Vec<(String, u32)> {
    let mut counts = HashMap::<String, u32>::new();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    for word in words {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    counts.truncate(at_most.map_or(usize::MAX, |n| n as usize));
    counts
}

pub(crate) fn find(haystack: &str, needle: &str, options: SearchOptions) -> Vec<Span> {
    let mut spans = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(character) = haystack[at..].chars().next() {
        let matched =
            match_len(&haystack[at..], needle, options.contains(SearchOptions::IGNORE_CASE))
                .map(|len| at + len)
                .filter(|end| {
                    !options.contains(SearchOptions::WHOLE_WORDS) || is_word(haystack, at, *end)
                });
        let next = matched.unwrap_or(at + character.len_utf8());
        if matched.is_some() {
            spans.push(Span { start: position(at), end: position(next), line });
        }
        line += position(haystack[at..next].matches('\n').count());
        at = next;
    }
    spans
}

/// How many bytes of `text` match `needle` at its beginning.
fn match_len(text: &str, needle: &str, ignore_case: bool) -> Option<usize> {
    if needle.is_empty() {
        return None;
    }
    if !ignore_case {
        return text.starts_with(needle).then_some(needle.len());
    }
    let mut rest = text.chars();
    for wanted in needle.chars() {
        rest.next().filter(|c| c.to_lowercase().eq(wanted.to_lowercase()))?;
    }
    Some(text.len() - rest.as_str().len())
}

fn is_word(text: &str, start: usize, end: usize) -> bool {
    let outside = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
    outside(text[..start].chars().next_back()) && outside(text[end..].chars().next())
}

/// A guest's memory has 32-bit addresses, so a position in a text always fits.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

pub(crate) fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (token, len) = if end == 0 {
            (Token::Mark(first), first.len_utf8())
        } else {
            let run = &rest[..end];
            (run.parse().map_or_else(|_| Token::Word(run.to_owned()), Token::Number), end)
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    tokens
}

pub(crate) fn recase(text: &str, to: LetterCase) -> String {
    match to {
        LetterCase::Lower => text.to_lowercase(),
        LetterCase::Upper => text.to_uppercase(),
        LetterCase::Title => {
            let mut in_word = false;
            let mut result = String::with_capacity(text.len());
            for character in text.chars() {
                if in_word {
                    result.extend(character.to_lowercase());
                } else {
                    result.extend(character.to_uppercase());
                }
                in_word = character.is_alphanumeric();
            }
            result
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_text() {
        let figures = analyze("one two\nthrée");
        assert_eq!((figures.bytes, figures.chars, figures.words, figures.lines), (14, 13, 3, 2));
        assert_eq!(figures.longest_word.as_deref(), Some("thrée"));
        assert_eq!(analyze("").words_per_line, 0.0);
    }

    #[test]
    fn searches_respect_their_options() {
        let starts = |options| -> Vec<(u32, u32)> {
            find("Cat\ncatalog cat", "cat", options).iter().map(|s| (s.start, s.line)).collect()
        };
        assert_eq!(starts(SearchOptions::empty()), [(4, 2), (12, 2)]);
        assert_eq!(starts(SearchOptions::IGNORE_CASE), [(0, 1), (4, 2), (12, 2)]);
        assert_eq!(starts(SearchOptions::WHOLE_WORDS), [(12, 2)]);
        assert!(find("abc", "", SearchOptions::empty()).is_empty());
    }

    #[test]
    fn words_are_counted_without_regard_to_case() {
        let counts = word_counts("b a B, c a; B", Some(2));
        assert_eq!(counts, [("b".to_owned(), 3), ("a".to_owned(), 2)]);
    }

    #[test]
    fn tokens_come_in_order() {
        let tokens = tokenize("add 12, x");
        assert!(
            matches!(&tokens[..], [Token::Word(a), Token::Number(12), Token::Mark(','), Token::Word(x)]
            if a == "add" && x == "x")
        );
    }
}
