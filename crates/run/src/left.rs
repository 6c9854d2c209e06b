//! What another engine has left running, where nobody goes on with it.

use std::sync::Arc;

use crate::session::Session;
use crate::shared::Shared;

/// Stops what another platform has left running and nobody has gone on with.
pub(crate) fn dismiss(shared: &Arc<Shared>) {
    for orphan in shared.orphans() {
        let process: Arc<str> = Arc::from(orphan.here.process.as_str());
        let pump = shared.pump_of(Arc::clone(&process), process, orphan.here.release);
        let (Some(pump), shared) = (pump, Arc::clone(shared)) else {
            orphan.kill();
            continue;
        };
        shared.clone().tasks.spawn(async move {
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
        });
    }
}
