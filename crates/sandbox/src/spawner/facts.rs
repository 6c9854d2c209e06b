//! What is known of the spawner process, and whether it answers.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Helper, Spawner, lock};
use crate::wire::{self, Request};

/// Tries to look at the process, and between two of them.
const TRIES: u32 = 5;
const BETWEEN: Duration = Duration::from_millis(2);

/// The spawner process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnerFacts {
    /// Its process id; that of the last one where there is none at the moment.
    pub pid: u32,
    /// Whether it runs and is not being replaced.
    pub is_running: bool,
    /// Time since it was started; not known while it is being replaced.
    pub uptime: Option<Duration>,
    /// How often it was replaced by a new process.
    pub replacements: u64,
    /// Sandboxes that were launched, by all spawner processes of this handle.
    pub launches: u64,
    /// Launches that failed.
    pub failed_launches: u64,
}

/// What is counted of a spawner.
#[derive(Debug)]
pub(super) struct Counts {
    pid: AtomicU32,
    replacements: AtomicU64,
    launches: AtomicU64,
    failed_launches: AtomicU64,
}

impl Counts {
    /// Nothing yet, of a process that was just started.
    pub(super) fn of(pid: u32) -> Self {
        Self {
            pid: AtomicU32::new(pid),
            replacements: AtomicU64::new(0),
            launches: AtomicU64::new(0),
            failed_launches: AtomicU64::new(0),
        }
    }

    pub(super) fn replaced(&self, pid: u32) {
        self.pid.store(pid, Relaxed);
        self.replacements.fetch_add(1, Relaxed);
    }

    pub(super) fn launched(&self, is_good: bool) {
        let count = if is_good { &self.launches } else { &self.failed_launches };
        count.fetch_add(1, Relaxed);
    }
}

impl Helper {
    /// Asks whether it serves requests, where no such question is open, and waits for the answer at most
    /// for `limit`; how long there has been none.
    fn silence(&self, limit: Duration) -> io::Result<Option<Duration>> {
        let mut unanswered = lock(&self.unanswered);
        let (answer, asked) = match unanswered.take() {
            Some(open) => open,
            None => {
                let (ours, theirs) = wire::pair()?;
                // One that is told to end is asked nothing.
                let Some(socket) = lock(&self.socket).as_ref().map(|it| it.try_clone()) else {
                    return Ok(None);
                };
                match wire::try_send(socket?.as_fd(), &Request::Ping, &[theirs.as_fd()]) {
                    // It has left so many requests that there is no room for another.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Some(Duration::ZERO));
                    }
                    sent => sent?,
                }
                (ours, Instant::now())
            }
        };
        let limit = Timespec::try_from(limit).ok();
        // Its answer, or its end, which is seen elsewhere.
        let mut fds = [PollFd::new(&answer, PollFlags::IN)];
        let is_answered = poll(&mut fds, limit.as_ref()).is_ok_and(|ready| ready > 0);
        if is_answered {
            return Ok(None);
        }
        *unanswered = Some((answer, asked));
        Ok(Some(asked.elapsed()))
    }
}

impl Spawner {
    /// For how long the spawner process has not answered a question that takes it no time, where it does
    /// not within `limit`: it is stopped, or busy with something that hangs. Nothing where it answers, and
    /// where there is no process that could.
    ///
    /// # Errors
    ///
    /// It could not be asked.
    pub fn silence(&self, limit: Duration) -> io::Result<Option<Duration>> {
        match self.current() {
            Some(helper) if !helper.wait(Some(Duration::ZERO)) => helper.silence(limit),
            _ => Ok(None),
        }
    }

    /// The process, unless it is being replaced.
    fn current(&self) -> Option<std::sync::Arc<Helper>> {
        (0..TRIES).find_map(|tries| {
            if tries > 0 {
                std::thread::sleep(BETWEEN);
            }
            // A launch has the lock for a moment; it stays locked while a new process is started.
            self.0.helper.try_lock().ok().map(|helper| helper.clone())
        })
    }

    /// The spawner process as it is now. Neither asks it nor waits for whoever replaces it, but for
    /// some milliseconds.
    pub fn facts(&self) -> SpawnerFacts {
        let counts = &self.0.counts;
        let running = self.current().filter(|helper| !helper.wait(Some(Duration::ZERO)));
        SpawnerFacts {
            pid: counts.pid.load(Relaxed),
            is_running: running.is_some(),
            uptime: running.map(|helper| helper.began.elapsed()),
            replacements: counts.replacements.load(Relaxed),
            launches: counts.launches.load(Relaxed),
            failed_launches: counts.failed_launches.load(Relaxed),
        }
    }
}
