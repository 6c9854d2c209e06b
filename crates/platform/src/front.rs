//! The router's own threads: no request waits for what the platform does besides, such as the lines of
//! an app that says too much.

use std::net::TcpListener;

use tokio::runtime::{Builder, Runtime};
use tolv_router::Router;

use crate::error::Error;
use crate::spare::{KEEP_ALIVE, keep_threads};

/// For the look who listens on a port of the machine.
const SPARE_THREADS: usize = 4;

/// Threads that requests pass through, for as long as the value is there.
#[derive(Debug)]
pub(super) struct Front(Option<Runtime>);

impl Front {
    /// Starts them.
    pub(super) fn begin() -> Result<Self, Error> {
        let mut builder = Builder::new_multi_thread();
        builder.thread_name("router").enable_all().thread_keep_alive(KEEP_ALIVE);
        let system = |source| Error::System { what: "start the router's threads", source };
        let runtime = builder.build().map_err(system)?;
        drop(runtime.spawn(keep_threads(SPARE_THREADS)));
        Ok(Self(Some(runtime)))
    }

    /// Lets the router take requests there, until it drains.
    pub(super) fn serve(&self, router: Router, listener: TcpListener) -> Result<(), Error> {
        let Some(runtime) = &self.0 else { return Ok(()) };
        let listener = {
            let _inside = runtime.enter();
            let system = |source| Error::System { what: "listen for requests", source };
            tokio::net::TcpListener::from_std(listener).map_err(system)?
        };
        // It ends with its threads, if not before.
        drop(runtime.spawn(async move { router.serve(listener).await }));
        Ok(())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Whoever drops it may be a task, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
