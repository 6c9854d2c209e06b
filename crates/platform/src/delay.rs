//! A start while the database is unreachable, or the disk takes nothing: what waits for them.

use std::sync::Arc;

use tokio::time::sleep;

use super::error::{Error, Kind};
use super::lease::take;
use super::origin::require_own_database;
use super::platform::Platform;

/// Between two tries of a database that was away at the start.
const AWAY: std::time::Duration = std::time::Duration::from_secs(1);

/// Whether a start goes on without what failed, and tries it again.
pub(super) fn is_delay(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Full)
}

impl Platform {
    /// Waits for a database that was unreachable at the start, or for the disk.
    pub(super) async fn catch_up(self, delay: Arc<Error>) {
        let ready = async || {
            // Taken already where it was the disk.
            if !self.has_lease() {
                self.hold(take(&self.0.store).await?);
            }
            if !self.0.prepared.is_cancelled() {
                require_own_database(&self.0.home, &self.0.store).await?;
                self.0.store.prepare().await?;
                self.0.prepared.cancel();
            }
            self.0.repos.set_up()?;
            self.control_all().await
        };
        let (begin, end) = match delay.kind() {
            Kind::Full => (
                format!(
                    "{}: apps that ran before are running; the rest waits for the disk, and is \
                     tried again every second",
                    delay.chain().replacen("the disk", "The disk", 1)
                ),
                "The disk takes files again",
            ),
            _ => {
                let (what, end) = match &*delay {
                    Error::Store(tolv_store::Error::ReadOnlyDatabase) => {
                        ("The database is read-only", "The database takes writes again")
                    }
                    _ => ("The database is away", "The database is back"),
                };
                let why = delay.chain();
                (format!("{what}: what ran before runs, the API waits ({why})"), end)
            }
        };
        self.say(begin).await;
        let mut said = String::new();
        while let Err(error) = ready().await {
            if let Error::Store(tolv_store::Error::Held(by)) = error {
                return self.lose_database(by);
            }
            if !is_delay(&error) {
                let mut text = format!("The database cannot be used: {}", error.chain());
                if let Some(hint) = error.hint() {
                    text = format!("{text}. To do: {hint}");
                }
                if text != said {
                    self.say(text.clone()).await;
                    said = text;
                }
            }
            if self.0.ending.run_until_cancelled(sleep(AWAY)).await.is_none() {
                return;
            }
        }
        self.say(end.to_owned()).await;
    }
}
