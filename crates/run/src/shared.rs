//! What all tasks of an engine share.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tolv_logs::spool;
use tolv_model::name::ProcessName;
use tolv_model::unit::{Millis, Policy};

use crate::board::{Board, Command};
use crate::pump::{Outlet, Pump};
use crate::target::{Settings, Target};

/// Between two looks at all spools.
const TIDY_EVERY: Duration = Duration::from_secs(1);

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
    /// Nothing once the engine is stopped, so that the receiver ends.
    pub(crate) outlet: Mutex<Option<Outlet>>,
    /// Lines that the reader took.
    pub(crate) taken: Arc<AtomicU64>,
    /// Held by the rollout that goes on; what the last one brought up.
    pub(crate) turn: Arc<tokio::sync::Mutex<Option<Arc<Target>>>>,
    pub(crate) began: Instant,
    /// When the spools were last looked at.
    pub(crate) tidied: Mutex<Option<Instant>>,
    /// Spools that are being written.
    pub(crate) open: Mutex<HashSet<String>>,
}

impl Shared {
    pub(crate) fn end(&self, command: Command) {
        self.board.end(command);
        self.ending.cancel();
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

    /// A pump for one process, running.
    pub(crate) fn pump(&self, name: &ProcessName) -> Pump {
        let outlet = self.outlet.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // After the stop nobody reads, and nothing starts.
        let outlet =
            outlet.unwrap_or_else(|| Outlet { lines: mpsc::channel(1).0, taken: Arc::default() });
        let (pump, task) = Pump::new(Arc::from(name.to_string()), outlet);
        self.pump_task(task);
        pump
    }

    pub(crate) fn pump_task(&self, task: impl Future<Output = ()> + Send + 'static) {
        let hush = self.hush.clone();
        self.pumps.spawn(async move {
            hush.run_until_cancelled(task).await;
        });
    }

    /// Keeps a spool from being tidied away, or lets it go.
    pub(crate) fn hold(&self, name: &str, held: bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if held {
            open.insert(name.to_owned());
        } else {
            open.remove(name);
        }
    }

    /// Removes the oldest spools that are too many, beside everything else and not at every
    /// start: looking at all of them takes longer than a start.
    pub(crate) fn tidy_now_and_then(self: &Arc<Self>) {
        let now = Instant::now();
        let due = {
            let mut tidied = self.tidied.lock().unwrap_or_else(PoisonError::into_inner);
            let due = tidied.is_none_or(|last| now >= last + TIDY_EVERY);
            if due {
                *tidied = Some(now);
            }
            due
        };
        if !due {
            return;
        }
        let shared = Arc::clone(self);
        self.tasks.spawn_blocking(move || {
            let open = shared.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Settings { logs, logs_bytes, .. } = &shared.settings;
            // What cannot be removed now is there the next time.
            spool::tidy(logs, *logs_bytes, &|spool| open.contains(spool)).ok();
        });
    }
}
