//! The lines of a deploy's log on the wire.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Value;

/// One line, or one piece of a line that was split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it was written, to the microsecond.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Who wrote it: app or tolv.
    pub source: String,
    /// Which process: `web.1`, `router`.
    pub process: String,
    /// Of which release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
    /// out or err.
    pub stream: String,
    /// Whether the line goes on in the next piece.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Whether it goes on with the piece before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continued: bool,
    /// Its bytes, without the end.
    pub text: Value,
}

/// Some lines of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// The oldest first.
    pub lines: Vec<LogLine>,
    /// Where to go on.
    pub cursor: String,
    /// Whether there is more behind it now.
    pub more: bool,
    /// Whether lines behind the cursor that was asked with are not there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
}

/// Lines of a process that whoever follows was too slow for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogMissed {
    /// Whose; nothing where that is not known.
    pub process: Option<String>,
    /// How many; nothing where that is not known.
    pub lines: Option<u64>,
}

/// Lines, and their bytes with a line end each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogCount {
    /// How many lines.
    pub lines: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// What a process has written: `written` is `stored` and `dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogAccount {
    /// Taken in from it.
    pub written: LogCount,
    /// Put into the log.
    pub stored: LogCount,
    /// Lost, for the disk was full and the memory for it too.
    pub dropped: LogCount,
}

/// The accounts of a deploy's log since the platform began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogStats {
    /// Process, or type of one-offs → what was written; `tolv` is what the platform and the
    /// router said.
    pub processes: BTreeMap<String, LogAccount>,
    /// All of them together.
    pub total: LogAccount,
    /// Bytes that the log has on the disk.
    pub size: u64,
    /// Bytes that it may have.
    pub limit: u64,
}
