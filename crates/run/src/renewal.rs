//! Puts others in the place of outdated processes: an ordinary rollout of what runs already. Where it
//! fails, the outdated ones run on, and it is tried again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tolv_logs::Line;

use crate::rolling::{self, Manner};
use crate::shared::Shared;
use crate::target::Error;

/// Replacements at once, of all engines: while one is under way, all processes of a deploy are there
/// twice.
static AT_ONCE: Semaphore = Semaphore::const_new(4);

/// The task that replaces them, seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    state: Mutex<State>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Whether there is a task.
    running: bool,
    /// Undoes the rollout that is under way.
    attempt: Option<CancellationToken>,
}

impl Renewal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to do at once.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Another rollout wants its turn; it replaces what is outdated too.
    pub(crate) fn interrupt(&self) {
        if let Some(attempt) = self.state().attempt.take() {
            attempt.cancel();
        }
    }
}

/// Begins to replace what is outdated, where something is.
pub(crate) fn begin(shared: &Arc<Shared>) {
    let mut state = shared.renewal.state();
    if !state.running && shared.board.has_outdated() && !shared.board.is_ending() {
        state.running = true;
        shared.tasks.spawn(run(Arc::clone(shared)));
    }
}

async fn run(shared: Arc<Shared>) {
    let timing = shared.settings.timing;
    let mut delay = timing.back_off;
    while !is_over(&shared) {
        let failed = replace(&shared).await;
        if is_over(&shared) {
            return;
        }
        if let Some(error) = failed {
            let text = format!(
                "Error (Replacement failed) -> {error}; the processes of the other tolv keep \
                 running, the next attempt is in {delay:?}"
            );
            shared.journal.append([&Line::tolv("platform", text)].into_iter());
        }
        let woken = shared.ending.run_until_cancelled(shared.renewal.woken.notified());
        if timeout(delay, woken).await.is_err() {
            delay = (delay * 2).min(timing.back_off_max);
        }
    }
}

/// Whether there is nothing to do any more: then there is no task either.
fn is_over(shared: &Shared) -> bool {
    let mut state = shared.renewal.state();
    state.running = shared.board.has_outdated() && !shared.board.is_ending();
    !state.running
}

/// One attempt; why it failed.
async fn replace(shared: &Arc<Shared>) -> Option<Error> {
    // Whatever has ended meanwhile has nobody to be replaced.
    let restored = roll(shared, Manner::AsFarAsItGoes).await;
    if restored.is_some() || !shared.board.has_outdated() {
        return restored;
    }
    let place = shared.ending.run_until_cancelled(AT_ONCE.acquire());
    let _place = tokio::select! {
        place = place => place?.ok()?,
        // One that has ended does not wait.
        () = shared.renewal.woken.notified() => {
            shared.renewal.wake();
            return None;
        }
    };
    roll(shared, Manner::AllOrNothing).await
}

/// One rollout of what was brought up last, in its turn; why it failed, unless another wanted its turn.
async fn roll(shared: &Arc<Shared>, manner: Manner) -> Option<Error> {
    let turn = Arc::clone(&shared.turn).lock_owned();
    let turn = shared.ending.run_until_cancelled(turn).await?;
    let target = Arc::clone(turn.as_ref()?);
    let cancel = CancellationToken::new();
    shared.renewal.state().attempt = Some(cancel.clone());
    let rolled = match rolling::plans(shared, &target) {
        Ok(plans) => rolling::roll(Arc::clone(shared), target, plans, manner, cancel.clone()).await,
        Err(error) => Err(error),
    };
    shared.renewal.state().attempt = None;
    rolled.err().filter(|_| !cancel.is_cancelled())
}
