//! Puts others in the place of outdated processes: an ordinary rollout of what runs already. Where it
//! fails, the outdated ones run on, and it is tried again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tolv_logs::Line;

use crate::rolling::{self, Manner};
use crate::shared::Shared;
use crate::target::{Error, Target};

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
        let turn = Arc::clone(&shared.turn).lock_owned();
        let Some(turn) = shared.ending.run_until_cancelled(turn).await else { continue };
        let cancel = CancellationToken::new();
        shared.renewal.state().attempt = Some(cancel.clone());
        let replaced = match &*turn {
            Some(target) => replace(&shared, Arc::clone(target), &cancel).await,
            None => Ok(()),
        };
        drop(turn);
        shared.renewal.state().attempt = None;
        if is_over(&shared) {
            return;
        }
        if let (Err(error), false) = (replaced, cancel.is_cancelled()) {
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

async fn replace(
    shared: &Arc<Shared>,
    target: Arc<Target>,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let plans = rolling::plans(shared, &target)?;
    let roll = |plans, manner| {
        rolling::roll(Arc::clone(shared), Arc::clone(&target), plans, manner, cancel.clone())
    };
    // Whatever has ended meanwhile has nobody to be replaced.
    roll(plans.clone(), Manner::AsFarAsItGoes).await?;
    if shared.board.has_outdated() {
        roll(plans, Manner::AllOrNothing).await?;
    }
    Ok(())
}
