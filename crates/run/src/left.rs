//! What another engine has left running, where nobody goes on with it.

use std::sync::Arc;

use tolv_model::name::ProcessName;

use crate::foreign::Foreign;
use crate::orphan::{Late, Orphan};
use crate::shared::Shared;

/// Stops what another platform has left running and nobody has gone on with.
pub(crate) fn dismiss(shared: &Arc<Shared>) {
    for orphan in shared.orphans() {
        let dismissed = Dismissed::new(&orphan, shared);
        let stopping = stop(orphan, Arc::clone(shared));
        shared.tasks.spawn(async move {
            let _dismissed = dismissed;
            stopping.await;
        });
    }
}

/// Says for as long as it is there that a process is being stopped.
struct Dismissed {
    process: Option<ProcessName>,
    shared: Arc<Shared>,
}

impl Dismissed {
    fn new(orphan: &Orphan, shared: &Arc<Shared>) -> Self {
        let process = orphan.hello.as_ref().and_then(|hello| hello.process.parse().ok());
        shared.dismissed.send_modify(|all| all.extend(process.clone()));
        Self { process, shared: Arc::clone(shared) }
    }
}

impl Drop for Dismissed {
    fn drop(&mut self) {
        let Some(process) = &self.process else { return };
        self.shared.dismissed.send_modify(|all| {
            if let Some(place) = all.iter().position(|one| one == process) {
                all.swap_remove(place);
            }
        });
    }
}

/// Stops those that have not answered yet as soon as they do: others run in their place by then.
pub(crate) fn stop_late(shared: &Arc<Shared>, late: Vec<Late>) {
    for late in late {
        let shared = Arc::clone(shared);
        shared.clone().tasks.spawn(async move {
            // At the end of this engine they are the next one's.
            let answer = shared.ending.run_until_cancelled(late.answer()).await;
            if let Some(orphan) = answer.flatten() {
                let _dismissed = Dismissed::new(&orphan, &shared);
                stop(orphan, Arc::clone(&shared)).await;
            }
        });
    }
}

async fn stop(orphan: Orphan, shared: Arc<Shared>) {
    let hello = orphan.hello.as_ref();
    let process: Arc<str> = Arc::from(hello.map_or("platform", |hello| hello.process.as_str()));
    let release = hello.map_or(0, |hello| hello.release);
    let pump = shared.pump_of(Arc::clone(&process), process, release);
    let Some(pump) = pump else { return orphan.kill() };
    pump.say("Process went on without the platform, and is not wanted any more");
    let is_told = orphan.hello.as_ref().is_some_and(|hello| hello.stopping);
    // What cannot be stopped in order was killed.
    let Ok(mut foreign) = Foreign::adopt(orphan, &shared, &pump) else { return };
    let grace = shared.settings.timing.grace;
    if !is_told {
        pump.say("Stopping all processes with SIGTERM");
        foreign.terminate(grace);
    }
    foreign.end(grace, &shared.killed, &pump).await;
}
