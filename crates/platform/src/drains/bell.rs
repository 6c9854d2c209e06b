//! What a drain's thread waits for: new lines, its end, or that time passes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// For what is under way to arrive, once the thread is to end.
const LAST: Duration = Duration::from_millis(700);

/// Between a thread and those who wake it.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<State>,
    changed: Condvar,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    stopped: bool,
    /// When everything under way is to be left as it is.
    over: Option<Instant>,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are new lines.
    pub(super) fn ring(&self) {
        self.state().rung = true;
        self.changed.notify_all();
    }

    /// The thread is to end.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.over.get_or_insert_with(|| Instant::now() + LAST);
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// How long what is under way may still take, once the thread is to end.
    pub(super) fn left(&self) -> Duration {
        let over = self.state().over;
        over.map_or(LAST, |over| over.saturating_duration_since(Instant::now()))
    }

    /// The thread is gone.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Waits for [`Bell::end`].
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits for a ring, at most so long; whether there was one.
    pub(super) fn wait(&self, most: Duration) -> bool {
        let is_quiet = |state: &mut State| !state.rung && !state.stopped;
        let waited = self.changed.wait_timeout_while(self.state(), most, is_quiet);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.rung)
    }

    /// Waits so long, whatever rings; false where the thread is to end.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        while !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        false
    }
}
