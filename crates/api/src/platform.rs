//! What a running platform holds and lacks.

use serde::{Deserialize, Serialize};
pub use tolv_model::status::Health;
use utoipa::ToSchema;

/// The running platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlatformStatus {
    /// The worst of the checks: ok, warn or fail.
    #[schema(value_type = String)]
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
    /// How good it is: ok, warn or fail.
    #[schema(value_type = String)]
    pub state: Health,
    /// What there is to say, in a line.
    pub summary: String,
    /// The same as numbers and words for programs. What is not known is not there.
    #[schema(value_type = Object)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}
