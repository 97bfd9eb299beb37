//! Text from others, for people: a plugin, a host or a registry may be hostile.

use std::borrow::Cow;

/// The text in a form that cannot control a terminal or forge a line: control characters, line
/// separators, and characters that change the direction of text or show nothing are escaped. Tabs stay.
#[must_use]
pub fn printable(text: &str) -> String {
    escaped(text, |character| character == '\t')
}

/// Like [`printable`], for text of several lines: line ends stay.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    escaped(text, |character| matches!(character, '\t' | '\n'))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if is_dangerous(character) && !stays(character) {
            printable.extend(character.escape_unicode());
        } else {
            printable.push(character);
        }
    }
    printable
}

/// Text that is JSON, or a line of a log: characters that end a line, change the direction of text or show
/// nothing are escaped as JSON escapes them. Control characters are left alone, because JSON has escaped
/// them already, and a log may have colours.
#[must_use]
pub fn printable_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_deceptive) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if is_deceptive(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                printable.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            printable.push(character);
        }
    }
    Cow::Owned(printable)
}

fn is_dangerous(character: char) -> bool {
    character.is_control() || is_deceptive(character)
}

/// Whether a character ends a line, changes the direction of text, or shows nothing.
fn is_deceptive(character: char) -> bool {
    matches!(
        character,
        // Line and paragraph separators.
        '\u{2028}' | '\u{2029}'
        // Marks, embeddings, overrides and isolates of the bidirectional algorithm.
        | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Characters without width, and tags, which show nothing.
        | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_and_hides_nothing() {
        let text = serde_json::to_string("a\u{202e}b\u{e0041}\u{1b}").unwrap();
        let printed = printable_json(&text);
        assert_eq!(printed, "\"a\\u202eb\\udb40\\udc41\\u001b\"");
        let back: String = serde_json::from_str(&printed).unwrap();
        assert_eq!(back, "a\u{202e}b\u{e0041}\u{1b}");
        assert!(matches!(printable_json("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn nothing_controls_the_terminal_or_forges_a_line() {
        assert_eq!(printable("a\n\u{1b}[31mb\tc"), "a\\u{a}\\u{1b}[31mb\tc");
        assert_eq!(printable("x\u{202e}y\u{2028}z\u{feff}"), "x\\u{202e}y\\u{2028}z\\u{feff}");
        assert_eq!(printable_lines("a\nb\r"), "a\nb\\u{d}");
        assert_eq!(printable("Ünï 🚢 \u{200d}"), "Ünï 🚢 \u{200d}");
    }
}
