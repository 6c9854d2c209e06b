//! Errors of the API: problem documents (RFC 9457) with a closed set of types.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What kind of error it is: stable, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// What was sent makes no sense.
    Invalid,
    /// No token, or none that is valid.
    Unauthorized,
    /// The token does not allow it.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The method does not exist for this address.
    MethodNotAllowed,
    /// The name is taken.
    Exists,
    /// It was changed meanwhile: `If-Match` names an older version.
    Conflict,
    /// It makes sense and is not done as things are.
    Refused,
    /// What was sent did not arrive in time.
    Timeout,
    /// What was sent is too large.
    TooLarge,
    /// What was sent has another media type than the one that is taken.
    UnsupportedMediaType,
    /// The idempotency key was used for another request.
    KeyReused,
    /// The token has as many requests under way as it may.
    TooManyRequests,
    /// The disk is as full as it may be, or takes nothing for another reason.
    Full,
    /// The database is away; try again.
    Unavailable,
    /// The platform is ending, and nothing was done. At an upgrade the next one answers; ask again.
    Stopping,
    /// A fault of the platform's own.
    Internal,
}

impl Code {
    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Exists | Self::Refused => 409,
            Self::Conflict => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::KeyReused => 422,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::Unavailable | Self::Stopping => 503,
            Self::Full => 507,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Invalid => "the request makes no sense",
            Self::Unauthorized => "a valid token is needed",
            Self::Forbidden => "the token does not allow this",
            Self::NotFound => "there is no such thing",
            Self::MethodNotAllowed => "this cannot be done here",
            Self::Exists => "it exists already",
            Self::Conflict => "it was changed meanwhile",
            Self::Refused => "this is not done as things are",
            Self::Timeout => "the request took too long to arrive",
            Self::TooLarge => "the request is too large",
            Self::UnsupportedMediaType => "the request has another media type than is taken",
            Self::KeyReused => "the idempotency key belongs to another request",
            Self::TooManyRequests => "too many requests at once",
            Self::Full => "the disk takes nothing",
            Self::Unavailable => "not now",
            Self::Stopping => "the platform is ending",
            Self::Internal => "the platform failed",
        }
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:tolv:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same, as a word.
    pub code: Code,
    /// The kind of error in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of a kind, with what was wrong.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let word = serde_json::to_value(code).ok();
        let word = word.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        Self {
            kind: format!("urn:tolv:problem:{word}"),
            code,
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            hint: None,
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}
