//! Errors of the API: RFC 9457 problem documents with a stable code.

use serde::{Deserialize, Serialize};

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, for a program. Codes are never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// 400: a body, parameter or name that is not what the API takes.
    Invalid,
    /// 401: the registry asks for a token. The request has none, or one that is not known.
    Unauthenticated,
    /// 403: the token does not allow this.
    Forbidden,
    /// 403: a web page of another origin asks for a change.
    CrossSite,
    /// 404: the registry does not know this host; declare.
    UnknownHost,
    /// 404: nothing is registered under this name.
    UnknownService,
    /// 404: the API has no such path.
    UnknownPath,
    /// 405: the path has no such method.
    MethodNotAllowed,
    /// 408: the body of a request came too slowly.
    TooSlow,
    /// 409: a newer session owns this host.
    Superseded,
    /// 409: several addresses are registered under this name.
    Ambiguous,
    /// 410: the index is from another life of the registry; list again without it.
    IndexGone,
    /// 413: a body larger than the limit.
    TooLarge,
    /// 415: a body that is compressed.
    UnknownEncoding,
    /// 429: this token asks more often than it may; retry after `Retry-After`.
    RateLimited,
    /// 503: there are too many requests at once; retry after `Retry-After`.
    Busy,
    /// 503: the registry's store does not answer, or its disk does not write. It is not certain
    /// whether the change was made.
    StoreUnavailable,
    /// 503: the registry holds as much as it can.
    Full,
    /// 503: the registry has only just started, and cannot know all hosts yet.
    Warming,
    /// 503: the registry shuts down.
    ShuttingDown,
    /// 501: a part of another system's API that this registry does not have.
    NotOffered,
    /// A code of a later version.
    #[serde(other)]
    Other,
}

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: Code,
    /// What the code says, in words.
    pub title: String,
    /// What happened here and what to do next.
    pub detail: String,
    /// With [`Code::Superseded`]: the session that owns the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
}

impl Code {
    /// The HTTP status that belongs to it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Code::Invalid => 400,
            Code::Unauthenticated => 401,
            Code::Forbidden | Code::CrossSite => 403,
            Code::UnknownHost | Code::UnknownService | Code::UnknownPath => 404,
            Code::MethodNotAllowed => 405,
            Code::TooSlow => 408,
            Code::Superseded | Code::Ambiguous => 409,
            Code::IndexGone => 410,
            Code::TooLarge => 413,
            Code::UnknownEncoding => 415,
            Code::RateLimited => 429,
            Code::Busy
            | Code::StoreUnavailable
            | Code::Full
            | Code::Warming
            | Code::ShuttingDown => 503,
            Code::Other => 500,
            Code::NotOffered => 501,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Code::Invalid => "The request is invalid",
            Code::Unauthenticated => "A token is needed",
            Code::Forbidden => "The token does not allow this",
            Code::CrossSite => "Refused for web pages from another origin",
            Code::UnknownHost => "The host is not registered",
            Code::UnknownService => "The service is not registered",
            Code::UnknownPath => "There is no such path",
            Code::MethodNotAllowed => "The path has no such method",
            Code::TooSlow => "The request came too slowly",
            Code::Superseded => "A newer session owns the host",
            Code::Ambiguous => "The name is registered at several addresses",
            Code::IndexGone => "The index is not from this run of the registry",
            Code::TooLarge => "The request is too large",
            Code::UnknownEncoding => "The body's encoding is not known",
            Code::RateLimited => "The token asks too often",
            Code::Busy => "The registry is busy",
            Code::StoreUnavailable => "The registry's store does not answer",
            Code::Full => "The registry is full",
            Code::Warming => "The registry has just started",
            Code::ShuttingDown => "The registry is shutting down",
            Code::NotOffered => "The registry does not have this",
            Code::Other => "Something went wrong",
        }
    }
}

impl Problem {
    /// A problem with the status and title of its code.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem {
            status: code.status(),
            code,
            title: code.title().to_owned(),
            detail: detail.into(),
            session: None,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.detail, self.status)
    }
}
