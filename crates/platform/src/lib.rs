//! The use cases: what joins the stages build, release and run.
//!
//! Stages never call each other; here one's output is handed to the next. [`Platform`] is what can
//! be asked for; [`up`] is a person at one that runs a single codebase in the foreground.
//!
//! ```text
//!  codebase ─▶ build ─▶ slug ─┐
//!            config ──────────┴▶ Release ─▶ release phase ─▶ rollout ─▶ routing table
//!                                                              └▶ lines ─▶ log ─▶ readers
//! ```

#![warn(missing_docs)]

mod access;
mod codebase;
mod histogram;
pub mod home;
mod listen;
pub mod repo;
mod routes;
mod serve;
mod traffic;
mod up;
mod watch;

pub use codebase::{Codebase, CodebaseError};
pub use listen::ListenError;
pub use serve::{
    Actor, Attachment, Bar, Blobs, Command, CopyFrom, Drain, Follow, Kind, Logged, METRICS_TYPE,
    Platform, Process, Progress, RunOutput, RunRequest, RunStreams, Said, Scheduled, ServeError,
    ServeOptions, Standing, Taken, token_hash,
};
pub use tolv_logs::drain::DrainUrl;
pub use tolv_store::{DatabaseUrl, SecretKey};
pub use up::{Event, Output, Stop, down, show, up};
pub use watch::WatchError;
