//! Errors, written for people.

use std::error::Error;

/// An error with its causes, in one line: `the outer: the inner: the innermost`.
///
/// Some libraries repeat their cause in their own message; such a cause is left out.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !texts.iter().any(|before| before.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("the file cannot be read")]
        Plain(#[source] std::io::Error),
        #[error("the file cannot be read: {0}")]
        Repeating(#[source] std::io::Error),
    }

    #[test]
    fn causes_follow_once_whether_or_not_the_message_repeats_them() {
        for failure in [Failure::Plain, Failure::Repeating] {
            let error = failure(std::io::Error::other("the disk is gone"));
            assert_eq!(chain(&error), "the file cannot be read: the disk is gone");
        }
    }
}
