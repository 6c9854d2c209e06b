//! The engine: see the crate's page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tolv_logs::Line;
use tolv_logs::store::Reader;
use tolv_model::name::{ProcessName, ProcessType};
use tolv_model::operation::Selection;
use tolv_model::unit::Policy;

use crate::board::{Board, Command, Kind};
use crate::journal::{Journal, Log};
use crate::left::{self, dismiss};
use crate::lost;
use crate::one_off::{Errand, Run};
use crate::orphan::{self, Found};
use crate::plan::Plan;
use crate::protocol::Written;
use crate::pump::{Outlet, Teller};
use crate::renewal::{self, Renewal};
use crate::rolling::{self, Manner};
use crate::shared::Shared;
use crate::tally::Tally;
use crate::target::{Endpoints, Error, Exit, OneOff, Outcome, Settings, Target};

/// Lines between the engine and their reader; where it is slow, the rest waits in the log.
const LINES: usize = 1024;
/// After everything is stopped, a reader that takes nothing for this long gets no more.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The engine of one deploy on this machine. Clones are the same engine; when the last is dropped,
/// everything is killed.
#[derive(Clone)]
pub struct Local(Arc<Owner>);

/// Ends the engine with the last handle.
struct Owner {
    shared: Arc<Shared>,
}

impl Local {
    /// An engine without processes, and the lines of everything it will run. What an earlier one on
    /// the same [`Settings::doors`] has left running goes on, and becomes this one's as soon as it is
    /// wanted. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Log`], [`Error::Doors`], [`Error::Timing`].
    pub fn new(settings: Settings) -> Result<(Self, mpsc::Receiver<Line>), Error> {
        let timing = settings.timing;
        let policy = Policy::new(
            timing.back_off,
            timing.back_off_max,
            timing.settled,
            timing.boot,
            timing.grace,
        )?;
        let logs = settings.logs.clone();
        let failed = |source| Error::Log { path: settings.logs.clone(), source };
        let limits = settings.log_limits();
        let journal = Arc::new(Journal::open(&logs, limits).map_err(failed)?);
        let mut reader = Reader::at_end(&logs).map_err(failed)?;
        let until =
            settings.doors_until.unwrap_or_else(|| std::time::Instant::now() + orphan::PATIENCE);
        let Found { mut orphans, mut late } = Found::default();
        for doors in settings.doors.iter().chain(&settings.doors_aside) {
            let found = orphan::find(doors, until)
                .map_err(|source| Error::Doors { path: doors.clone(), source })?;
            orphans.extend(found.orphans);
            late.extend(found.late);
        }
        for hello in orphans.iter().filter_map(|orphan| orphan.hello.as_ref()) {
            reader.skip(hello.writer, hello.written.written);
        }
        let tell = |text: String| {
            journal.append([&Line::tolv("platform", text)].into_iter());
        };
        if !late.is_empty() {
            let late = late.len();
            tell(format!(
                "{late} processes of an earlier platform do not answer: others start in \
                          their place, and they are stopped as soon as they do"
            ));
        }
        let lost = lost::of(&settings);
        let (lines, receiver) = mpsc::channel(LINES);
        let taken = Arc::new(AtomicU64::new(0));
        let outlet = Outlet { lines, taken: Arc::clone(&taken) };
        let tally = Arc::<Tally>::default();
        let (teller, telling) =
            Teller::new(Arc::clone(&journal), Arc::clone(&tally), reader, outlet);
        let shared = Arc::new(Shared {
            settings,
            policy,
            board: Board::new(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            pumps: TaskTracker::new(),
            hush: CancellationToken::new(),
            killed: CancellationToken::new(),
            journal,
            tally,
            teller: Mutex::new(Some(teller)),
            had_orphans: !orphans.is_empty(),
            lost: Mutex::new(lost),
            doors_made_again: AtomicU64::new(0),
            orphans: Mutex::new(orphans),
            dismissed: watch::Sender::default(),
            renewal: Renewal::default(),
            taken,
            listed: CancellationToken::new(),
            turn: Arc::default(),
            began: Instant::now(),
        });
        shared.pump_task(telling);
        left::stop_late(&shared, late);
        Ok((Self(Arc::new(Owner { shared })), receiver))
    }

    /// Makes what runs equal to `target`; see the crate's page. A second call waits for the
    /// first. Dropping the future before the switch undoes it.
    ///
    /// # Errors
    ///
    /// [`Error::Rollout`], [`Error::UnknownType`], [`Error::Env`], [`Error::Stopped`]; what ran
    /// before then still runs.
    pub async fn converge(&self, target: Target) -> Result<Outcome, Error> {
        let target = Arc::new(target);
        let plans = rolling::plans(&self.0.shared, &target)?;
        let turn = self.turn().await;
        self.roll(turn, target, plans, Manner::AllOrNothing).await
    }

    /// As [`Local::converge`], but a process that does not come up is no failure: it is started
    /// again and again, as one that crashed, and keeps none of the others down. For what has
    /// been running before, as after a restart of the machine, or still runs, as after a kill of
    /// the platform: that is gone on with. What another version of the platform has started answers
    /// requests too, until a rollout has replaced it, which begins behind this one.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownType`], [`Error::Env`], [`Error::Stopped`].
    pub async fn restore(&self, target: Target) -> Result<Outcome, Error> {
        let target = Arc::new(target);
        let plans = rolling::plans(&self.0.shared, &target)?;
        let turn = self.turn().await;
        self.roll(turn, target, plans, Manner::AsFarAsItGoes).await
    }

    /// Replaces processes by new ones of the same release, with the care of a rollout: the old
    /// ones end when the new ones are ready. Nothing to do where nothing was brought up.
    ///
    /// # Errors
    ///
    /// Those of [`Local::converge`].
    pub async fn restart(&self, processes: &Selection) -> Result<Outcome, Error> {
        let turn = self.turn().await;
        let Some(target) = turn.clone() else { return Ok(Outcome::default()) };
        let plans = rolling::plans(&self.0.shared, &target)?;
        self.roll(turn, target, plans, Manner::Renew(processes.clone())).await
    }

    /// Waits until no other rollout is under way; what only replaces outdated processes is undone.
    async fn turn(&self) -> OwnedMutexGuard<Option<Arc<Target>>> {
        self.0.shared.renewal.interrupt();
        Arc::clone(&self.0.shared.turn).lock_owned().await
    }

    async fn roll(
        &self,
        mut turn: OwnedMutexGuard<Option<Arc<Target>>>,
        target: Arc<Target>,
        plans: Vec<Plan>,
        manner: Manner,
    ) -> Result<Outcome, Error> {
        let shared = Arc::clone(&self.0.shared);
        if shared.board.is_ending() {
            return Err(Error::Stopped);
        }
        let cancel = CancellationToken::new();
        let _undo = cancel.clone().drop_guard();
        let (done, outcome) = oneshot::channel();
        // A task of its own: an undo goes on when nobody waits for it.
        shared.clone().tasks.spawn(async move {
            // Never two processes of one name.
            lost::end(&shared).await;
            let rolled = Arc::clone(&shared);
            let outcome = rolling::roll(rolled, Arc::clone(&target), plans, manner, cancel).await;
            if outcome.is_ok() {
                *turn = Some(target);
            }
            // What is not wanted has been replaced by now, as far as it could be.
            dismiss(&shared);
            drop(turn);
            renewal::begin(&shared);
            done.send(outcome).ok();
        });
        outcome.await.unwrap_or(Err(Error::Stopped))
    }

    /// Waits until no process of these types is on its way to its end, where none of its type stays;
    /// those are told at first and at every change. Each ends: it is killed after its grace period.
    pub async fn until_ended(
        &self,
        is_meant: impl Fn(&ProcessType) -> bool,
        mut tell: impl FnMut(&[ProcessName]),
    ) {
        let shared = &self.0.shared;
        let (mut endpoints, mut dismissed) = (self.endpoints(), shared.dismissed.subscribe());
        let mut told = Vec::new();
        loop {
            endpoints.mark_unchanged();
            let mut ending = dismissed.borrow_and_update().clone();
            ending.extend(shared.board.stopping());
            let staying = shared.board.staying();
            ending
                .retain(|one| is_meant(&one.process_type) && !staying.contains(&one.process_type));
            ending.sort();
            if ending.is_empty() {
                return;
            }
            if ending != told {
                tell(&ending);
                told = ending;
            }
            tokio::select! {
                changed = endpoints.changed() => if changed.is_err() { return },
                changed = dismissed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Runs one process to its end, beside the others. Dropping the future stops it.
    ///
    /// # Errors
    ///
    /// [`Error::NotStarted`], [`Error::TooLong`], [`Error::Env`], [`Error::NoPort`],
    /// [`Error::Stopped`]. A status other than 0 is no error here; a command that cannot be
    /// executed is status 126 or 127.
    pub async fn run_once(&self, one_off: OneOff) -> Result<Exit, Error> {
        self.run_once_until(one_off, &CancellationToken::new()).await
    }

    /// As [`Local::run_once`], but stopped once `stop` is cancelled: it comes back when the
    /// process and everything below it are gone.
    ///
    /// # Errors
    ///
    /// Those of [`Local::run_once`].
    pub async fn run_once_until(
        &self,
        one_off: OneOff,
        stop: &CancellationToken,
    ) -> Result<Exit, Error> {
        let shared = Arc::clone(&self.0.shared);
        let OneOff { target, name, command, limit } = one_off;
        let plan = Plan { target: Arc::new(target), name, command };
        let id = shared.board.next_id();
        // From before it is on the board: a stop that tells it waits for it.
        let _token = shared.tasks.token();
        let commands = shared.board.add(id, &plan, Kind::OneOff).ok_or(Error::Stopped)?;
        let cancel = stop.child_token();
        let _stop = cancel.clone().drop_guard();
        let (done, exit) = oneshot::channel();
        let pump = shared.pump(&plan, true).ok_or(Error::Stopped)?;
        self.0.shared.tasks.spawn(async move {
            let process = plan.name.clone();
            let limit = limit.unwrap_or(shared.settings.timing.one_off);
            let errand = Errand::line(limit);
            let run = Run { shared: Arc::clone(&shared), plan, commands, pump, cancel, errand };
            let exit = match run.run().await {
                Ok(ending) if ending.late => Err(Error::TooLong { process, limit }),
                ending => ending.map(|ending| ending.exit),
            };
            shared.board.remove(id);
            done.send(exit).ok();
        });
        exit.await.unwrap_or(Err(Error::Stopped))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// What runs, now and at every change.
    pub fn endpoints(&self) -> watch::Receiver<Endpoints> {
        self.0.shared.board.subscribe()
    }

    /// Whether an earlier engine had left something running, for this one to go on with.
    pub fn had_orphans(&self) -> bool {
        self.0.shared.had_orphans
    }

    /// How many sockets of processes were gone from [`Settings::doors`] and are there again.
    pub fn doors_made_again(&self) -> u64 {
        self.0.shared.doors_made_again.load(Ordering::Relaxed)
    }

    /// Waits until everything that the first rollout is to run is among the endpoints.
    pub async fn listed(&self) {
        self.0.shared.listed.cancelled().await;
    }

    /// Puts lines of the platform among those of the processes, in the log. It never waits.
    pub fn say(&self, lines: &[Line]) {
        self.0.shared.journal.append(lines.iter());
    }

    /// Most bytes of that log.
    pub fn logs_bytes(&self) -> u64 {
        self.0.shared.settings.logs_bytes
    }

    /// The log of the deploy, which outlives the engine.
    pub fn log(&self) -> Log {
        Log(Arc::clone(&self.0.shared.journal))
    }

    /// What each process of the formation, and the one-offs of each type together, have written
    /// since the engine began, and the platform about them (`tolv`).
    pub async fn written(&self) -> BTreeMap<Arc<str>, Written> {
        let shared = &self.0.shared;
        let mut all = shared.tally.all().await;
        let (written, lost) = shared.journal.counts();
        all.insert(Arc::from("tolv"), Written { written, lost });
        all
    }

    /// Stops everything and waits until it is gone: SIGTERM, the grace period, SIGKILL. From
    /// here on nothing can be started; the receiver of the lines ends after the last.
    pub async fn stop(&self) {
        let shared = &self.0.shared;
        shared.end(Command::Stop);
        dismiss(shared);
        lost::end(shared).await;
        self.settle().await;
    }

    /// Lets go of everything, for the next engine on this folder to go on with: processes of the
    /// formation run on, one-offs are stopped as by [`Local::stop`]. From here on nothing can be
    /// started; the receiver of the lines ends after the last. Without doors it stops everything.
    pub async fn leave(&self) {
        let shared = &self.0.shared;
        if shared.settings.doors.is_none() {
            return self.stop().await;
        }
        shared.end(Command::Leave);
        // Those that nobody has gone on with go back to their doors.
        drop(shared.orphans());
        self.settle().await;
    }

    /// Waits for the last task and the last line.
    async fn settle(&self) {
        let shared = &self.0.shared;
        shared.tasks.close();
        shared.tasks.wait().await;
        shared.teller.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.pumps.close();
        loop {
            let before = shared.taken.load(Ordering::Relaxed);
            if timeout(LAST_LINES, shared.pumps.wait()).await.is_ok() {
                return;
            }
            if shared.taken.load(Ordering::Relaxed) == before {
                shared.hush.cancel();
            }
        }
    }

    /// Stops what an earlier engine on this folder has left running and [`Local::restore`] has not
    /// gone on with, without waiting.
    pub fn dismiss(&self) {
        let shared = Arc::clone(&self.0.shared);
        dismiss(&shared);
        self.0.shared.tasks.spawn(async move { lost::end(&shared).await });
    }

    /// Kills everything now, without waiting.
    pub fn kill(&self) {
        self.0.shared.end(Command::Kill);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.end(Command::Kill);
        self.shared.teller.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests;
