//! What was found of cgroups, for people and for the probe.

use serde::{Deserialize, Serialize};

use super::Budget;
use crate::level::Reason;

/// The cgroup tree in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroups {
    /// One tree.
    V2,
    /// A tree per controller.
    V1,
    /// Limits in v1 trees, killing in a v2 tree.
    Hybrid,
    /// None that can be written.
    None,
}

impl Cgroups {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::None => "none",
        }
    }
}

/// What the spawner found of cgroups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupFacts {
    /// The tree in use.
    pub kind: Cgroups,
    /// Controllers whose limits are enforced: of `memory`, `pids`, `cpu`.
    pub controllers: Vec<String>,
    /// Whether a whole group is killed in one step.
    pub kill: bool,
    /// What this program's own cgroup and those above it allow, as a container's do.
    #[serde(default)]
    pub bounds: Budget,
    /// What could not be had.
    pub reasons: Vec<Reason>,
}
