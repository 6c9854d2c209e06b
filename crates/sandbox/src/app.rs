//! Inside the sandbox: what a body holds, and the start of the app below it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::process::Pid;

use crate::error::ExecError;
use crate::spec::Spec;

/// What a body has in hand once its sandbox is entered.
#[derive(Debug)]
pub struct Entered {
    /// The bytes given to the launch.
    pub payload: Vec<u8>,
    /// The descriptors given to the launch, in order.
    pub fds: Vec<OwnedFd>,
    /// The sandbox.
    pub spec: Spec,
}

/// What the cgroup says of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// Bytes in use now.
    pub current: Option<u64>,
    /// How many processes were killed for want of memory.
    pub oom_kills: u64,
}

impl Entered {
    /// Starts the app.
    ///
    /// # Errors
    ///
    /// The step that failed in the child, with its error number.
    pub fn exec(
        &self,
        argv: &[Vec<u8>],
        _env: &[Vec<u8>],
        _cwd: &Path,
        _stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Pid, ExecError> {
        let what = argv.first().map(|name| String::from_utf8_lossy(name).into_owned());
        Err(ExecError { errno: libc::ENOSYS, what: what.unwrap_or_default() })
    }

    /// What the sandbox's cgroup says of memory; zeros where there is none.
    pub fn memory(&self) -> Memory {
        Memory::default()
    }
}
