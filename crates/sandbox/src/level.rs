//! How strongly a process is shut in, and what an operator may ask for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One degree of isolation, best first: `Strict < User < Landlock < None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Needs root: a uid per app, its own namespaces, root file system and cgroup.
    Strict,
    /// Needs user namespaces: the same with the uid of the platform, limits where delegated.
    User,
    /// Needs neither: Landlock, seccomp, no-new-privileges, rlimits.
    Landlock,
    /// Asked for by name: a process group and rlimits.
    None,
}

impl Level {
    /// Every level, best first.
    pub const ALL: [Self; 4] = [Self::Strict, Self::User, Self::Landlock, Self::None];

    /// The word used in settings and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::User => "user",
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }

    /// Whether a process of this level sees its own root file system, so that the targets of
    /// its mounts exist.
    pub fn has_own_root(self) -> bool {
        matches!(self, Self::Strict | Self::User)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no sandbox level: use auto, strict, user, landlock or none")]
pub struct UnknownLevel(String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownLevel(text.chars().take(40).collect()))
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// The best this machine gives, but never [`Level::None`].
    #[default]
    Auto,
    /// This level or a refusal.
    Exactly(Level),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Exactly(level) => level.fmt(f),
        }
    }
}

impl FromStr for Choice {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text {
            "auto" => Ok(Self::Auto),
            other => other.parse().map(Self::Exactly),
        }
    }
}

/// Why a step failed: the step and the system's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", self.text())]
pub struct Reason {
    /// What was being done, as in `mount /proc`.
    pub stage: String,
    /// The error number; 0 where there is none.
    pub errno: i32,
}

impl Reason {
    /// A reason from a step and an error number.
    pub fn new(stage: impl Into<String>, errno: i32) -> Self {
        Self { stage: stage.into(), errno }
    }

    /// A reason from a step and an error. One without a number says what it has to say in words.
    pub(crate) fn io(stage: impl Into<String>, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::new(stage, errno),
            None => Self::new(format!("{}: {error}", stage.into()), 0),
        }
    }

    fn text(&self) -> String {
        match self.errno {
            0 => self.stage.clone(),
            errno => format!("{}: {}", self.stage, errno_text(errno)),
        }
    }
}

/// The system's words for an error number, as in `Permission denied (os error 13)`.
pub fn errno_text(errno: i32) -> String {
    match errno {
        0 => "not possible".to_owned(),
        errno => std::io::Error::from_raw_os_error(errno).to_string(),
    }
}
