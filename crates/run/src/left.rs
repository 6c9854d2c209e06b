//! What another engine has left running, where nobody goes on with it.

use std::sync::Arc;

use crate::foreign::Foreign;
use crate::orphan::{Late, Orphan};
use crate::shared::Shared;

/// Stops what another platform has left running and nobody has gone on with.
pub(crate) fn dismiss(shared: &Arc<Shared>) {
    for orphan in shared.orphans() {
        shared.tasks.spawn(stop(orphan, Arc::clone(shared)));
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
