//! Access lines on their way to a reader: a slow one loses lines, which are counted, and never
//! holds up a request.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;
use tolv_logs::Line;
use tolv_router::Router;

/// Access lines that may wait for the reader.
const WAITING: usize = 1024;

/// A router, and the task that hands its lines to `deliver`.
pub(crate) fn router<F, T>(deliver: F) -> (Router, impl Future<Output = ()> + Send)
where
    F: Fn(Line) -> T + Send,
    T: Future<Output = ()> + Send,
{
    let (lines, mut waiting) = mpsc::channel::<Line>(WAITING);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&dropped);
    let task = async move {
        while let Some(line) = waiting.recv().await {
            let process = Arc::clone(&line.process);
            deliver(line).await;
            let lost = dropped.swap(0, Relaxed);
            if lost > 0 {
                let text = format!("Error L10 (output buffer overflow): {lost} lines dropped");
                deliver(Line::tolv(process, text)).await;
            }
        }
    };
    let name: Arc<str> = Arc::from("router");
    let on_line = move |line: tolv_router::AccessLine| {
        let line = Line::tolv(Arc::clone(&name), line.to_string());
        if lines.try_send(line).is_err() {
            counter.fetch_add(1, Relaxed);
        }
    };
    (Router::new(tolv_router::Settings::default(), Arc::new(on_line)), task)
}
