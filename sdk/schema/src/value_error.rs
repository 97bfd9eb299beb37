//! A value that does not fit its type.

/// What a reader expected where it found something else.
pub type Expected = std::borrow::Cow<'static, str>;

/// A value that does not fit its type, with the place: `args.b`, `[3].name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    path: String,
    problem: Expected,
}

impl ValueError {
    /// A problem at the reader's current place.
    pub fn new(problem: impl Into<Expected>) -> Self {
        ValueError { path: String::new(), problem: problem.into() }
    }

    /// The same error, seen from the enclosing value: `step` leads from there to this value.
    #[must_use]
    pub fn within(mut self, step: impl std::fmt::Display) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }

    /// The same error, with an example of the whole value that was wanted, as JSON.
    #[must_use]
    pub(crate) fn like(self, example: &str) -> Self {
        ValueError { problem: format!("{}; write it like {example}", self.problem).into(), ..self }
    }

    /// The path to the problem, from the outside in. Empty for the value itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl std::error::Error for ValueError {}

impl std::fmt::Display for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}
