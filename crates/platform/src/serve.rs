//! The platform as a service: many apps, each with deploys, driven by requests.
//!
//! [`Platform`] is the face: what can be asked of it, each use case a transaction first and its
//! effects after. Behind it there is one controller a deploy, a task that carries out the deploy's
//! operations one after the other; that is the deploy's lock, and it ends with the process.
//!
//! ```text
//!  request ─▶ Platform ─▶ store: operation queued ─▶ controller ─▶ build ─▶ append release
//!                                                        │          ─▶ rollout ─▶ settle
//!                                                        └▶ output ─▶ whoever follows
//! ```
//!
//! # Invariants
//!
//! * What was acknowledged is in the store. What is queued or running there is gone on with at the
//!   next start, whatever ended this one.
//! * A release is in the ledger before anything of it runs, and what runs is checked against it.
//! * The operations of one deploy never overlap.
//! * The database may go away: requests are refused meanwhile, apps and routing go on.

mod apps;
mod carry;
mod controller;
mod cron;
mod drains;
mod error;
mod garbage;
mod kept;
mod local;
mod logs;
mod metrics;
mod options;
mod output;
mod platform;
mod push;
mod releases;
mod requests;
mod runs;
mod target;
mod tokens;

pub use apps::CopyFrom;
pub use cron::Scheduled;
pub use drains::Drain;
pub use error::{Kind, ServeError};
pub use logs::Logged;
pub use metrics::METRICS_TYPE;
pub use options::{Blobs, Said, ServeOptions};
pub use output::{Bar, Follow, Progress};
pub use platform::{Actor, Platform, Process};
pub use releases::Standing;
pub use requests::Command;
pub use runs::{Attachment, RunOutput, RunRequest, RunStreams, Taken};
pub use tokens::token_hash;
