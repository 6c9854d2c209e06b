//! One database, one platform: the lease, for as long as this one runs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tolv_store::{Holder, Lease, Store};

use super::error::Error;
use super::platform::{Platform, lock};

/// For the database to say that it is there: what ran before waits for it at a start.
const REACH: Duration = Duration::from_secs(1);

/// Says that another platform has the database now.
#[derive(Debug, Default)]
pub(super) struct Ousted {
    token: CancellationToken,
    by: OnceLock<String>,
}

impl Ousted {
    fn tell(&self, by: String) {
        self.by.set(by).ok();
        self.token.cancel();
    }
}

/// A lease that is held.
#[derive(Debug)]
pub(super) struct Keeper {
    holder: Holder,
    release: CancellationToken,
    /// One.
    task: JoinSet<()>,
}

/// Takes the lease; before it nothing in the database is touched.
pub(super) async fn take(store: &Store) -> Result<Lease, Error> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let holder = Holder { pid: std::process::id(), host, since: Timestamp::now() };
    Ok(store.lease(&holder, REACH).await?)
}

impl Platform {
    /// Holds a lease until [`Platform::release_lease`].
    pub(super) fn hold(&self, lease: Lease) {
        let (holder, release) = (lease.holder().clone(), CancellationToken::new());
        let lease = Arc::new(tokio::sync::Mutex::new(lease));
        let (told, ousted) = (release.clone(), Arc::clone(&self.0.ousted));
        let (kept, mut is_first) = (Arc::clone(&lease), true);
        let keep = move || {
            let is_again = !std::mem::take(&mut is_first);
            let (lease, told, ousted) = (Arc::clone(&kept), told.clone(), Arc::clone(&ousted));
            async move {
                let mut lease = lease.lock().await;
                if is_again {
                    lease.distrust();
                }
                tokio::select! {
                    other = lease.lost() => ousted.tell(other),
                    () = told.cancelled() => {}
                }
            }
        };
        let (panics, ending) = (self.0.panics.clone(), self.0.ending.clone());
        let kept = panics.survive("what keeps the lease".to_owned(), ending, keep, self.teller());
        let mut task = JoinSet::new();
        task.spawn(async move {
            kept.await;
            // Whoever kept it has ended.
            if let Some(lease) = Arc::into_inner(lease) {
                lease.into_inner().release().await;
            }
        });
        self.keep_up("what tells of the lease", Self::tell_lease);
        *lock(&self.0.lease) = Some(Keeper { holder, release, task });
    }

    /// Says when the lease is lost, and when it is held again.
    async fn tell_lease(self) {
        let mut may_write = self.0.store.may_write_changes();
        let tell = async {
            // Its other end is the store's: it is there.
            while may_write.wait_for(|may| !*may).await.is_ok() {
                let lost = "The lease on the database is lost, for the database does not answer or \
                            the connection broke: nothing is written until it is held again";
                self.say(lost.to_owned()).await;
                tokio::select! {
                    back = may_write.wait_for(|may| *may) => {
                        if back.is_err() {
                            return;
                        }
                    }
                    () = self.tell_outages() => {}
                }
                self.say("The database is back, and its lease is held again".to_owned()).await;
            }
        };
        self.0.ending.run_until_cancelled(tell).await;
    }

    /// Says why the database is away, each time that another reason is found.
    async fn tell_outages(&self) {
        let mut outage = self.0.store.outage_changes();
        loop {
            let why = outage.borrow_and_update().clone();
            if let Some(why) = why {
                let kept = "apps keep running, and the API answers 503 (Service Unavailable)";
                self.say(format!("The database cannot be used: {why}; {kept}")).await;
            }
            // Its other end is the store's: it is there.
            if outage.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether the database was there, and was this platform's, since the start.
    pub(super) fn has_lease(&self) -> bool {
        lock(&self.0.lease).is_some()
    }

    /// Who holds the lease; nothing where it was never taken, or is given up.
    pub(super) fn lease_holder(&self) -> Option<Holder> {
        lock(&self.0.lease).as_ref().map(|keeper| keeper.holder.clone())
    }

    /// Which platform has the database now, where it is another one.
    pub(super) fn ousted_by(&self) -> Option<String> {
        let ousted = &self.0.ousted;
        ousted.token.is_cancelled().then(|| ousted.by.get().cloned().unwrap_or_default())
    }

    /// Lets another platform have the database.
    pub(super) async fn release_lease(&self) {
        let keeper = lock(&self.0.lease).take();
        if let Some(Keeper { release, mut task, .. }) = keeper {
            release.cancel();
            // A panic of it has ended the lease too.
            while task.join_next().await.is_some() {}
        }
    }

    /// The database turned out to be another platform's.
    pub(super) fn lose_database(&self, by: String) {
        self.0.ousted.tell(by);
    }

    /// Waits until another platform has the database, as after a long time without a connection to
    /// it, and says which: this one has to end then.
    pub async fn ousted(&self) -> String {
        self.0.ousted.token.cancelled().await;
        self.0.ousted.by.get().cloned().unwrap_or_default()
    }
}
