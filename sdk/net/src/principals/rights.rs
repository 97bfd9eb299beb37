//! Which methods a principal may call.

/// A service, by the parts of its full name.
#[derive(Clone, Copy, Debug)]
pub struct Callee<'n> {
    /// `demo:arith`; empty for an interface without a package.
    pub package: &'n str,
    /// `arith`
    pub interface: &'n str,
}

/// The methods that a principal may call, or the services that its hosts may announce: a list of patterns.
///
/// - `*`: all methods of all services
/// - `demo:*`: all services of a namespace
/// - `demo:arith/*`: all services of a package
/// - `demo:arith/arith` or `demo:arith/arith.*`: one service
/// - `demo:arith/arith.multiply`: one method
/// - `arith`, `arith.*`, `arith.multiply`: the same for the services of this short name in any package
///
/// Versions do not count: a right holds for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(Vec<Pattern>);

/// One pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    line: usize,
    what: What,
}

/// Wherever it stands, it allows the same.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.what == other.what
    }
}

impl Eq for Pattern {}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Everything,
    Namespace(String),
    Package(String),
    /// `package` and `method` are `None` if any will do.
    Methods {
        package: Option<String>,
        interface: String,
        method: Option<String>,
    },
}

impl Pattern {
    /// Reads a pattern, which stands in this line of its file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str, line: usize) -> Result<Self, String> {
        let what = What::parse(text).map_err(|what| format!("'{text}' {what}"))?;
        Ok(Pattern { text: text.to_owned(), line, what })
    }

    /// Whether it allows one method only.
    pub(super) fn is_method(&self) -> bool {
        matches!(self.what, What::Methods { method: Some(_), .. })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line of its file, from 1; 0 if it is from no file.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }
}

impl What {
    fn parse(text: &str) -> Result<Self, String> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let word = |word: &str| match is_word(word) {
            true => Ok(word.to_owned()),
            false => Err(format!(
                "is no pattern ('{word}'): write names as WIT does, as in \"demo:arith/*\", \"demo:arith/arith.multiply\" or \"arith.multiply\""
            )),
        };
        if text == "*" {
            return Ok(What::Everything);
        }
        if text.contains('@') {
            return Err("has a version: rights hold for all versions, so leave it out".to_owned());
        }
        let (package, rest) = match text.split_once('/') {
            Some((package, rest)) => {
                let (namespace, name) = package.split_once(':').unwrap_or((package, ""));
                (Some(format!("{}:{}", word(namespace)?, word(name)?)), rest)
            }
            None => match text.split_once(':') {
                Some((namespace, "*")) => return Ok(What::Namespace(word(namespace)?)),
                Some(_) => {
                    return Err(
                        "names a package: write a '/*' behind it for all that is in it".to_owned()
                    );
                }
                None => (None, text),
            },
        };
        let (interface, method) = match rest.split_once('.') {
            Some((interface, "*")) => (interface, None),
            Some((interface, method)) => (interface, Some(word(method)?)),
            None => (rest, None),
        };
        if let (Some(package), "*", None) = (&package, rest, &method) {
            return Ok(What::Package(package.clone()));
        }
        Ok(What::Methods { package, interface: word(interface)?, method })
    }

    fn has_service(&self, callee: Callee<'_>) -> bool {
        match self {
            What::Everything => true,
            What::Namespace(namespace) => {
                callee.package.split_once(':').is_some_and(|(of, _)| of == namespace)
            }
            What::Package(package) => callee.package == package,
            What::Methods { package, interface, .. } => {
                callee.interface == interface
                    && package.as_ref().is_none_or(|package| callee.package == package)
            }
        }
    }

    fn has_method(&self, callee: Callee<'_>, name: &str) -> bool {
        let of_method = match self {
            What::Methods { method: Some(method), .. } => method == name,
            _ => true,
        };
        of_method && self.has_service(callee)
    }
}

impl Calls {
    /// Every method of every service.
    pub(super) fn everything() -> Self {
        Calls(vec![Pattern { text: "*".to_owned(), line: 0, what: What::Everything }])
    }

    pub(super) fn new(patterns: Vec<Pattern>) -> Self {
        Calls(patterns)
    }

    /// Whether there is nothing that it allows.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it allows every method of every service.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.iter().any(|pattern| pattern.what == What::Everything)
    }

    /// Whether it allows any method that the service could have.
    #[must_use]
    pub fn has_service(&self, callee: Callee<'_>) -> bool {
        self.0.iter().any(|pattern| pattern.what.has_service(callee))
    }

    /// Whether it allows every method that the service could have.
    #[must_use]
    pub fn has_whole_service(&self, callee: Callee<'_>) -> bool {
        let whole = |what: &What| !matches!(what, What::Methods { method: Some(_), .. });
        self.0.iter().any(|pattern| whole(&pattern.what) && pattern.what.has_service(callee))
    }

    /// The first pattern that allows a method.
    #[must_use]
    pub fn of_method(&self, callee: Callee<'_>, method: &str) -> Option<&Pattern> {
        self.0.iter().find(|pattern| pattern.what.has_method(callee, method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(patterns: &[&str]) -> Calls {
        Calls::new(patterns.iter().map(|text| Pattern::parse(text, 1).unwrap()).collect())
    }

    const ARITH: Callee<'_> = Callee { package: "demo:arith", interface: "arith" };
    const OTHERS: Callee<'_> = Callee { package: "evil:arith", interface: "arith" };
    const TEXT: Callee<'_> = Callee { package: "demo:textkit", interface: "textkit" };

    #[test]
    fn a_pattern_allows_what_it_says_and_nothing_beside_it() {
        for (pattern, allowed, denied) in [
            ("*", vec![(ARITH, "divide"), (OTHERS, "x"), (TEXT, "y")], vec![]),
            ("demo:*", vec![(ARITH, "divide"), (TEXT, "recase")], vec![(OTHERS, "divide")]),
            ("demo:arith/*", vec![(ARITH, "divide")], vec![(OTHERS, "divide"), (TEXT, "recase")]),
            ("demo:arith/arith", vec![(ARITH, "divide")], vec![(OTHERS, "divide")]),
            ("demo:arith/arith.*", vec![(ARITH, "divide")], vec![(TEXT, "divide")]),
            (
                "demo:arith/arith.divide",
                vec![(ARITH, "divide")],
                vec![(ARITH, "divide-2"), (ARITH, "multiply"), (OTHERS, "divide")],
            ),
            ("arith.divide", vec![(ARITH, "divide"), (OTHERS, "divide")], vec![(TEXT, "divide")]),
            ("textkit", vec![(TEXT, "recase")], vec![(ARITH, "recase")]),
        ] {
            let calls = calls(&[pattern]);
            for (callee, method) in allowed {
                assert!(calls.of_method(callee, method).is_some(), "{pattern} {callee:?}");
                assert!(calls.has_service(callee), "{pattern} {callee:?}");
            }
            for (callee, method) in denied {
                assert!(calls.of_method(callee, method).is_none(), "{pattern} {callee:?}");
            }
        }
        assert!(calls(&["demo:arith/arith.divide"]).has_service(ARITH));
        assert!(!calls(&["demo:arith/arith.divide"]).has_whole_service(ARITH));
        assert!(calls(&["demo:arith/arith.divide", "arith"]).has_whole_service(ARITH));
        assert!(calls(&[]).is_nothing() && !calls(&[]).has_service(ARITH));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_what_to_write() {
        for (text, reason) in [
            ("", "is no pattern"),
            ("demo:arith", "write a '/*' behind it"),
            ("demo:arith/", "is no pattern"),
            ("demo/arith.x", "is no pattern"),
            ("demo:arith/arith@0.1.0.multiply", "has a version"),
            ("Arith.Multiply", "write names as WIT does"),
            ("demo:ar*", "'/*' behind it"),
            ("arith.mul*", "is no pattern"),
            ("*.multiply", "is no pattern"),
            ("demo:arith/*.multiply", "is no pattern"),
        ] {
            let error = Pattern::parse(text, 1).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
