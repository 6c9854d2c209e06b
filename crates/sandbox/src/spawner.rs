//! The helper process that forks the sandboxed ones, and the handle to it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::Entered;
use crate::error::Error;
use crate::spec::Spec;

/// A function that runs in the forked child, inside the sandbox's namespaces, as pid 1 or child
/// subreaper, with every signal blocked. Its result is the exit code.
pub type Body = fn(Entered) -> i32;

/// A handle to one spawner process; clones share it. The process ends with the last handle.
#[derive(Clone, Debug)]
pub struct Spawner(Arc<()>);

/// One process to start.
#[derive(Debug)]
pub struct Launch {
    /// Which body runs.
    pub body: &'static str,
    /// Bytes for the body; they never touch a disk.
    pub payload: Vec<u8>,
    /// Descriptors for the body, in order; at most 200.
    pub fds: Vec<OwnedFd>,
    /// The sandbox.
    pub spec: Spec,
}

/// A body that is running in its sandbox.
#[derive(Debug)]
pub struct Launched {
    /// Its pid on the host.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its cgroup directory, the one with the memory controller if there is one.
    pub cgroup: Option<PathBuf>,
}

impl Launched {
    /// Kills the body and, with it, everything below it. Total: gone already is fine.
    pub fn kill(&self) {
        // Gone already is what is wanted.
        rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL).ok();
    }
}

impl Spawner {
    /// Starts the helper: a program whose `main`, given these arguments, is [`spawner_main`].
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn start(program: &Path, _args: &[&str]) -> Result<Self, Error> {
        Err(Error::Start {
            program: program.to_path_buf(),
            source: std::io::Error::from_raw_os_error(libc::ENOSYS),
        })
    }

    /// Starts one sandboxed process; returns once it has entered its sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::Enter`] with the step that failed; nothing is left of the sandbox then.
    pub fn launch(&self, _launch: Launch) -> Result<Launched, Error> {
        Err(Error::Lost)
    }
}

/// The life of the helper process: serves launches on descriptor 3 until the handle is dropped
/// and its children are gone.
pub fn spawner_main(_bodies: &[(&'static str, Body)]) -> ! {
    #[expect(clippy::exit, reason = "this is the whole life of a process")]
    std::process::exit(1)
}
