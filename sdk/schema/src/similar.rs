//! Names that somebody may have meant.

/// Names less similar than this to the one asked for are not suggested (Jaro-Winkler, 1 for the same).
const SIMILAR: f64 = 0.7;

/// Longer names, in bytes, get no suggestion. Nobody mistyped them, and comparing takes their length
/// times the length of each known name.
const SUGGESTED_FOR: usize = 64;

/// The known name that is most similar to `name`, if any is similar enough.
#[must_use]
pub fn most_similar<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > SUGGESTED_FOR {
        return None;
    }
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= SIMILAR).map(|(_, known)| known)
}

/// `; did you mean 'NAME'?` for the known name that is most similar, or nothing: the end of an error's
/// message.
#[must_use]
pub fn did_you_mean<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    most_similar(name, known).map(|meant| format!("; did you mean '{meant}'?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_names_are_suggested() {
        let known = ["arith", "textkit"];
        assert_eq!(did_you_mean("arih", known), "; did you mean 'arith'?");
        assert_eq!(did_you_mean("zzz", known), "");
        assert_eq!(did_you_mean(&"arith".repeat(20), known), "");
    }
}
