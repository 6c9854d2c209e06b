//! Health checks, as an app declares them in `app.json`.
//!
//! Data only: who runs a check, when, and what follows is the business of the engine.
//!
//! Sources: the `healthchecks` key of Dokku's `app.json` and its defaults (3 attempts, 5 s each,
//! 5 s between two, no first delay). What Dokku names a port is the one the platform gives, so a
//! check without a port uses the process's own `PORT`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Attempts where none are said.
pub const ATTEMPTS: u32 = 3;
/// Longest time of one attempt where none is said.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two attempts where none is said.
pub const WAIT: Duration = Duration::from_secs(5);

/// What a check is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// Whether a new process has started: until it passes, the process is not up.
    #[default]
    Startup,
    /// Whether a process can take requests now; if not, it gets none.
    Readiness,
    /// Whether a process still works; if not, it is restarted.
    Liveness,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckAction {
    /// A `GET` request that must be answered with 200..=399.
    Http {
        /// Path and query, from `/`.
        path: String,
        /// The port; the process's own `PORT` if none.
        port: Option<u16>,
        /// Headers to send besides those of every request.
        headers: Vec<(String, String)>,
        /// Text that the body must have.
        content: Option<String>,
    },
    /// A program, beside the process and with its environment, that must exit with 0.
    Command(Vec<String>),
    /// Something must accept connections on the port.
    Listening {
        /// The port; the process's own `PORT` if none.
        port: Option<u16>,
    },
    /// The process must stay up this long.
    Uptime(Duration),
}

/// One health check of a process type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What to call it in messages, if the app says so.
    pub name: Option<String>,
    /// What it is for.
    pub kind: CheckKind,
    /// What it does.
    pub action: CheckAction,
    /// How often it is tried before it has failed; at least 1.
    pub attempts: u32,
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Pause between two attempts.
    pub wait: Duration,
    /// Pause before the first attempt.
    pub initial_delay: Duration,
    /// Whether its failure is only said and has no consequence.
    pub warn_only: bool,
}

impl HealthCheck {
    /// A startup check with the default figures.
    pub fn new(action: CheckAction) -> Self {
        Self {
            name: None,
            kind: CheckKind::Startup,
            action,
            attempts: ATTEMPTS,
            timeout: TIMEOUT,
            wait: WAIT,
            initial_delay: Duration::ZERO,
            warn_only: false,
        }
    }
}
