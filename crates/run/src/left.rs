//! What another engine has left running, where nobody goes on with it.

use std::sync::Arc;

use crate::orphan::{Late, Orphan};
use crate::session::Session;
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
    let process: Arc<str> = Arc::from(orphan.here.process.as_str());
    let pump = shared.pump_of(Arc::clone(&process), process, orphan.here.release);
    let Some(pump) = pump else { return orphan.kill() };
    pump.say("Process went on without the platform, and is not wanted any more");
    let is_told = orphan.here.stopping;
    // What cannot be stopped in order was killed.
    let Ok(mut session) = Session::adopt(orphan, &shared, &pump) else { return };
    let grace = shared.settings.timing.grace;
    if !is_told {
        pump.say("Stopping all processes with SIGTERM");
        session.terminate(grace);
    }
    session.end(grace, &shared.killed, &pump).await;
}
