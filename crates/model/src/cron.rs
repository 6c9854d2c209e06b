//! What becomes of the runs of a schedule.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a run of a schedule turned out, or why there was none.
///
/// ```text
///  running ──▶ succeeded │ failed │ replaced
///  skipped, missed: never ran
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CronOutcome {
    /// It goes on.
    Running,
    /// It ended with status 0.
    Succeeded,
    /// It ended with another status, was killed, did not start, or was cut off.
    Failed,
    /// It was stopped for the run of a later tick.
    Replaced,
    /// It was left out: the run of an earlier tick went on.
    Skipped,
    /// The platform was down, and it was too late when it was up again.
    Missed,
}

impl CronOutcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Succeeded, Self::Failed, Self::Replaced, Self::Skipped, Self::Missed];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Replaced => "replaced",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        self != Self::Running
    }
}

/// Not an outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not how a run turns out")]
pub struct CronOutcomeError(String);

impl FromStr for CronOutcome {
    type Err = CronOutcomeError;
    fn from_str(text: &str) -> Result<Self, CronOutcomeError> {
        let found = Self::ALL.into_iter().find(|outcome| outcome.as_str() == text);
        found.ok_or_else(|| CronOutcomeError(text.chars().take(60).collect()))
    }
}

impl fmt::Display for CronOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
