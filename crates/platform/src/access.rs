//! Access lines on their way to the logs of their deploys. Where the disk is slow lines are dropped
//! and counted; no request waits for them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tolv_logs::Line;
use tolv_router::Router;

use crate::descriptors;
use crate::traffic::Traffic;

/// Access lines that may wait for the disk.
const WAITING: usize = 8192;
/// Lines that are handed on together.
const AT_ONCE: usize = 512;

/// A request's line, and the host that it asked for.
pub(crate) struct Request {
    /// Without its port, in lower case; nothing where it has none that could be a deploy's.
    pub(crate) host: Option<String>,
    pub(crate) line: Line,
}

/// The lines of a router.
pub(crate) struct Access {
    waiting: mpsc::Receiver<Request>,
    dropped: Arc<AtomicU64>,
    /// Lines that were taken and are not delivered yet.
    delivering: u64,
}

/// A router and its lines.
pub(crate) fn router(traffic: Arc<Traffic>) -> (Router, Access) {
    let (lines, waiting) = mpsc::channel::<Request>(WAITING);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&dropped);
    let name: Arc<str> = Arc::from("router");
    let on_line = move |line: tolv_router::AccessLine| {
        let host = std::str::from_utf8(&line.host).ok().map(tolv_router::host_name);
        traffic.add(host.as_deref(), &line);
        let line = Line::tolv(Arc::clone(&name), line.to_string());
        if lines.try_send(Request { host, line }).is_err() {
            counter.fetch_add(1, Relaxed);
        }
    };
    let settings = tolv_router::Settings {
        connections: descriptors::router_connections(),
        ..Default::default()
    };
    let router = Router::new(settings, Arc::new(on_line));
    (router, Access { waiting, dropped, delivering: 0 })
}

impl Access {
    /// Hands the lines to `deliver`, many at a time, until the last behind `over`: then the router
    /// answers nobody any more. After a panic of `deliver` it may be called again: those that it had are
    /// counted as dropped.
    pub(crate) async fn run<T>(
        &mut self,
        over: CancellationToken,
        deliver: impl Fn(Vec<Request>) -> T,
    ) where
        T: Future<Output = ()> + Send,
    {
        self.dropped.fetch_add(std::mem::take(&mut self.delivering), Relaxed);
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                _ = self.waiting.recv_many(&mut batch, AT_ONCE) => {}
                () = over.cancelled() => {}
            }
            if batch.is_empty() {
                return;
            }
            let lost = self.dropped.swap(0, Relaxed);
            if lost > 0 {
                batch.push(Request { host: None, line: Line::dropped("router", Some(lost)) });
            }
            self.delivering = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            deliver(batch).await;
            self.delivering = 0;
        }
    }
}

#[cfg(test)]
mod tests;
