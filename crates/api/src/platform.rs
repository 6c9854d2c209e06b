//! What a running platform holds and lacks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How good something is; worse ones are greater.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// It works; somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
}

impl Health {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// The running platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlatformStatus {
    /// The worst of the checks.
    pub state: Health,
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Time since its start.
    pub uptime_seconds: u64,
    /// One thing each.
    pub checks: Vec<PlatformCheck>,
}

/// One thing that a platform holds or lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlatformCheck {
    /// What: lease, database, disk and so on.
    pub name: String,
    /// How good it is.
    pub state: Health,
    /// What there is to say, in a line.
    pub summary: String,
    /// The same as numbers and words for programs. What is not known is not there.
    #[schema(value_type = Object)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}
