//! What a cgroup tells of the processes of one launch: that it refused a fork.
//!
//! `pids.events` counts refusals in both versions (`cgroup-v1/pids.rst`, `cgroup-v2.rst`); in v2 polling
//! it tells of a new one, in v1 (seen on Linux 6.18) it does not.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::event::PollFlags;

/// The count of processes of one launch.
#[derive(Debug)]
pub struct ProcessCount {
    events: File,
    limit: u64,
    is_v2: bool,
}

impl ProcessCount {
    /// In a tree of either version; nothing where the kernel does not tell.
    pub(super) fn open(dir: &Path, limit: u64, is_v2: bool) -> Option<Self> {
        Some(Self { events: File::open(dir.join("pids.events")).ok()?, limit, is_v2 })
    }

    /// The descriptor to keep.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.events.as_raw_fd()
    }

    /// How many processes and threads there may be.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many forks were refused. Reading it makes the hint wait for the next one.
    pub fn refused(&self) -> u64 {
        let mut buffer = [0; 128];
        let read = self.events.read_at(&mut buffer, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned();
        let max = text.lines().find_map(|line| line.strip_prefix("max "));
        max.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// What to poll, for what: a fork was refused since [`ProcessCount::refused`] was asked last.
    /// Nothing where the kernel does not tell, and one has to ask.
    pub fn hint(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.is_v2.then(|| (self.events.as_fd(), PollFlags::PRI))
    }
}
