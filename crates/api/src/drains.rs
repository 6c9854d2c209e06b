//! Drains over the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A receiver that the lines of a deploy's log are sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// Which.
    pub id: String,
    /// Where to; secrets show as `****`.
    pub url: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// `up`, `connecting` while the first try since a start is under way, or `failing` where the last try
    /// was in vain.
    pub state: String,
    /// Lines that were sent.
    pub sent: u64,
    /// Of those, the last ones, which the receiver may not have yet: they are sent again when the
    /// connection breaks.
    pub under_way: u64,
    /// Lines that were sent more than once.
    pub retried: u64,
    /// Lines that were not sent: the log had no room for them any more, or the receiver refused
    /// them for good.
    pub dropped: u64,
    /// Bytes of the log that are still to be sent.
    pub behind: u64,
    /// The last error.
    pub error: Option<String>,
    /// When that was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub error_at: Option<Timestamp>,
}

/// A drain to be made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDrain {
    /// Where to: `syslog://`, `syslog+tls://`, `https://` or `otlp+https://`, and what follows.
    pub url: String,
}

impl std::fmt::Debug for NewDrain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewDrain(****)")
    }
}
