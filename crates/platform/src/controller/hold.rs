//! What of a deploy does not hold, at a start.

use tolv_model::ledger::Broken;

use super::Task;
use crate::error::{Error, Kind, chain};

impl Task {
    /// Says that nothing of the deploy is started, and why.
    pub(super) async fn nothing_starts(&self, error: &Error) {
        self.say(format!("Nothing is started: {}", chain(error)));
        self.controller.set_not_started(Some(chain(error)));
        self.platform.report_forged_deploy(&self.controller.place.path, error).await;
    }

    /// Says what does not hold of the deploy's releases, each.
    pub(super) async fn audit(&self) -> Result<(), Error> {
        let store = &self.platform.0.store;
        let ledger = self.platform.audit(&self.id, true).await?;
        for broken in &ledger.broken {
            self.say(match broken {
                Broken::Row { .. } => format!("The deploy does not hold: {broken}"),
                _ => format!("The ledger does not hold: {broken}"),
            });
        }
        if ledger.is_adopted {
            let count = ledger.rows.len();
            let releases = if count == 1 { "release" } else { "releases" };
            self.say(format!(
                "Nothing in this state folder says where the ledger ends: it is taken as it is, \
                 with {count} {releases}"
            ));
        }
        if let Some(last) = ledger.last().filter(|_| ledger.is_ahead) {
            self.say(format!(
                "The ledger continues past the end that this state folder recorded, and every row \
                 holds: it ends at {last}"
            ));
        }
        if (ledger.is_adopted || ledger.is_ahead || ledger.is_row_ahead)
            && let Err(error) = store.record_end(&self.id).await.map_err(Error::from)
        {
            // The next start records it.
            if error.kind() != Kind::Full {
                return Err(error);
            }
            self.say(format!("Where the ledger ends is not recorded: {}", chain(&error)));
        }
        Ok(())
    }
}
