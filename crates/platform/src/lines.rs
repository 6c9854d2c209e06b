//! Threads of their own for the lines of all deploys: an app that floods its log holds up neither requests
//! nor the API.
//!
//! They have the priority of all others. Where the kernel makes one group of the platform's threads
//! (`sched(7)`, autogroup), other nice values in it shift what the group weighs on each core.

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::Error;
use crate::spare::{KEEP_ALIVE, keep_threads};

/// One thread that hands on lines and one that reads the logs, for as long as the value is there.
#[derive(Debug)]
pub(super) struct Lines(Option<Runtime>, Handle);

impl Lines {
    /// Starts them.
    pub(super) fn begin() -> Result<Self, Error> {
        // With one thread each, who writes lines is done before who reads them looks: with more, the two
        // would wake each other for every other line.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .thread_name("lines")
            .enable_all()
            .thread_keep_alive(KEEP_ALIVE)
            .build()
            .map_err(|source| Error::System { what: "start the threads of the logs", source })?;
        drop(runtime.spawn(keep_threads(1)));
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    /// Where tasks that hand on lines are spawned.
    pub(super) fn handle(&self) -> &Handle {
        &self.1
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Whoever drops it may be a task, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
