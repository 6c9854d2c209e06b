//! One start of one process: its port and its shim, from the launch to the last word.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;
use tolv_logs::{Line, store};
use tolv_model::env::EnvError;
use tolv_model::size::show_bytes;
use tolv_sandbox::{Launched, Level};

use crate::child::{self, Start, Started};
use crate::control::Control;
use crate::orphan::{Door, Orphan};
use crate::plan::Plan;
use crate::ports::{Port, random};
use crate::protocol::frozen::{self, Exited, Hello, Identity};
use crate::protocol::{Ended, Order, Orders, Written};
use crate::pump::Pump;
use crate::shared::Shared;
use crate::target::{Error, Exit, Reason, StartFailure};

/// Lines of a process that a message about its failure has.
const LAST_LINES: usize = 20;
/// For a shim to carry out an order to kill; then it is killed itself.
pub(crate) const DEAF: Duration = Duration::from_secs(5);
/// Launches at once, of all engines: each waits on a thread, and threads cost memory.
static LAUNCHES: Semaphore = Semaphore::const_new(16);
/// Behind the supervisor's own grace period: only where it is too busy to keep it.
const LATE: Duration = Duration::from_secs(2);

/// A launch that is under way.
pub(crate) struct Launching {
    port: Port,
    writer: u64,
    folder: PathBuf,
    launch: JoinHandle<Result<Started, StartFailure>>,
}

impl Launching {
    /// Begins a launch of a process that the next platform goes on with, where there is to be one.
    pub(crate) fn begin(shared: &Arc<Shared>, plan: &Plan) -> Result<Self, Error> {
        let settings = &shared.settings;
        let doors = settings.doors.iter().chain(&settings.doors_aside).cloned().collect();
        Self::launch(shared, plan, doors, |port, orders| {
            let identity = || Identity { plan: plan.digest(settings.level), port };
            orders.head.identity = settings.doors.is_some().then(identity);
            Ok(())
        })
    }

    /// Begins a launch of one that ends with this platform, with other orders.
    pub(crate) fn begin_as(
        shared: &Arc<Shared>,
        plan: &Plan,
        change: impl FnOnce(&mut Orders) -> Result<(), EnvError>,
    ) -> Result<Self, Error> {
        Self::launch(shared, plan, Vec::new(), |_, orders| change(orders))
    }

    fn launch(
        shared: &Arc<Shared>,
        plan: &Plan,
        doors: Vec<PathBuf>,
        change: impl FnOnce(u16, &mut Orders) -> Result<(), EnvError>,
    ) -> Result<Self, Error> {
        let settings = &shared.settings;
        let port = match settings.host_services {
            Some(_) => settings.ports.any_but(&plan.service_ports()),
            None => settings.ports.take().ok_or(Error::NoPort)?,
        };
        let writer = store::writer_id(random());
        let mut orders = plan
            .orders(settings, port.number, writer)
            .map_err(|source| Error::Env { process: plan.name.clone(), source })?;
        change(port.number, &mut orders)
            .map_err(|source| Error::Env { process: plan.name.clone(), source })?;
        let folder = settings.logs.clone();
        let start =
            Start { orders, spec: plan.spec(settings, port.number), folder: folder.clone(), doors };
        let spawner = settings.spawner.clone();
        let proof = settings.prove.as_ref().map(|prove| prove(Arc::clone(&plan.target.release)));
        let launch = shared.tasks.spawn(async move {
            // Each start, a restart after a crash too.
            if let Some(proof) = proof {
                proof.await?;
            }
            let _place = LAUNCHES.acquire().await;
            let launched = spawn_blocking(move || child::launch(&spawner, start)).await;
            launched.unwrap_or_else(|error| Err(error.to_string().into()))
        });
        Ok(Self { port, writer, folder, launch })
    }

    /// Waits for it; may be dropped at any time, and called again.
    pub(crate) async fn done(&mut self) -> Result<Started, StartFailure> {
        (&mut self.launch).await.unwrap_or_else(|error| Err(error.to_string().into()))
    }

    /// What `done` gave becomes a session, whose output goes to the pump.
    pub(crate) fn open(self, started: Started, pump: &Pump) -> Result<Session, StartFailure> {
        let Started { launched, control, door, .. } = started;
        let control = listen(control)?;
        let Self { port, writer, folder, .. } = self;
        pump.open(writer, &control, Written::default());
        Ok(Session { port, control, launched, door, writer, folder, deaf_at: None })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }
}

fn listen(control: OwnedFd) -> Result<Arc<Control>, StartFailure> {
    let control =
        Control::new(control).map_err(|error| StartFailure::of("the control socket", &error))?;
    Ok(Arc::new(control))
}

/// The port that a process of another platform was told of.
pub(crate) fn known_port(shared: &Shared, number: u16) -> Port {
    match shared.settings.host_services {
        Some(_) => shared.settings.ports.known(number),
        None => shared.settings.ports.hold(number),
    }
}

/// A shim that runs.
pub(crate) struct Session {
    pub(crate) port: Port,
    pub(crate) control: Arc<Control>,
    pub(crate) launched: Launched,
    door: Option<Door>,
    /// Its hand in the log.
    pub(crate) writer: u64,
    folder: PathBuf,
    /// When the shim itself is killed.
    pub(crate) deaf_at: Option<Instant>,
}

impl Session {
    /// Goes on with a shim that another platform has launched. It is killed where that fails.
    pub(crate) fn adopt(
        orphan: Orphan,
        shared: &Shared,
        pump: &Pump,
    ) -> Result<Self, StartFailure> {
        let Orphan { hello, control, launched, door } = orphan;
        let is_known =
            hello.ok_or_else(|| StartFailure::from("it did not say what it runs".to_owned()));
        let adopted = is_known.and_then(|hello| Ok((hello, listen(control)?)));
        let (Hello { writer, identity, written, .. }, control) = adopted.inspect_err(|_| {
            launched.kill();
            door.remove();
        })?;
        let port = known_port(shared, identity.port);
        pump.open(writer, &control, written);
        let (door, folder) = (Some(door), shared.settings.logs.clone());
        Ok(Self { port, control, launched, door, writer, folder, deaf_at: None })
    }

    /// Makes its door again where somebody has removed it from the disk: without one the next platform
    /// does not find it. Nothing where it is there.
    pub(crate) fn keep_door(&self) -> Option<io::Result<()>> {
        let door = self.door.as_ref().filter(|door| !door.is_there())?;
        Some(door.make_again(|listener| self.control.order_with(Order::Door, listener)))
    }

    /// SIGTERM to the leader.
    pub(crate) fn terminate(&mut self, grace: Duration) {
        if !self.control.order(stop_order(grace)) {
            self.kill();
        }
    }

    /// SIGKILL to everything.
    pub(crate) fn kill(&mut self) {
        if self.control.order(Order::Kill) {
            self.deaf_at.get_or_insert(Instant::now() + DEAF);
        } else {
            self.launched.kill();
        }
    }

    /// The shim does not obey.
    pub(crate) fn force(&mut self) {
        self.deaf_at = None;
        self.launched.kill();
    }

    /// Everything is gone: `ended` is the shim's last word, nothing where it died without one.
    pub(crate) fn ended(&self, ended: Option<Ended>, pump: &Pump) -> Exit {
        self.over(ended, pump);
        let exit = exit_of(ended.map(|ended| ended.exited));
        if let Some(ended) = ended.filter(|ended| ended.oom_kills > 0) {
            let (kills, limit) = (ended.oom_kills, ended.memory_limit);
            memory_kill(pump, kills, limit);
        }
        pump.say(format!("Process exited with {exit}"));
        exit
    }

    /// Nobody is there any more, or will be once its last word is known to be heard.
    pub(crate) fn over(&self, ended: Option<Ended>, pump: &Pump) {
        pump.ended(self.writer, ended.map(|ended| ended.exited.written));
        self.control.order(frozen::Order::Heard);
        self.door.iter().for_each(Door::remove);
    }

    /// The last lines of its output.
    pub(crate) async fn last_lines(&self) -> Vec<Line> {
        last_lines(self.folder.clone(), self.writer).await
    }

    /// Says where a process may write that failed because it may not write to `/app`.
    pub(crate) async fn hint_read_only(&self, level: Level, exit: Exit, pump: &Pump) {
        if level != Level::Landlock || exit.is_success() {
            return;
        }
        let is_refusal = |line: &Line| {
            let text = String::from_utf8_lossy(&line.text);
            REFUSALS.iter().any(|refusal| text.contains(refusal))
        };
        if self.last_lines().await.iter().any(is_refusal) {
            pump.say(
                "Hint: /app is read-only at level landlock: write to /tmp, or have the operator give \
                 the platform user namespaces (tolv status)",
            );
        }
    }
}

/// What programs say of a file that they may not write.
const REFUSALS: [&str; 4] = ["Permission denied", "Read-only file system", "EACCES", "EROFS"];

async fn last_lines(folder: PathBuf, writer: u64) -> Vec<Line> {
    let read = spawn_blocking(move || store::last_lines(&folder, writer, LAST_LINES));
    // No lines where they cannot be read: the message stands without them.
    read.await.ok().and_then(Result::ok).unwrap_or_default()
}

/// SIGTERM to the leader, and how long it has.
pub(crate) fn stop_order(grace: Duration) -> frozen::Order {
    let grace_ms = u64::try_from((grace + LATE).as_millis()).unwrap_or(u64::MAX);
    frozen::Order::Stop { signal: libc::SIGTERM, grace_ms }
}

pub(crate) fn exit_of(exited: Option<Exited>) -> Exit {
    match exited {
        Some(Exited { code: Some(code), .. }) => Exit::Code(code),
        Some(Exited { signal: Some(signal), .. }) => Exit::Signal(signal),
        Some(_) | None => Exit::Signal(libc::SIGKILL),
    }
}

/// The kernel has killed for want of memory (R15).
pub(crate) fn memory_kill(pump: &Pump, kills: u64, limit: u64) {
    let processes = if kills == 1 { "1 process".to_owned() } else { format!("{kills} processes") };
    let (limit, kind) = (show_bytes(limit), pump.process_type());
    pump.say(format!(
        "Error R15 (Memory quota vastly exceeded) -> the kernel stopped {processes} at the memory \
         limit of {limit}; more: tolv limits {kind} --memory"
    ));
}

/// A fork was refused: said once each start.
pub(crate) fn fork_refused(pump: &Pump, limit: u64) {
    let kind = pump.process_type();
    pump.say(format!(
        "Error (Process limit reached) -> a fork was refused at the limit of {limit} processes and \
         threads; more: tolv limits {kind} --processes"
    ));
}

/// What is said of a process that holds as much memory as it may have, as Heroku says it (R14).
pub(crate) fn memory_quota(pump: &Pump, held: u64, limit: u64) {
    let percent = held.saturating_mul(1000).checked_div(limit).unwrap_or(0);
    let (whole, tenth) = (percent / 10, percent % 10);
    pump.say(format!("Process running mem={}M({whole}.{tenth}%)", held >> 20));
    pump.say("Error R14 (Memory quota exceeded)");
}

/// What is said of a process whose grace period is over.
pub(crate) fn exit_timeout(grace: Duration) -> String {
    let limit = grace.as_secs_f32();
    format!("Error R12 (Exit timeout) -> Process did not exit within {limit} seconds of SIGTERM")
}

/// Why a process that ended so failed.
pub(crate) fn reason(ended: Option<Ended>) -> Reason {
    let exit = exit_of(ended.map(|ended| ended.exited));
    match exit {
        _ if ended.is_some_and(|ended| ended.out_of_memory) => Reason::OutOfMemory(exit),
        Exit::Code(126 | 127) => Reason::CommandNotFound(exit),
        Exit::Code(_) | Exit::Signal(_) => Reason::Exited(exit),
    }
}

#[cfg(test)]
mod tests;
