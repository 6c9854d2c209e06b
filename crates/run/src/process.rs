//! One process of the formation: the task that owns it, and carries out what its
//! [`Unit`] decides.
//!
//! # Invariants
//!
//! * Until the rollout switches to it (`Command::Keep`), it is on probation: a failure is
//!   reported, and it is not restarted before the rollout has answered.
//! * It leaves the board before it reports that it is gone.
//! * Where the machine has nothing left to start it with, that is no failure of its own: it is started
//!   again soon, and its unit, which waits for the child, hears of neither.
//! * One that is complete stays on the board, so that nothing starts it again before it is replaced or
//!   told to stop.
//! * Left to the next engine (`Command::Leave`), it decides nothing any more: it lets go of its
//!   shim once that is launched, in whatever state it is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep_until};
use tolv_model::shortage::Shortage;
use tolv_model::unit::{Action, Cause, Event, Jitter, Millis, Phase, Unit};

use crate::board::Command;
use crate::child::{self, Started};
use crate::connector::Connector;
use crate::listening;
use crate::maybe::maybe;
use crate::orphan::Orphan;
use crate::plan::Plan;
use crate::ports::random;
use crate::probe::{Probe, Probed};
use crate::protocol::frozen::Word as Frozen;
use crate::protocol::{Ended, FromShim, Word};
use crate::pump::Pump;
use crate::session::{self, Launching, Session};
use crate::shared::Shared;
use crate::target::{Boot, Culprit, ProcessState, Reason, StartFailure};

/// Between two tries to start a process while something is missing for it.
const SHORTAGE_DELAY: Duration = Duration::from_secs(1);
/// Between two looks at whether its door is still on the disk.
const DOOR_INTERVAL: Duration = Duration::from_secs(2);

/// What a process on probation tells its rollout.
#[derive(Debug)]
pub(crate) enum Report {
    Ready(u64),
    Failed(u64, Box<Culprit>),
    Gone(u64),
}

/// The process itself. See the [module](self).
pub(crate) struct Process {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    pub(crate) plan: Plan,
    pub(crate) commands: UnboundedReceiver<Command>,
    /// Where reports go, while on probation.
    pub(crate) reports: UnboundedSender<Report>,
    pub(crate) pump: Arc<Pump>,
}

/// What happened.
enum Happened {
    Command(Command),
    Launched(Result<Started, StartFailure>),
    Word(Option<FromShim>),
    Probed(Probed),
    Woken,
    Room,
    Deaf,
    DoorDue,
}

type Probing = Pin<Box<dyn Future<Output = Probed> + Send>>;

/// The process with what is there while its task runs.
struct Running {
    process: Process,
    unit: Unit,
    probation: bool,
    /// Whether it is left to the next engine.
    left: bool,
    launching: Option<Launching>,
    session: Option<Session>,
    probing: Option<Probing>,
    /// How the port of this start is reached.
    connector: Connector,
    wake_at: Option<Millis>,
    /// When it is tried again to start it, where something was missing for that.
    again_at: Option<Instant>,
    /// What was missing last, and was said.
    shortage: Option<Shortage>,
    starts: u32,
    /// When its door is looked at.
    door_at: Instant,
    /// Whether it was said that its door cannot be made again.
    door_failed: bool,
    /// Whether the shim of this start has said that the app runs.
    spawned: bool,
    /// Whether the rollout knows that it is ready.
    reported: bool,
    /// The phase that was said last.
    said: Phase,
    /// Why it failed, until that is reported.
    reason: Option<Reason>,
    culprit: Option<Box<Culprit>>,
}

impl Process {
    /// Its whole life.
    pub(crate) async fn run(self) {
        let unit = Unit::new(self.shared.policy);
        let mut running = Running {
            process: self,
            unit,
            probation: true,
            left: false,
            launching: None,
            session: None,
            probing: None,
            connector: Connector::nowhere(),
            wake_at: None,
            again_at: None,
            shortage: None,
            starts: 0,
            door_at: Instant::now() + DOOR_INTERVAL,
            door_failed: false,
            spawned: false,
            reported: false,
            said: Phase::Starting,
            reason: None,
            culprit: None,
        };
        running.feed(Event::Start);
        while !running.unit.is_stopped() && !running.is_let_go() {
            let happened = running.next().await;
            running.take(happened).await;
        }
        let Self { shared, id, reports, .. } = running.process;
        shared.board.remove(id);
        // A rollout that is over does not care.
        reports.send(Report::Gone(id)).ok();
    }
}

impl Running {
    /// A launch comes to its end: before that nobody could go on with it.
    fn is_let_go(&self) -> bool {
        self.left && self.launching.is_none()
    }

    async fn next(&mut self) -> Happened {
        // A failure on probation waits for the rollout's answer.
        let held = self.probation && self.unit.phase() == Phase::Crashed && self.session.is_none();
        let wake_at = self.wake_at.filter(|_| !held).map(|at| self.process.shared.instant(at));
        let deaf_at = self.session.as_ref().and_then(|session| session.deaf_at);
        tokio::select! {
            biased;
            // The board keeps the other end for as long as this runs.
            Some(command) = self.process.commands.recv() => Happened::Command(command),
            done = maybe(self.launching.as_mut().map(Launching::done)) => Happened::Launched(done),
            word = maybe(self.session.as_ref().map(|s| s.control.word())) => Happened::Word(word),
            probed = maybe(self.probing.as_mut()) => Happened::Probed(probed),
            () = maybe(wake_at.map(sleep_until)) => Happened::Woken,
            () = maybe(self.again_at.map(sleep_until)) => Happened::Room,
            () = maybe(deaf_at.map(sleep_until)) => Happened::Deaf,
            () = sleep_until(self.door_at), if self.session.is_some() => Happened::DoorDue,
        }
    }

    async fn take(&mut self, happened: Happened) {
        match happened {
            Happened::Command(Command::Keep) => self.probation = false,
            Happened::Command(Command::Stop) => self.end(Event::Stop),
            Happened::Command(Command::Leave) => {
                self.keep_door();
                self.left = true;
            }
            Happened::Command(Command::Kill) => self.end(Event::Kill),
            Happened::Launched(done) => self.launched(done),
            Happened::Word(word) => self.word(word).await,
            Happened::Probed(Probed::Ready(address)) => {
                self.probing = None;
                if let Some(address) = address {
                    self.process.shared.board.update(self.process.id, |p| p.address = address);
                }
                self.feed(Event::Ready);
                self.watch_health();
            }
            Happened::Probed(Probed::Failed(why)) => {
                self.probing = None;
                self.say(format!("Error (Health check failed) -> {why}"));
                self.reason = Some(Reason::CheckFailed(why));
                self.feed(Event::Unhealthy);
            }
            Happened::Woken => {
                self.wake_at = None;
                self.feed(Event::Woken);
            }
            Happened::DoorDue => {
                self.door_at = Instant::now() + DOOR_INTERVAL;
                self.keep_door();
            }
            Happened::Room => {
                self.again_at = None;
                self.start();
            }
            Happened::Deaf => {
                if let Some(session) = &mut self.session {
                    session.force();
                }
            }
        }
        self.report().await;
    }

    fn keep_door(&mut self) {
        let Some(made) = self.session.as_ref().and_then(Session::keep_door) else { return };
        let failed = made.err();
        match &failed {
            None => {
                self.process.shared.doors_made_again.fetch_add(1, Ordering::Relaxed);
                self.say("The process's socket below processes/ was gone, and is made again");
            }
            Some(error) if !self.door_failed => self.say(format!(
                "Warning: the process's socket below processes/ is gone, and cannot be made again: \
                 {error}; a restart of the platform would restart the process"
            )),
            Some(_) => {}
        }
        self.door_failed = failed.is_some();
    }

    fn launched(&mut self, done: Result<Started, StartFailure>) {
        let Some(launching) = self.launching.take() else { return };
        let opened = done.and_then(|started| launching.open(started, &self.process.pump));
        match opened {
            // The unit hears of it at the shim's first word.
            Ok(session) => self.session = Some(session),
            Err(why) => self.not_started(Reason::NotStarted(why)),
        }
    }

    fn not_started(&mut self, reason: Reason) {
        let shortage = match &reason {
            Reason::NotStarted(failure) => failure.shortage,
            _ => None,
        };
        // A rollout is told, and decides; who wants it down waits for this answer.
        let is_wanted = !self.left && self.unit.phase() == Phase::Starting;
        if !self.probation && is_wanted && shortage.is_some() {
            if self.shortage != shortage {
                self.say(format!("Process {reason}; it is tried again every second"));
                self.shortage = shortage;
            }
            self.again_at = Some(Instant::now() + SHORTAGE_DELAY);
            return;
        }
        self.say(format!("Process {reason}"));
        self.reason = Some(reason);
        self.feed(Event::SpawnFailed);
    }

    /// Tells the unit that somebody wants it down. There may be no child to wait for.
    fn end(&mut self, event: Event) {
        self.feed(event);
        if self.again_at.take().is_some() {
            self.feed(Event::SpawnFailed);
        }
    }

    async fn word(&mut self, word: Option<FromShim>) {
        let word = match word {
            Some(FromShim::Versioned(word)) => word,
            Some(FromShim::Frozen(Frozen::Exited(ended))) => return self.exited(Some(ended)).await,
            // Said to whoever asked, before anybody went on with it.
            Some(FromShim::Frozen(Frozen::Hello(_))) => return,
            None => return self.exited(None).await,
        };
        match word {
            Word::Bell(written) => {
                if let Some(session) = &self.session {
                    self.process.pump.bell(session.writer, written);
                }
            }
            Word::Memory { held, limit } => {
                session::memory_quota(&self.process.pump, held, limit);
            }
            Word::Killed { kills, limit } => {
                session::memory_kill(&self.process.pump, kills, limit);
            }
            Word::ForkRefused { limit } => session::fork_refused(&self.process.pump, limit),
            Word::Started { .. } => self.started(),
            Word::ExecFailed { errno, what } => {
                if let Some(session) = self.session.take() {
                    session.over(None, &self.process.pump);
                }
                self.not_started(child::exec_failure(errno, &what));
            }
        }
    }

    fn started(&mut self) {
        let Some(session) = &self.session else { return };
        let port = session.port.number;
        let pid = listening::first_child(session.launched.pid);
        let connector = Connector::to(session.launched.pid);
        self.connector = connector.clone();
        self.process.shared.board.update(self.process.id, |process| {
            process.pid = pid;
            process.connector = connector;
        });
        self.spawned = true;
        self.shortage = None;
        self.feed(Event::Spawned);
        if self.unit.phase() == Phase::Starting {
            self.probing = Some(Box::pin(self.probe(port).ready(self.warn())));
        }
    }

    fn watch_health(&mut self) {
        if let (Phase::Up, Some(session)) = (self.unit.phase(), &self.session) {
            let port = session.port.number;
            self.probing = Some(Box::pin(self.probe(port).alive(self.warn())));
        }
    }

    async fn exited(&mut self, ended: Option<Ended>) {
        self.probing = None;
        let Some(session) = self.session.take() else { return };
        let exit = session.ended(ended, &self.process.pump);
        let level = self.process.shared.settings.level;
        session.hint_read_only(level, exit, &self.process.pump).await;
        let is_complete = self.reason.is_none()
            && exit.is_success()
            && self.process.shared.settings.completes
            && !self.process.plan.name.process_type.is_web()
            && matches!(self.unit.phase(), Phase::Starting | Phase::Up);
        let reason = match self.reason.take().unwrap_or_else(|| session::reason(ended)) {
            Reason::Exited(exit) if self.reported => Reason::ExitedAfterUp(exit),
            reason => reason,
        };
        if self.probation && !is_complete {
            let name = self.process.plan.name.clone();
            let last_lines = session.last_lines().await;
            self.culprit = Some(Box::new(Culprit { process: name, reason, last_lines }));
        }
        // The port is free from here on.
        drop(session);
        self.connector = Connector::nowhere();
        self.process.shared.board.update(self.process.id, |process| {
            process.pid = None;
            process.connector = Connector::nowhere();
        });
        // Where the shim died before its first word, the unit still waits for one.
        self.feed(match self.spawned {
            true if is_complete => Event::Completed,
            true => Event::Exited,
            false => Event::SpawnFailed,
        });
    }

    fn probe(&self, port: u16) -> Probe {
        let Process { shared, plan, .. } = &self.process;
        let connector = self.connector.clone();
        let was_short = Arc::default();
        Probe { shared: Arc::clone(shared), plan: plan.clone(), port, connector, was_short }
    }

    fn warn(&self) -> impl Fn(String) + Send + use<> {
        let pump = Arc::clone(&self.process.pump);
        move |why| pump.say(format!("Warning: health check failed: {why}"))
    }

    fn say(&self, text: impl Into<Vec<u8>>) {
        self.process.pump.say(text);
    }

    /// Tells the unit, and does what it says.
    fn feed(&mut self, event: Event) {
        let now = self.process.shared.now();
        let jitter = Jitter(u16::try_from(random() % 1001).unwrap_or(0));
        for action in self.unit.handle(event, now, jitter) {
            match action {
                Action::Spawn => self.spawn(),
                Action::Terminate => self.terminate(),
                Action::Kill(cause) => self.kill(cause),
                Action::WakeAt(at) => self.wake_at = Some(at),
            }
        }
        self.tell();
    }

    fn spawn(&mut self) {
        let Process { shared, plan, .. } = &self.process;
        self.starts = self.starts.saturating_add(1);
        let restarts = self.starts - 1;
        self.wake_at = None;
        self.spawned = false;
        if restarts > 0 {
            self.process.pump.say("State changed from crashed to starting");
            self.said = Phase::Starting;
        }
        if let Some(orphan) = shared.take_orphan(plan) {
            self.adopt(orphan);
            return;
        }
        self.process.pump.say(format!("Starting process with command `{}`", plan.command));
        self.start();
    }

    fn start(&mut self) {
        let Process { shared, plan, id, .. } = &self.process;
        let restarts = self.starts.saturating_sub(1);
        for refused in plan.refused_services(&shared.settings) {
            self.process.pump.say(refused);
        }
        match Launching::begin(shared, plan) {
            Ok(launching) => {
                let port = launching.port();
                shared.board.update(*id, |process| {
                    process.state = ProcessState::Starting;
                    process.address.set_port(port);
                    process.restarts = restarts;
                });
                self.launching = Some(launching);
            }
            Err(error) => self.not_started(Reason::NotStarted(error.to_string().into())),
        }
    }

    /// It runs: another platform has started it.
    fn adopt(&mut self, orphan: Orphan) {
        let Process { shared, id, pump, .. } = &self.process;
        pump.say("Process has kept running, and the platform looks after it again");
        match Session::adopt(orphan, shared, pump) {
            Ok(session) => {
                let port = session.port.number;
                shared.board.update(*id, |process| process.address.set_port(port));
                self.session = Some(session);
                self.started();
            }
            Err(why) => self.not_started(Reason::NotStarted(why)),
        }
    }

    fn terminate(&mut self) {
        self.probing = None;
        self.process.pump.say("Stopping all processes with SIGTERM");
        let grace = self.process.shared.settings.timing.grace;
        if let Some(session) = &mut self.session {
            session.terminate(grace);
        }
    }

    fn kill(&mut self, cause: Cause) {
        self.probing = None;
        let timing = self.process.shared.settings.timing;
        match cause {
            Cause::Boot => {
                let port = self.session.as_ref().map_or(0, |session| session.port.number);
                let root = self.session.as_ref().map_or(0, |session| session.launched.pid);
                let listens = listening::listening_below(root);
                let boot = Boot { limit: timing.boot, port, listens };
                self.say(format!(
                    "Error R10 (Boot timeout) -> Process was not ready within {boot}"
                ));
                self.reason = Some(Reason::BootTimeout(boot));
            }
            Cause::Grace => self.say(session::exit_timeout(timing.grace)),
            Cause::Check | Cause::Asked => {}
        }
        self.say("Stopping all processes with SIGKILL");
        if let Some(session) = &mut self.session {
            session.kill();
        }
    }

    /// Says a change of the phase, in the log and on the board.
    fn tell(&mut self) {
        let phase = self.unit.phase();
        let state = match phase {
            Phase::Starting => ProcessState::Starting,
            Phase::Up => ProcessState::Up,
            Phase::Crashed => ProcessState::Crashed,
            Phase::Complete => ProcessState::Complete,
            Phase::Stopping => ProcessState::Stopping,
            Phase::Stopped => ProcessState::Down,
        };
        let Process { shared, id, pump, .. } = &self.process;
        shared.board.update(*id, |process| process.state = state);
        // While it is being killed or stopped, the end is not there yet.
        if phase == self.said
            || phase == Phase::Stopping
            || self.session.is_some() && phase == Phase::Crashed
        {
            return;
        }
        let before = word(self.said);
        match (phase, self.wake_at) {
            (Phase::Crashed, _) if self.probation => {
                pump.say(format!("State changed from {before} to crashed"));
            }
            (Phase::Crashed, Some(at)) => {
                let delay = shared.until(at);
                pump.say(format!("State changed from {before} to crashed; restart {delay}"));
            }
            _ => pump.say(format!("State changed from {before} to {}", word(phase))),
        }
        self.said = phase;
    }

    /// Tells the rollout what it waits for.
    async fn report(&mut self) {
        let Process { reports, id, plan, .. } = &self.process;
        if !self.probation {
            self.culprit = None;
            return;
        }
        match self.unit.phase() {
            // What is complete keeps no other waiting.
            Phase::Up | Phase::Complete if !self.reported => {
                self.reported = true;
                reports.send(Report::Ready(*id)).ok();
            }
            Phase::Crashed if self.session.is_none() => {
                let culprit = self.culprit.take().or_else(|| {
                    let reason = self.reason.take()?;
                    let process = plan.name.clone();
                    Some(Box::new(Culprit { process, reason, last_lines: Vec::new() }))
                });
                if let Some(culprit) = culprit {
                    reports.send(Report::Failed(*id, culprit)).ok();
                }
            }
            _ => {}
        }
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Stopped => "down",
        Phase::Starting => "starting",
        Phase::Up => "up",
        Phase::Crashed => "crashed",
        Phase::Complete => "complete",
        Phase::Stopping => "stopping",
    }
}
