//! The runs of a deploy's schedules that go on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tolv_model::id::CronRunId;
use tolv_model::name::{ProcessName, ProcessType, ScheduleName};

use crate::output::Output;

/// All of them.
#[derive(Default)]
pub(crate) struct Going {
    runs: Mutex<Vec<Arc<Entered>>>,
    turn: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
}

/// One of them.
pub(super) struct Entered {
    id: CronRunId,
    schedule: ScheduleName,
    /// `cron-nightly.1`: the number is the first that no other run of the schedule has.
    pub(super) process: ProcessName,
    pub(super) output: Arc<Output>,
    /// It is to end.
    pub(super) stop: CancellationToken,
    /// It has ended, and that is recorded.
    pub(super) over: CancellationToken,
    is_replaced: AtomicBool,
}

impl Entered {
    /// Ends it for the run of a later tick.
    pub(super) fn replace(&self) {
        self.is_replaced.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }
}

impl Going {
    fn runs(&self) -> MutexGuard<'_, Vec<Arc<Entered>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while it is decided whether a run starts.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Those of one schedule.
    pub(super) fn of(&self, name: &ScheduleName) -> Vec<Arc<Entered>> {
        self.runs().iter().filter(|run| run.schedule == *name).cloned().collect()
    }

    pub(super) fn enter(
        &self,
        id: &CronRunId,
        schedule: &ScheduleName,
        output: Arc<Output>,
    ) -> Arc<Entered> {
        let process_type = ProcessType::scheduled(schedule);
        let mut runs = self.runs();
        let is_taken = |number: u16| {
            runs.iter()
                .any(|run| run.process.number == number && run.process.process_type == process_type)
        };
        let number = (1..u16::MAX).find(|number| !is_taken(*number)).unwrap_or(u16::MAX);
        let entered = Arc::new(Entered {
            id: id.clone(),
            schedule: schedule.clone(),
            process: ProcessName { process_type, number },
            output,
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
            is_replaced: AtomicBool::new(false),
        });
        runs.push(Arc::clone(&entered));
        entered
    }

    pub(super) fn leave(&self, entered: &Entered) {
        self.runs().retain(|run| run.id != entered.id);
        entered.over.cancel();
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until all of them are over and recorded.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
