//! What all tasks of an engine share.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tolv_model::name::ProcessName;
use tolv_model::unit::{Millis, Policy};

use crate::board::{Board, Command};
use crate::journal::Journal;
use crate::lost::{self, Living};
use crate::orphan::Orphan;
use crate::plan::Plan;
use crate::pump::{Pump, Teller};
use crate::renewal::Renewal;
use crate::tally::Tally;
use crate::target::{Settings, Target};

/// One engine, as its tasks see it.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) policy: Policy,
    pub(crate) board: Board,
    /// Processes, one-offs and rollouts.
    pub(crate) tasks: TaskTracker,
    /// Nothing starts any more.
    pub(crate) ending: CancellationToken,
    pub(crate) pumps: TaskTracker,
    /// Pumps end where they are.
    pub(crate) hush: CancellationToken,
    /// Nobody waits for anything to end by itself.
    pub(crate) killed: CancellationToken,
    /// The platform's hand in the log.
    pub(crate) journal: Arc<Journal>,
    pub(crate) tally: Arc<Tally>,
    /// Nothing once the engine is stopped, so that the receiver ends.
    pub(crate) teller: Mutex<Option<Teller>>,
    /// What another platform has left running, and nobody has gone on with.
    pub(crate) orphans: Mutex<Vec<Orphan>>,
    /// Those of them that have no door any more.
    pub(crate) lost: Mutex<Vec<Arc<Living>>>,
    /// Doors that were gone from the disk and are there again.
    pub(crate) doors_made_again: AtomicU64,
    /// Whether there was any.
    pub(crate) had_orphans: bool,
    /// Which of them are being stopped.
    pub(crate) dismissed: watch::Sender<Vec<ProcessName>>,
    /// Replaces those of them that are outdated.
    pub(crate) renewal: Renewal,
    /// Lines that the reader took.
    pub(crate) taken: Arc<AtomicU64>,
    /// What the first rollout is to run is on the board.
    pub(crate) listed: CancellationToken,
    /// Held by the rollout that goes on; what the last one brought up.
    pub(crate) turn: Arc<tokio::sync::Mutex<Option<Arc<Target>>>>,
    pub(crate) began: Instant,
}

impl Shared {
    pub(crate) fn end(&self, command: Command) {
        self.board.end(command);
        self.ending.cancel();
        if command == Command::Kill {
            self.killed.cancel();
            for orphan in self.orphans() {
                orphan.kill();
            }
            lost::take(self).iter().for_each(|living| living.launched.kill());
        }
    }

    /// All that are left.
    pub(crate) fn orphans(&self) -> Vec<Orphan> {
        std::mem::take(&mut self.orphans.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One that runs exactly this.
    pub(crate) fn take_orphan(&self, plan: &Plan) -> Option<Orphan> {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        if orphans.is_empty() {
            return None;
        }
        let digest = plan.digest(self.settings.level);
        let place = orphans.iter().position(|orphan| orphan.runs(digest))?;
        Some(orphans.swap_remove(place))
    }

    /// One that is this process of this release and cannot be gone on with for good.
    pub(crate) fn take_outdated(&self, plan: &Plan) -> Option<Orphan> {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        if orphans.is_empty() {
            return None;
        }
        let digest = plan.digest(self.settings.level);
        let place = orphans.iter().position(|orphan| orphan.stands_for(plan, digest))?;
        Some(orphans.swap_remove(place))
    }

    /// The time of the state machines.
    pub(crate) fn now(&self) -> Millis {
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// A moment of the state machines on this machine's clock.
    pub(crate) fn instant(&self, at: Millis) -> Instant {
        // The clock is finer than a millisecond: not before it.
        self.began + Duration::from_millis(at.0)
    }

    /// How long until then, in words: `at once`, `in 1.9 s`.
    pub(crate) fn until(&self, at: Millis) -> String {
        let delay = at.0.saturating_sub(self.now().0);
        match delay {
            0 => "at once".to_owned(),
            1..10_000 => format!("in {}.{} s", delay / 1000, delay / 100 % 10),
            _ => format!("in {} s", delay / 1000),
        }
    }

    /// What is said about one process; after the stop nobody hears it. Those outside the formation
    /// have no end of names: their account is that of their type.
    pub(crate) fn pump(&self, plan: &Plan, one_off: bool) -> Option<Pump> {
        let (process, release) =
            (Arc::<str>::from(plan.name.to_string()), plan.target.release.number.0);
        let account = match one_off {
            true => Arc::from(plan.name.process_type.to_string()),
            false => Arc::clone(&process),
        };
        self.pump_of(process, account, release)
    }

    pub(crate) fn pump_of(
        &self,
        process: Arc<str>,
        account: Arc<str>,
        release: u32,
    ) -> Option<Pump> {
        let teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner);
        teller.as_ref().map(|teller| teller.pump(process, account, release))
    }

    pub(crate) fn pump_task(&self, task: impl Future<Output = ()> + Send + 'static) {
        let hush = self.hush.clone();
        let task = async move {
            hush.run_until_cancelled(task).await;
        };
        match &self.settings.lines {
            Some(handle) => self.pumps.spawn_on(task, handle),
            None => self.pumps.spawn(task),
        };
    }
}
