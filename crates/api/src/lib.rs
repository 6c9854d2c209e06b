//! The HTTP API as types: what goes over the wire, and nothing else.
//!
//! Everything is JSON. Names are plain text here and parsed where they arrive. Times are RFC 3339
//! in UTC. Lists come in pages: `next` is the cursor of the page behind this one. Errors are
//! problem documents (RFC 9457).

#![warn(missing_docs)]

pub mod client;
mod cron;
mod drains;
pub mod local;
mod logs;
mod platform;
pub mod problem;
pub mod runs;
mod types;

pub use cron::{CronRun, Schedule};
pub use drains::{Drain, NewDrain};
pub use logs::{LogAccount, LogCount, LogLine, LogMissed, LogPage, LogStats};
pub use platform::{Health, PlatformCheck, PlatformStatus};
pub use problem::{Code, Problem};
pub use runs::{NewRun, Run, RunAttachment, RunInput, RunOutput, RunSignal, RunSize, Terminal};
pub use types::{
    About, App, AuditLine, Buildpacks, Config, ConfigChange, ConfigChanged, Deploy, Ledger, Limits,
    NewApp, NewDeploy, NewOperation, NewToken, Operation, Page, Process, Release, Token, TokenMade,
    TypeLimits, Value, Variable, Whoami,
};
