//! Processes that are what should run, but not as this platform would start them: their shims are of
//! another version of the protocol, or other settings have started them. They answer requests until
//! an ordinary rollout has put others in their place ([`crate::renewal`]).
//!
//! Only what is frozen is known of them and said to them. A shim of another version does not ring
//! when there are lines: the log is looked at now and then.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::board::{Command, Kind};
use crate::connector::Connector;
use crate::foreign::Foreign;
use crate::listening;
use crate::maybe::maybe;
use crate::plan::Plan;
use crate::probe::{Probe, Probed};
use crate::pump::Pump;
use crate::session::exit_timeout;
use crate::shared::Shared;
use crate::target::ProcessState;

/// Between two looks for lines.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks at whether one answers that did not.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// Puts those on the board that are processes of these plans, where nothing else is there for them.
pub(crate) fn take_over(shared: &Arc<Shared>, plans: &[Plan]) {
    let current = shared.board.current();
    for plan in plans.iter().filter(|plan| !current.iter().any(|one| one.plan.is_same(plan))) {
        let Some(orphan) = shared.take_outdated(plan) else { continue };
        // At the end of the engine it goes back to its door.
        let Some(pump) = shared.pump(plan, false) else { return };
        let foreign = match Foreign::adopt(orphan, shared, &pump) {
            Ok(foreign) => foreign,
            Err(why) => {
                pump.say(format!("Process cannot be kept until its replacement is up: {why}"));
                continue;
            }
        };
        let id = shared.board.next_id();
        let Some(commands) = shared.board.add(id, plan, Kind::Outdated) else { return };
        pump.say("Process keeps running as another tolv started it, until its replacement is up");
        let pump = Arc::new(pump);
        let connector = Connector::to(foreign.launched.pid);
        let (engine, plan) = (Arc::clone(shared), plan.clone());
        let outdated = Outdated { shared: engine, id, plan, pump, foreign, connector };
        let probing = outdated.begin();
        shared.tasks.spawn(outdated.run(commands, probing));
    }
}

type Probing = Pin<Box<dyn Future<Output = Probed> + Send>>;

struct Outdated {
    shared: Arc<Shared>,
    id: u64,
    plan: Plan,
    pump: Arc<Pump>,
    foreign: Foreign,
    /// How its port is reached.
    connector: Connector,
}

impl Outdated {
    async fn run(mut self, mut commands: UnboundedReceiver<Command>, probing: Probing) {
        let grace = self.shared.settings.timing.grace;
        let mut probing = Some(probing);
        let mut looks = interval(LOOK);
        let (mut stopping, mut kill_at) = (false, None);
        loop {
            let deaf_at = self.foreign.deaf_at;
            tokio::select! {
                biased;
                exited = self.foreign.exited() => {
                    self.foreign.ended(exited, &self.pump);
                    break;
                }
                // The board keeps the other end for as long as this runs.
                Some(command) = commands.recv() => match command {
                    Command::Keep => {}
                    // It goes back to its door, for the next engine.
                    Command::Leave => break,
                    Command::Stop if stopping => {}
                    Command::Stop => {
                        (stopping, probing) = (true, None);
                        kill_at = Some(Instant::now() + grace);
                        self.pump.say("Stopping all processes with SIGTERM");
                        self.set(ProcessState::Stopping);
                        self.foreign.terminate(grace);
                    }
                    Command::Kill => {
                        (stopping, probing, kill_at) = (true, None, None);
                        self.pump.say("Stopping all processes with SIGKILL");
                        self.set(ProcessState::Stopping);
                        self.foreign.kill();
                    }
                },
                probed = maybe(probing.as_mut()) => probing = self.probed(probed),
                () = maybe(kill_at.map(sleep_until)) => {
                    kill_at = None;
                    self.pump.say(exit_timeout(grace));
                    self.foreign.kill();
                }
                () = maybe(deaf_at.map(sleep_until)) => self.foreign.force(),
                _ = looks.tick() => self.pump.look(),
            }
        }
        self.shared.board.remove(self.id);
        // Where it ended by itself, another starts at once.
        self.shared.renewal.wake();
    }

    fn set(&self, state: ProcessState) {
        self.shared.board.update(self.id, |process| process.state = state);
    }

    /// Says to others how it is reached; looks whether it answers, again and again.
    fn begin(&self) -> Probing {
        let shim = self.foreign.launched.pid;
        self.shared.board.update(self.id, |process| {
            process.address.set_port(self.port());
            process.pid = listening::first_child(shim);
            process.connector = self.connector.clone();
            process.routed = true;
        });
        let (probe, pump) = (self.probe(), Arc::clone(&self.pump));
        Box::pin(async move {
            loop {
                match probe.clone().ready(|why| warn(&pump, why)).await {
                    ready @ Probed::Ready(_) => return ready,
                    Probed::Failed(why) => warn(&pump, why),
                }
                sleep(PROBE_AGAIN).await;
            }
        })
    }

    fn port(&self) -> u16 {
        self.foreign.port.as_ref().map_or(0, |port| port.number)
    }

    fn probe(&self) -> Probe {
        let (shared, plan) = (Arc::clone(&self.shared), self.plan.clone());
        let (connector, was_short) = (self.connector.clone(), Arc::default());
        Probe { shared, plan, port: self.port(), connector, was_short }
    }

    /// It is up and from now on asked whether it lives, or does not any more.
    fn probed(&mut self, probed: Probed) -> Option<Probing> {
        match probed {
            Probed::Ready(address) => {
                self.shared.board.update(self.id, |process| {
                    process.address = address.unwrap_or(process.address);
                    process.state = ProcessState::Up;
                });
                let pump = Arc::clone(&self.pump);
                Some(Box::pin(self.probe().alive(move |why| warn(&pump, why))))
            }
            Probed::Failed(why) => {
                self.pump.say(format!("Error (Health check failed) -> {why}"));
                self.pump.say("Stopping all processes with SIGKILL");
                self.set(ProcessState::Crashed);
                self.foreign.kill();
                None
            }
        }
    }
}

fn warn(pump: &Pump, why: String) {
    pump.say(format!("Warning: health check failed: {why}"));
}
