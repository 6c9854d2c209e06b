//! What pushes leave in a repository besides what they were for.
//!
//! git stores a push in `objects/tmp_objdir-incoming-…` and moves it from there once it is accepted.
//! It removes that folder itself, unless it is killed. What was accepted and then refused by the
//! platform, as where a deploy fails, stays among the objects: nobody knows which are needed until no
//! push is under way.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tolv_model::name::AppName;

/// The repositories with pushes under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantines(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    busy: Mutex<HashMap<PathBuf, Busy>>,
    /// Nobody is alone with one of them any more.
    freed: Condvar,
    /// Those that are to be tidied.
    untidy: Mutex<BTreeSet<AppName>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Busy {
    /// Pushes under way.
    pushes: usize,
    /// Whether one of them was refused.
    is_untidy: bool,
    /// No push may begin.
    is_alone: bool,
    /// Bytes that they have brought.
    fed: Arc<AtomicU64>,
}

/// A push under way. Dropping the last one of a repository removes what killed pushes left.
#[derive(Debug)]
pub(super) struct PushGuard {
    quarantines: Quarantines,
    repository: PathBuf,
    app: AppName,
    fed: Arc<AtomicU64>,
}

/// As long as it is there no push to a repository is under way.
#[derive(Debug)]
pub(super) struct Alone {
    quarantines: Quarantines,
    repository: PathBuf,
}

impl Quarantines {
    /// Counts one more push; nothing where somebody is alone with the repository for so long.
    pub(super) fn begin(
        &self,
        app: &AppName,
        repository: &Path,
        most: Duration,
    ) -> Option<PushGuard> {
        let is_alone = |busy: &mut HashMap<PathBuf, Busy>| {
            busy.get(repository).is_some_and(|repository| repository.is_alone)
        };
        let waited = self.0.freed.wait_timeout_while(self.busy(), most, is_alone);
        let (mut busy, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if is_alone(&mut busy) {
            return None;
        }
        let found = busy.entry(repository.to_owned()).or_default();
        found.pushes += 1;
        let (quarantines, app, fed) = (self.clone(), app.clone(), Arc::clone(&found.fed));
        Some(PushGuard { quarantines, repository: repository.to_owned(), app, fed })
    }

    /// Keeps pushes out, unless there are some.
    pub(super) fn alone(&self, repository: &Path) -> Option<Alone> {
        let mut busy = self.busy();
        let found = busy.entry(repository.to_owned()).or_default();
        if found.pushes > 0 || found.is_alone {
            return None;
        }
        found.is_alone = true;
        Some(Alone { quarantines: self.clone(), repository: repository.to_owned() })
    }

    /// The next repository in which something refused is left.
    pub(super) async fn untidy(&self) -> AppName {
        loop {
            let changed = self.0.changed.notified();
            let first = self.0.untidy.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            match first {
                Some(app) => return app,
                None => changed.await,
            }
        }
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<PathBuf, Busy>> {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PushGuard {
    /// Counts what all pushes that are under way have brought.
    pub(super) fn fed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.fed)
    }

    /// The push leaves something that nobody needs: it was refused, or removed something.
    pub(super) fn mark_untidy(&self) {
        if let Some(found) = self.quarantines.busy().get_mut(&self.repository) {
            found.is_untidy = true;
        }
    }
}

impl Drop for PushGuard {
    fn drop(&mut self) {
        let is_untidy = {
            let mut busy = self.quarantines.busy();
            let found = busy.entry(self.repository.clone()).or_default();
            found.pushes = found.pushes.saturating_sub(1);
            if found.pushes > 0 {
                return;
            }
            found.is_alone = true;
            std::mem::take(&mut found.is_untidy)
        };
        let (quarantines, repository) = (self.quarantines.clone(), self.repository.clone());
        let alone = Alone { quarantines, repository };
        remove_quarantines(&self.repository.join("objects"));
        drop(alone);
        if is_untidy {
            let inner = &self.quarantines.0;
            let mut untidy = inner.untidy.lock().unwrap_or_else(PoisonError::into_inner);
            untidy.insert(self.app.clone());
            inner.changed.notify_one();
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.quarantines.busy().remove(&self.repository);
        self.quarantines.0.freed.notify_all();
    }
}

/// Removes what killed pushes left. The repository is a stranger's: a link in the place of its
/// folder is not followed.
fn remove_quarantines(objects: &Path) {
    if !objects.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return;
    }
    let Ok(entries) = fs::read_dir(objects) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Older versions of git use the second name.
        if name.starts_with("tmp_objdir-") || name.starts_with("incoming-") {
            // What cannot be removed is tried again after the next push, and by git after a day.
            super::remove(&entry.path()).ok();
        }
    }
}
