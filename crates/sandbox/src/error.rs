//! What can go wrong between asking for a sandboxed process and having one.

use std::path::PathBuf;
use std::time::Duration;

use tolv_model::shortage::Shortage;

use crate::level::{Level, Reason, errno_text};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The helper process could not be started.
    #[error("cannot start the spawner {}: {source}", .program.display())]
    Start {
        /// The program that was to be it.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The helper process has ended or hung up.
    #[error("the spawner is gone: {0}")]
    Gone(String),
    /// The helper process answered nonsense.
    #[error("the spawner's answer cannot be read: {0}")]
    Protocol(String),
    /// The request itself is wrong; nothing was started.
    #[error("bad launch: {0}")]
    BadLaunch(String),
    /// The sandbox could not be entered; nothing is left of it.
    #[error("cannot enter the {level} sandbox: {reason}")]
    Enter {
        /// The level that was asked for.
        level: Level,
        /// The step and the system's answer.
        reason: Reason,
    },
    /// The program could not be executed inside.
    #[error("cannot execute: {0}")]
    Exec(#[from] ExecError),
    /// The sandboxed process ended without saying how.
    #[error("the sandbox ended without a status")]
    Lost,
    /// Somebody cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The time given was up.
    #[error("not done within {0:?}")]
    TimeLimit(Duration),
    /// The level asked for cannot be had here.
    #[error("sandbox level {level} cannot be had here: {reason}")]
    Level {
        /// The level.
        level: Level,
        /// What failed.
        reason: Reason,
    },
    /// No isolation can be had, and running without was not asked for.
    #[error("no sandbox can be had here ({0}); `none` has to be asked for by name")]
    NoLevel(String),
    /// Processes cannot have the networks of their own that were asked for.
    #[error("processes cannot have networks of their own here: {0}")]
    Network(String),
    /// A plain system error.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Error {
    /// What was missing for it, where that is the cause.
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Gone(_) => Some(Shortage::Spawner),
            Self::Enter { reason, .. } => Shortage::of_errno(reason.errno),
            Self::Exec(failed) if failed.errno == libc::EAGAIN => Some(Shortage::Processes),
            Self::Start { source, .. } | Self::Io { source, .. } => Shortage::of(source),
            _ => None,
        }
    }
}

/// Why a program did not start: the step (or the program) and the error number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {}", errno_text(*errno))]
pub struct ExecError {
    /// The error number, exactly as the system gave it.
    pub errno: i32,
    /// What was being done, as in `exec bin/web` or `chdir /app`.
    pub what: String,
}
