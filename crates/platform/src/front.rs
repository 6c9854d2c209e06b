//! The router's own threads: no request waits for what the platform does besides, such as the lines of
//! an app that says too much.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tolv_router::Handed;

use crate::error::Error;
use crate::platform::Platform;
use crate::spare::{KEEP_ALIVE, keep_threads};
use crate::task::Panics;

/// For the look who listens on a port of the machine.
const SPARE_THREADS: usize = 4;
/// Between two tries to listen again.
const LISTEN_RETRY: Duration = Duration::from_millis(100);

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

    /// Takes requests there by `serve`, until that ends; again after every panic, of which `say` is told.
    /// Connections wait in the kernel's queue meanwhile.
    pub(super) fn serve<F>(
        &self,
        listener: TcpListener,
        serve: impl Fn(tokio::net::TcpListener) -> F + Send + Sync + 'static,
        (panics, ending): (Panics, CancellationToken),
        say: impl FnMut(String) + Send + 'static,
    ) -> Result<(), Error>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(runtime) = &self.0 else { return Ok(()) };
        let first = {
            let _inside = runtime.enter();
            let system = |source| Error::System { what: "listen for requests", source };
            open(&listener).map_err(system)?
        };
        let (mut first, listener, serve) = (Some(first), Arc::new(listener), Arc::new(serve));
        let start = move || {
            let (first, listener) = (first.take(), Arc::clone(&listener));
            let serve = Arc::clone(&serve);
            async move {
                let listener = match first {
                    Some(first) => first,
                    None => reopen(&listener).await,
                };
                serve(listener).await;
            }
        };
        let name = "the router's listener".to_owned();
        // It ends with its threads, if not before.
        drop(runtime.spawn(panics.survive(name, ending, start, say)));
        Ok(())
    }
}

impl Platform {
    /// Goes on with a connection of the platform before this one.
    ///
    /// # Errors
    ///
    /// The client is gone, or the system's.
    pub fn adopt(&self, handed: Handed) -> io::Result<()> {
        let Some(runtime) = &self.0.front.0 else { return Ok(()) };
        let _inside = runtime.enter();
        self.0.router.adopt(handed)
    }

    /// Lets the router take requests, until it drains.
    pub(super) fn take_requests(&self, listener: TcpListener) -> Result<(), Error> {
        let (inner, router) = (&self.0, self.0.router.clone());
        let serve = move |listener| {
            let router = router.clone();
            async move { router.serve(listener).await }
        };
        let kept = (inner.panics.clone(), inner.ending.clone());
        inner.front.serve(listener, serve, kept, self.teller())
    }
}

/// The same socket once more.
fn open(listener: &TcpListener) -> io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener.try_clone()?)
}

/// As [`open`]; descriptors may be short.
async fn reopen(listener: &TcpListener) -> tokio::net::TcpListener {
    loop {
        match open(listener) {
            Ok(listener) => return listener,
            Err(_) => sleep(LISTEN_RETRY).await,
        }
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

#[cfg(test)]
mod tests;
