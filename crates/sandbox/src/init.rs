//! The body `exec`: a small init that runs one program and reports its end.

use serde::{Deserialize, Serialize};

/// The name of this body in [`Launch::body`](crate::Launch); every spawner has it.
pub const EXEC_BODY: &str = "exec";

/// A program to execute: the payload of the body `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Exec {
    /// Program and arguments; a program without a slash is searched in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment, as `KEY=value`.
    pub env: Vec<Vec<u8>>,
    /// Working directory, as the process sees it.
    pub cwd: std::path::PathBuf,
}

/// What the init says on its control socket, one packet each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The program ended with this code.
    Exited(i32),
    /// The program was ended by this signal.
    Signaled(i32),
    /// The program did not start.
    ExecFailed {
        /// The error number, exactly.
        errno: i32,
        /// The step or the program.
        what: String,
    },
    /// Sent before the end where the kernel killed for want of memory: how often.
    OomKills(u64),
}
