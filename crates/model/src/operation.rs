//! Operations: what is done to a deploy, one after the other.
//!
//! ```text
//!  queued ──▶ running ──▶ succeeded │ failed │ cancelled
//!     └─────▶ cancelled │ superseded
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::formation::Formation;
use crate::name::{Deploy, ProcessName, ProcessType};
use crate::release::ReleaseNumber;
use crate::size::Sizes;

/// Which processes are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// All of the formation.
    All,
    /// All of one type.
    Type(ProcessType),
    /// One.
    One(ProcessName),
}

/// What is to be done. Holds no secret: config values lie encrypted in a version of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Request {
    /// Build a commit that the app's repository has, release and run it.
    Deploy {
        /// 40 hex digits.
        commit: String,
        /// A branch of the deploy's repository that moves there when this has succeeded.
        branch: Option<String>,
        /// What the branch was to whoever pushed, forty zeros where it was not there; without it the
        /// branch moves from wherever it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        old: Option<String>,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Build the codebase's folder as it is now, release and run it: what `tolv up` does at its
    /// start and at every change.
    Up,
    /// Release the slug that another deploy of the app runs.
    Promote {
        /// Whose.
        from: Deploy,
        /// Which of its releases.
        release: ReleaseNumber,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Make a release equal to an earlier one.
    Rollback {
        /// Which.
        to: ReleaseNumber,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Release the slug of a release that failed again, with the config as it is now.
    Retry {
        /// Which.
        release: ReleaseNumber,
        /// The branch that was to move with it, and moves when this has succeeded.
        branch: Option<String>,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Release a new version of the config.
    Config {
        /// Which.
        version: u32,
        /// Names that were set.
        set: Vec<String>,
        /// Names that were unset.
        unset: Vec<String>,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Change quantities; types that are not named keep theirs.
    Scale {
        /// The new ones.
        formation: Formation,
        /// Sizes that change with them, by a release.
        #[serde(default, skip_serializing_if = "Sizes::is_empty")]
        sizes: Sizes,
    },
    /// Change the limits of process types, by a release.
    Limits {
        /// What is asked for; parts that are not named stay.
        sizes: Sizes,
        /// Types that get the defaults again, before that.
        #[serde(default)]
        reset: Vec<ProcessType>,
    },
    /// Replace processes by new ones of the same release.
    Restart {
        /// Which.
        processes: Selection,
    },
    /// Stop every process; routes answer that nothing runs.
    Stop,
    /// Start what was stopped.
    Start,
    /// Remove the deploy with everything it has.
    Destroy,
    /// Take what is pushed: shown while it lasts, and never stored.
    Push,
}

impl Request {
    /// Whether a queued one is not worth doing once a newer one of its kind is queued.
    pub fn is_superseded_by(&self, newer: &Self) -> bool {
        matches!((self, newer), (Self::Deploy { .. }, Self::Deploy { .. }) | (Self::Up, Self::Up))
    }

    /// Whether it may free disk space or memory, and is not refused for want of them.
    pub fn frees_space(&self) -> bool {
        match self {
            Self::Rollback { .. }
            | Self::Scale { .. }
            | Self::Limits { .. }
            | Self::Restart { .. }
            | Self::Stop
            | Self::Start
            | Self::Destroy => true,
            Self::Deploy { .. }
            | Self::Up
            | Self::Promote { .. }
            | Self::Retry { .. }
            | Self::Config { .. }
            | Self::Push => false,
        }
    }

    /// Whether it makes a release whose release phase is left out.
    pub fn skips_release_phase(&self) -> bool {
        match self {
            Self::Deploy { no_release_phase, .. }
            | Self::Promote { no_release_phase, .. }
            | Self::Rollback { no_release_phase, .. }
            | Self::Retry { no_release_phase, .. }
            | Self::Config { no_release_phase, .. } => *no_release_phase,
            Self::Up
            | Self::Scale { .. }
            | Self::Limits { .. }
            | Self::Restart { .. }
            | Self::Stop
            | Self::Start
            | Self::Destroy
            | Self::Push => false,
        }
    }

    /// Its kind in one word, as in the API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Deploy { .. } => "deploy",
            Self::Up => "up",
            Self::Promote { .. } => "promote",
            Self::Rollback { .. } => "rollback",
            Self::Retry { .. } => "retry",
            Self::Config { .. } => "config",
            Self::Scale { .. } => "scale",
            Self::Limits { .. } => "limits",
            Self::Restart { .. } => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Destroy => "destroy",
            Self::Push => "push",
        }
    }
}

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for those before it.
    Queued,
    /// Is being done; after a crash, is done again from where it was.
    Running,
    /// Done.
    Succeeded,
    /// Not done; what ran before still runs.
    Failed,
    /// Given up because somebody asked for it.
    Cancelled,
    /// Given up because a newer one does its work.
    Superseded,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a release turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Not known yet.
    Pending,
    /// It ran.
    Succeeded,
    /// It did not come up; the one before goes on.
    Failed,
}

impl Outcome {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}
