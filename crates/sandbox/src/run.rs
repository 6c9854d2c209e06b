//! One program, run to its end in a sandbox, its output given to a callback.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::error::Error;
use crate::init::Exec;
use crate::spawner::Spawner;
use crate::spec::Spec;

/// A program and the sandbox it runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The sandbox.
    pub spec: Spec,
    /// The program.
    pub exec: Exec,
    /// Wall-clock cap.
    pub time_limit: Option<Duration>,
}

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// How many processes the kernel killed for want of memory.
    pub oom_kills: u64,
}

impl ExitStatus {
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

/// Ends a [`run`] from another thread. Clones share their state.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<OwnedFd>);

impl Cancel {
    /// A cancel that nobody has pulled.
    ///
    /// # Errors
    ///
    /// The system's, as for too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Cancels, for good.
    pub fn cancel(&self) {
        // A full counter has been pulled already.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }
}

/// Runs a program to its end; everything it started is gone when this returns.
///
/// # Errors
///
/// [`Error::Exec`] if it did not start, [`Error::Cancelled`], [`Error::TimeLimit`], and those of
/// [`Spawner::launch`].
pub fn run(
    _spawner: &Spawner,
    _job: &Job,
    _on_output: &mut dyn FnMut(Stream, &[u8]),
    _cancel: &Cancel,
) -> Result<ExitStatus, Error> {
    Err(Error::Lost)
}
