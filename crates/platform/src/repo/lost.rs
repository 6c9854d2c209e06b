//! Repositories that are gone from the state folder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tolv_model::name::AppName;

use super::{RepoError, Repos};
use crate::platform::lock;

/// Repositories that were made again, since they were gone: empty until the next push. Clones are the
/// same.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Apps, and whether it was told of them.
    apps: Mutex<BTreeMap<AppName, bool>>,
    changed: Notify,
    /// One is made at a time.
    making: Mutex<()>,
}

impl Lost {
    /// Held while a repository is made.
    pub(super) fn making(&self) -> MutexGuard<'_, ()> {
        lock(&self.0.making)
    }

    /// It has commits again, or is no more.
    pub(super) fn forget(&self, app: &AppName) {
        lock(&self.0.apps).remove(app);
    }
}

impl Repos {
    /// Makes an empty repository for an app whose own is gone: whoever pushes has the commits, and what was
    /// released needs none.
    pub(crate) fn require(&self, app: &AppName) -> Result<(), RepoError> {
        if self.dir(app).symlink_metadata().is_ok() {
            return Ok(());
        }
        self.create(app)?;
        lock(&self.lost.0.apps).entry(app.clone()).or_insert(false);
        self.lost.0.changed.notify_one();
        Ok(())
    }

    /// The next app whose repository was gone and is empty now.
    pub(crate) async fn next_lost(&self) -> AppName {
        loop {
            let untold = {
                let mut apps = lock(&self.lost.0.apps);
                let untold = apps.iter_mut().find(|(_, is_told)| !**is_told);
                untold.map(|(app, is_told)| {
                    *is_told = true;
                    app.clone()
                })
            };
            match untold {
                Some(app) => return app,
                None => self.lost.0.changed.notified().await,
            }
        }
    }

    /// Apps whose repositories were gone, and to which nothing was deployed since.
    pub(crate) fn lost(&self) -> Vec<AppName> {
        lock(&self.lost.0.apps).keys().cloned().collect()
    }
}
