//! The use cases: what joins the stages build, release and run.
//!
//! Stages never call each other; here one's output is handed to the next. Today there is one use
//! case, [`up`]: a codebase built, released, run and routed in the foreground.
//!
//! ```text
//!  codebase ─▶ build ─▶ slug ─┐
//!  .env ─▶ config ────────────┴▶ Release ─▶ release phase ─▶ rollout ─▶ routing table
//!                                                              └▶ lines ─▶ Event ─▶ terminal
//! ```

#![warn(missing_docs)]

mod access;
mod error;
mod histogram;
pub mod home;
mod listen;
pub mod repo;
mod routes;
mod serve;
mod traffic;
mod up;
mod watch;

pub use error::Error;
pub use listen::ListenError;
pub use serve::{
    Actor, Attachment, Blobs, Command, CopyFrom, Drain, Follow, Kind, Logged, METRICS_TYPE,
    Platform, Process, Progress, RunOutput, RunRequest, RunStreams, Said, Scheduled, ServeError,
    ServeOptions, Standing, Taken, token_hash,
};
pub use tolv_logs::drain::DrainUrl;
pub use tolv_store::{DatabaseUrl, SecretKey};
pub use up::{Event, Options, Stop, up};
pub use watch::WatchError;
