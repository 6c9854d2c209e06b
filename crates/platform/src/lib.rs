//! The platform: apps, each with deploys, driven by requests; what joins the stages build, release
//! and run.
//!
//! Stages never call each other; here one's output is handed to the next. [`Platform`] is the face:
//! what can be asked of it, each use case a transaction first and its effects after. Behind it there
//! is one controller a deploy, a task that carries out the deploy's operations one after the other;
//! that is the deploy's lock, and it ends with the process. [`up`] is a person at a platform that
//! runs a single codebase in the foreground.
//!
//! ```text
//!  request ─▶ Platform ─▶ store: operation queued ─▶ controller ─▶ build ─▶ append release
//!                                                        │          ─▶ rollout ─▶ settle
//!                                                        └▶ output ─▶ whoever follows
//!
//!  codebase ─▶ build ─▶ slug ─┐
//!            config ──────────┴▶ Release ─▶ release phase ─▶ rollout ─▶ routing table
//!                                                              └▶ lines ─▶ log ─▶ readers
//! ```
//!
//! # Invariants
//!
//! * What was acknowledged is in the store. What is queued or running there is gone on with at the
//!   next start, whatever ended this one; that of a codebase begins anew.
//! * A release is in the ledger before anything of it runs, and what runs is checked against it.
//! * The operations of one deploy never overlap.
//! * The database may go away: requests are refused meanwhile, apps and routing go on.

#![warn(missing_docs)]

mod access;
mod apps;
mod budget;
mod build_queue;
mod carry;
mod codebase;
mod controller;
mod cron;
mod delay;
mod descriptors;
mod disk;
mod drains;
mod end;
mod error;
mod follow;
mod forged;
mod front;
mod garbage;
mod histogram;
pub mod home;
mod hosts;
mod image;
mod kept;
mod lease;
mod left;
mod lines;
mod listen;
mod local;
mod logs;
mod metrics;
mod options;
mod origin;
mod output;
mod platform;
mod processes;
mod proof;
mod push;
mod pushes;
mod quota;
mod releases;
pub mod repo;
mod requests;
mod routes;
mod runs;
mod sizing;
mod spare;
mod status;
mod target;
mod task;
mod tokens;
mod traffic;
mod try_out;
mod up;
mod watch;

pub use apps::CopyFrom;
pub use codebase::{Codebase, CodebaseError};
pub use cron::Scheduled;
pub use descriptors::api_connections;
pub use drains::Drain;
pub use end::UndecidedPush;
pub use error::{Error, Kind};
pub use image::Image;
pub use listen::{ListenError, bind};
pub use logs::Logged;
pub use metrics::METRICS_TYPE;
pub use options::{Blobs, Http, Options, Said};
pub use output::{Bar, Follow, Progress};
pub use platform::{Actor, Platform};
pub use processes::Process;
pub use pushes::PushUnderWay;
pub use releases::{Proof, Standing};
pub use requests::Command;
pub use runs::{Attachment, RunOutput, RunRequest, RunStreams, Taken};
pub use sizing::Sizing;
pub use spare::{KEEP_ALIVE, keep_threads};
pub use status::{Check, Health, Status, worst};
pub use tokens::{State, new_token_text, recover_token, token_hash};
pub use tolv_logs::drain::DrainUrl;
pub use tolv_router::Handed;
pub use tolv_sandbox::Limits;
pub use tolv_store::{DatabaseUrl, SecretKey};
pub use up::{Event, Output, Stop, down, show, up};
pub use watch::WatchError;
