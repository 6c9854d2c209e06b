//! Drains: a deploy's lines go to receivers elsewhere too, each at its own pace.
//!
//! ```text
//!  API ─▶ store: rows ─▶ task of the deploy ─▶ a thread a drain: log ─▶ encoder ─▶ receiver
//!                          ▲   │ at most once a second            │  └─▶ a file beside the log:
//!                          └───┴── how far it has come ◀──────────┘      each batch
//! ```
//!
//! A thread a drain, because all that a drain does is wait: for lines, for a receiver that hangs,
//! for the next try. It reads the log as any reader does, so that no app and no other drain waits
//! for it. What it has done lies in a snapshot that others look at; nobody waits for the thread,
//! which may be stuck in a receiver's silence.
//!
//! # Invariants
//!
//! * What is recorded is behind what the receiver has: each line goes out at least once, whatever
//!   ends the platform. Behind that in turn is recorded what was tried, before it is: what goes out
//!   again is counted.
//! * Lines that the log had no room for any more are counted, and said to the receiver where they
//!   are missing.
//! * No text about a drain has the secrets of its URL in it.

mod bell;
mod fault;
mod http;
mod reach;
mod sender;
mod stream;
mod trail;
mod trust;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tolv_logs::drain::DrainUrl;
use tolv_logs::store::{self, Reader};
use tolv_model::id::{DeployId, DrainId};
use tolv_model::name::Deploy as DeployPath;
use tolv_run::Log;
use tolv_store::DrainProgress;

use self::fault::Fault;
use self::reach::Reach;
use self::sender::{Sender, Snapshot};
use super::error::Error;
use super::platform::{Platform, blocking};

/// Drains of one deploy.
const MOST: usize = 20;
/// Between two looks for new lines, so that many go at once.
const LINGER: Duration = Duration::from_millis(25);
/// Between two records of how far drains have come.
const SAVE: Duration = Duration::from_secs(1);
/// For drains to end, a little more than what is under way has for it; one that is stuck is left to itself.
const END: Duration = Duration::from_secs(1);

/// One drain, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Which.
    pub id: DrainId,
    /// Where to; printed, it has no secrets.
    pub url: DrainUrl,
    /// When it was made.
    pub created: Timestamp,
    /// `failing` (the last try failed), `connecting` (the first try since the start is under way), or
    /// `up`.
    pub state: &'static str,
    /// Lines that were sent.
    pub sent: u64,
    /// Of those, the last ones: the receiver may not have them yet.
    pub under_way: u64,
    /// Lines that were sent more than once.
    pub retried: u64,
    /// Lines that could not be sent any more.
    pub dropped: u64,
    /// Bytes of the log that are still to be sent.
    pub behind: u64,
    /// The last error, and when it was.
    pub error: Option<(String, Timestamp)>,
}

/// The drains of one deploy.
pub(super) struct Drains {
    running: Mutex<HashMap<DrainId, Running>>,
    /// There are others than before.
    look: Notify,
    gone: CancellationToken,
    ended: CancellationToken,
}

/// One that has a thread.
struct Running {
    bell: Arc<bell::Bell>,
    now: Arc<Mutex<Snapshot>>,
    trail: Arc<Mutex<trail::Trail>>,
    saved: DrainProgress,
}

impl Running {
    /// Whatever its thread still does is recorded nowhere.
    fn close(&self) {
        self.trail.lock().unwrap_or_else(PoisonError::into_inner).close();
    }

    fn progress(&self) -> DrainProgress {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).progress()
    }
}

impl Drains {
    pub(super) fn new() -> Self {
        Self {
            running: Mutex::default(),
            look: Notify::new(),
            gone: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<DrainId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run, and how many of them failed at their last try.
    pub(super) fn counts(&self) -> (usize, usize) {
        let running = self.running();
        let fails =
            |running: &&Running| running.now.lock().unwrap_or_else(PoisonError::into_inner).fails;
        (running.len(), running.values().filter(fails).count())
    }

    /// Waits until how far each has come is recorded, after the platform began to end.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Nobody keeps them in step any more.
    pub(super) fn give_up(&self) {
        self.ended.cancel();
    }

    /// Ends them all, for the deploy is destroyed.
    pub(super) async fn stop(&self) {
        self.gone.cancel();
        self.ended().await;
    }

    /// Keeps the threads in step with the rows until the platform ends.
    pub(super) async fn run(
        self: Arc<Self>,
        platform: Platform,
        deploy: DeployId,
        path: DeployPath,
        log: Log,
    ) {
        let until = async {
            tokio::select! {
                () = platform.0.ending.cancelled() => {}
                () = self.gone.cancelled() => {}
            }
        };
        tokio::select! {
            () = until => {}
            () = self.follow(&platform, &deploy, &path, &log) => {}
        }
        for running in self.running().values() {
            running.bell.stop();
        }
        let deadline = Instant::now() + END;
        let bells: Vec<_> =
            self.running().values().map(|running| Arc::clone(&running.bell)).collect();
        for bell in bells {
            timeout_at(deadline, bell.ended()).await.ok();
        }
        self.running().values().for_each(Running::close);
        self.save(&platform).await;
        self.ended.cancel();
    }

    async fn follow(&self, platform: &Platform, deploy: &DeployId, path: &DeployPath, log: &Log) {
        let mut stored = log.stored();
        let mut tick = interval(SAVE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = true;
        loop {
            if look {
                look = !self.reconcile(platform, deploy, path, log).await;
            }
            let some = !self.running().is_empty();
            tokio::select! {
                Ok(()) = stored.changed(), if some => {
                    for running in self.running().values() {
                        running.bell.ring();
                    }
                    sleep(LINGER).await;
                }
                _ = tick.tick(), if some || look => self.save(platform).await,
                () = self.look.notified() => look = true,
            }
        }
    }

    /// Starts and ends threads until they are those of the rows; false where those cannot be read
    /// now.
    async fn reconcile(
        &self,
        platform: &Platform,
        deploy: &DeployId,
        path: &DeployPath,
        log: &Log,
    ) -> bool {
        let rows = match platform.0.store.drains(deploy).await {
            Ok(rows) => rows,
            Err(error) if error.is_unavailable() => return false,
            Err(error) => {
                platform.say(format!("The drains of {path} cannot be read: {error}")).await;
                return true;
            }
        };
        let services = &platform.0.options.host_services;
        let mut running = self.running();
        running.retain(|id, running| {
            let stays = rows.iter().any(|row| row.id == *id);
            if !stays {
                running.bell.stop();
                running.close();
            }
            stays
        });
        for row in rows {
            let Entry::Vacant(entry) = running.entry(row.id.clone()) else { continue };
            let saved = row.progress.clone();
            let Some(sender) = Sender::new(row, path, log.clone(), services) else { continue };
            let (bell, now, trail) = sender.handles();
            if sender.start() {
                entry.insert(Running { bell, now, trail, saved });
            }
        }
        true
    }

    async fn save(&self, platform: &Platform) {
        let all: Vec<_> = self
            .running()
            .iter()
            .map(|(id, running)| (id.clone(), running.progress(), running.saved.clone()))
            .collect();
        for (id, now, saved) in all {
            // One that is not recorded now is the next time.
            if now != saved
                && platform.0.store.set_drain_progress(&id, &now).await.is_ok()
                && let Some(running) = self.running().get_mut(&id)
            {
                running.saved = now;
            }
        }
    }
}

/// Refuses a drain that cannot work. A host's name is looked up when the drain connects.
fn check(url: &DrainUrl, reach: &Reach) -> Result<(), Fault> {
    if url.ca.is_some() && !reach.by_operator {
        return Err(Fault::CertificatesOfOperator);
    }
    if let Ok(ip) = url.host.parse::<IpAddr>() {
        reach.check(&url.host, std::iter::once(SocketAddr::new(ip, url.port)))?;
    }
    if url.tls {
        trust::roots(url.ca.as_deref())?;
    }
    Ok(())
}

impl Platform {
    /// Sends the lines of a deploy to a receiver too, from now on. Only the drain of an operator may
    /// name a file of this machine and go to this machine.
    ///
    /// # Errors
    ///
    /// There are too many, the file with its certificates cannot be used, or the drain may not go
    /// there.
    pub async fn add_drain(
        &self,
        path: &DeployPath,
        url: DrainUrl,
        by_operator: bool,
    ) -> Result<Drain, Error> {
        self.on()?;
        let deploy = self.0.store.deploy(path).await?;
        let folder = self.log_folder(&deploy.id);
        let checked = url.clone();
        let reach = Reach { by_operator, services: self.0.options.host_services.clone() };
        let place = blocking(move || {
            check(&checked, &reach).map_err(|fault| Error::Drain {
                url: checked.to_string(),
                why: fault.to_string(),
            })?;
            let reader = Reader::at_end(&folder).map(|reader| sender::place(reader.position()));
            reader.map_err(|source| Error::System { what: "read a deploy's log", source })
        })
        .await?;
        let now = Timestamp::now();
        let store = &self.0.store;
        let text = url.secret_text();
        let made = store.add_drain(&deploy.id, text, by_operator, &place, MOST, now).await?;
        self.look_at_drains(&deploy.id);
        Ok(Drain {
            id: made.id,
            url,
            created: made.created,
            state: "up",
            sent: 0,
            under_way: 0,
            retried: 0,
            dropped: 0,
            behind: 0,
            error: None,
        })
    }

    /// The drains of a deploy, the oldest first.
    ///
    /// # Errors
    ///
    /// There is no such deploy.
    pub async fn drains(&self, path: &DeployPath) -> Result<Vec<Drain>, Error> {
        let deploy = self.0.store.deploy(path).await?;
        let rows = self.0.store.drains(&deploy.id).await?;
        let controller = self.controllers().get(&deploy.id).cloned();
        let folder = self.log_folder(&deploy.id);
        let mut found = Vec::new();
        for row in rows {
            let Ok(url) = row.url.parse::<DrainUrl>() else { continue };
            let now = controller.as_ref().and_then(|controller| {
                let running = controller.drains.running();
                let now = &running.get(&row.id)?.now;
                Some(now.lock().unwrap_or_else(PoisonError::into_inner).clone())
            });
            let now = match now {
                Some(now) => now,
                None => Snapshot::of(&row.progress),
            };
            let cursor = now.head_at;
            let folder = folder.clone();
            let behind = blocking(move || {
                store::behind(&folder, cursor)
                    .map_err(|source| Error::System { what: "read a deploy's log", source })
            });
            found.push(Drain {
                id: row.id,
                url,
                created: row.created,
                state: match (now.fails, now.connects) {
                    (true, _) => "failing",
                    (false, true) => "connecting",
                    (false, false) => "up",
                },
                sent: now.sent,
                under_way: now.sent.saturating_sub(now.settled.sent),
                retried: now.retried,
                dropped: now.dropped,
                behind: behind.await?,
                error: now.error,
            });
        }
        Ok(found)
    }

    /// Ends a drain; what its receiver does not have yet is not sent any more.
    ///
    /// # Errors
    ///
    /// The deploy has no such drain.
    pub async fn remove_drain(&self, path: &DeployPath, id: &DrainId) -> Result<(), Error> {
        let deploy = self.0.store.deploy(path).await?;
        self.0.store.remove_drain(&deploy.id, id).await?;
        if let Some(controller) = self.controllers().get(&deploy.id)
            && let Some(running) = controller.drains.running().remove(id)
        {
            running.bell.stop();
            running.close();
        }
        let folder = self.log_folder(&deploy.id);
        let gone = id.clone();
        blocking(move || {
            trail::remove(&folder, &gone);
            Ok::<_, Error>(())
        })
        .await?;
        // One that was not running yet.
        self.look_at_drains(&deploy.id);
        Ok(())
    }

    fn look_at_drains(&self, deploy: &DeployId) {
        if let Some(controller) = self.controllers().get(deploy) {
            controller.drains.look.notify_one();
        }
    }
}
