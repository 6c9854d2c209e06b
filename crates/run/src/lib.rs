//! Release to processes (factors VI to IX): shim, supervisor, readiness, rollout.
//!
//! [`Local`] is the engine of one deploy on this machine. It is level-triggered: `converge` takes
//! what should run, compares, starts what is missing, waits until it is ready, switches the
//! endpoints and stops what is left over.
//!
//! ```text
//!  Local ── one task per process ── control socket ── shim ── the app's process
//!    │        (Unit decides)     │                      │
//!    │ endpoints: watch          │ journal              ▼ pipes
//!    └ lines ◀── pump ◀──────────┴───────────── the deploy's log
//! ```
//!
//! The decisions are `tolv_model::unit` and `tolv_model::rollout`, without I/O; what is here
//! carries them out.
//!
//! ```text
//! Local::new(Settings) -> Result<(Local, mpsc::Receiver<tolv_logs::Line>), Error>   // Local: Clone
//! local.converge(Target).await -> Result<Outcome, Error>      // one at a time; others wait
//! local.restore(Target).await -> Result<Outcome, Error>       // what fails is tried again
//! local.dismiss()                                              // stops what a killed engine left
//! local.restart(&Selection).await -> Result<Outcome, Error>    // new processes, same release
//! local.run_once(OneOff).await -> Result<Exit, Error>          // its lines are in the receiver too
//! local.begin(Job) -> Result<Running, Error>                   // words as they are, pipes, a terminal
//! local.endpoints() -> watch::Receiver<Endpoints>
//! local.say([Line])                                            // into the same log
//! local.log() -> Log                                           // the same log, to read it
//! local.stop().await                                           // SIGTERM, grace, SIGKILL; all gone
//! local.kill()                                                 // SIGKILL now; `stop` then returns
//! SHIM: (&str, tolv_sandbox::Body)                             // for `spawner_main`
//! ```
//!
//! # Invariants
//!
//! * Nothing that a process forked outlives it, and no process outlives the engine where that ends
//!   in order. Where it is killed, processes of the formation go on if it has [`Settings::doors`],
//!   and the next engine goes on with them; everything else ends.
//! * Engines and shims of any two versions get along: what the next engine cannot go on with for good
//!   answers requests until a rollout has replaced it.
//! * A slow reader of the lines never blocks an app.
//! * The environment's values are never printed.

#![warn(missing_docs)]

mod board;
mod child;
mod connector;
mod control;
#[cfg(test)]
mod fixture;
mod foreign;
mod job;
mod journal;
mod left;
mod listening;
mod local;
mod lost;
mod maybe;
mod one_off;
mod orphan;
mod outdated;
mod plan;
mod ports;
mod probe;
mod process;
mod protocol;
mod pump;
mod renewal;
mod rolling;
mod session;
mod shared;
mod shim;
mod streams;
mod tally;
mod target;
mod usage;

pub use connector::Connector;
pub use job::{Connection, Job, Running, Stop};
pub use journal::Log;
pub use local::Local;
pub use lost::{Living, living};
pub use orphan::kill_left;
pub use ports::Ports;
pub use protocol::Written;
pub use shim::SHIM;
pub use streams::{Handle, Input, Output, Streams};
pub use target::{
    Boot, Culprit, Drain, Ending, Endpoint, Endpoints, Error, Exit, OneOff, Outcome, ProcessState,
    Prove, Reason, Settings, StartFailure, Target, Timing, TypeLimits,
};
pub use usage::{Processes, Usage};
