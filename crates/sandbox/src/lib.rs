//! The contract with the operating system: isolation levels, limits, probing.
//!
//! A [`Spawner`] is a handle to one small helper process. It forks every sandboxed process, so
//! that no mount or namespace work ever happens in a program with threads, and so that a start
//! costs a fork and not an exec of the whole platform. A sandboxed process begins as a [`Body`]:
//! a function named in [`spawner_main`], run as pid 1 of its sandbox (or as a child subreaper
//! where there is no pid namespace) with an [`Entered`] in hand. [`Entered::exec`] starts the
//! app below it with every privilege gone.
//!
//! ```text
//!  platform ──socket──▶ spawner ──clone3──▶ body (pid 1: shim or init) ──fork──▶ app
//! ```
//!
//! This crate knows nothing of releases, logs or routes; it does not decide when to start or
//! stop anything.

#![warn(missing_docs)]

mod app;
mod cgroup;
mod confined;
mod enter;
mod error;
mod idmap;
mod ids;
mod init;
mod level;
mod machine;
mod named_lock;
mod network;
mod owner;
mod reap;
mod root;
mod rules;
mod run;
mod serve;
mod slice;
mod spawner;
mod spec;
mod sys;
mod terminal;
mod wire;

pub use app::Entered;
pub use cgroup::{Budget, CgroupFacts, Cgroups, Memory, MemoryUse, ProcessCount};
pub use confined::is_peer_confined;
pub use error::{Error, ExecError};
pub use init::Exec;
pub use level::{Choice, Level, Reason, UnknownLevel, errno_text};
pub use machine::Machine;
pub use named_lock::{NamedLock, sweep_locks};
pub use network::{Network, NetworkChoice, NetworkNamespace, RulesState, UnknownNetwork, rules_of};
pub use reap::{Ended, SignalFd, has_children, kill_descendants, reap_all, signal_descendants};
pub use run::{Cancel, ExitStatus, Job, Running, Stream, run, run_with, start};
pub use serve::spawner_main;
pub use slice::take_short_slices;
pub use spawner::{Body, Launch, Launched, Spawner, SpawnerFacts};
pub use spec::{Access, FIRST_UID, Limits, Mount, Spec, UIDS, uid_of, view};
pub use terminal::{Handover, Terminal, WindowSize};
