//! Looks at what may hang, such as a database or a disk: one at a time, and whoever asks waits for a
//! bounded time. A look that hangs is not repeated by those who ask again.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::super::platform::lock;

/// For a look to have its answer: a status is told within a second.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_millis(700);

/// One thing that is looked at.
#[derive(Debug)]
pub(super) struct Probe<T>(Mutex<Option<Look<T>>>);

/// The last look.
#[derive(Debug)]
struct Look<T> {
    began: Instant,
    answer: watch::Receiver<Option<T>>,
}

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Probe<T> {
    /// Whether the answer to a look is overdue.
    pub(super) fn is_late(&self) -> bool {
        let last = lock(&self.0);
        let under_way = last.as_ref().filter(|look| is_under_way(&look.answer));
        under_way.is_some_and(|look| look.began.elapsed() >= LOOK_TIMEOUT)
    }

    /// Waits for the look that is under way, or for a new one.
    ///
    /// # Errors
    ///
    /// There is no answer yet; for how long.
    pub(super) async fn look<F>(
        &self,
        tasks: &TaskTracker,
        look: impl FnOnce() -> F,
    ) -> Result<T, Duration>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (began, mut answer) = {
            let mut last = lock(&self.0);
            match &*last {
                Some(Look { began, answer }) if is_under_way(answer) => (*began, answer.clone()),
                _ => {
                    let (send, answer) = watch::channel(None);
                    let look = look();
                    tasks.spawn(async move {
                        let found = look.await;
                        send.send_replace(Some(found));
                    });
                    let began = Instant::now();
                    *last = Some(Look { began, answer: answer.clone() });
                    (began, answer)
                }
            }
        };
        let found = timeout(LOOK_TIMEOUT, answer.wait_for(Option::is_some)).await;
        let found = found.ok().and_then(|found| found.ok()?.clone());
        found.ok_or_else(|| began.elapsed())
    }
}

/// Whether the answer is still to come. One that panicked has none.
fn is_under_way<T>(answer: &watch::Receiver<Option<T>>) -> bool {
    answer.borrow().is_none() && answer.has_changed().is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_not_repeated_and_is_told_in_time() {
        let (probe, tasks) = (Probe::<u32>::default(), TaskTracker::new());
        let (looks, goes_on) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let look = || {
            let (looks, goes_on) = (Arc::clone(&looks), Arc::clone(&goes_on));
            async move {
                goes_on.notified().await;
                looks.fetch_add(1, Ordering::Relaxed) + 1
            }
        };
        for tries in 1..=3 {
            let late = probe.look(&tasks, look).await.unwrap_err();
            // The made-up clock is tokio's, and the lateness is the real one's.
            assert!(late < Duration::from_secs(60), "{tries}: {late:?}");
        }
        goes_on.notify_one();
        assert_eq!(probe.look(&tasks, look).await, Ok(1));
        goes_on.notify_one();
        assert_eq!(probe.look(&tasks, look).await, Ok(2));
    }

    #[tokio::test]
    async fn a_look_that_panicked_is_repeated() {
        let (probe, tasks) = (Probe::<u32>::default(), TaskTracker::new());
        let broken = probe.look(&tasks, || async { panic!("on purpose") }).await;
        assert!(broken.is_err());
        assert_eq!(probe.look(&tasks, || async { 7 }).await, Ok(7));
    }
}
