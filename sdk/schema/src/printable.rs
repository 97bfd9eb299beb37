//! Text from others, for people: a plugin, a host or a registry may be hostile.

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

fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(
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
    fn nothing_controls_the_terminal_or_forges_a_line() {
        assert_eq!(printable("a\n\u{1b}[31mb\tc"), "a\\u{a}\\u{1b}[31mb\tc");
        assert_eq!(printable("x\u{202e}y\u{2028}z\u{feff}"), "x\\u{202e}y\\u{2028}z\\u{feff}");
        assert_eq!(printable_lines("a\nb\r"), "a\nb\\u{d}");
        assert_eq!(printable("Ünï 🚢 \u{200d}"), "Ünï 🚢 \u{200d}");
    }
}
