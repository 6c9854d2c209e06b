//! What git stored of a push that did not get to its end.
//!
//! git stores a push in `objects/tmp_objdir-incoming-…` and moves it from there once it is accepted.
//! It removes that folder itself, unless it is killed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The repositories with pushes under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantines(Arc<Mutex<HashMap<PathBuf, usize>>>);

/// A push under way. Dropping the last one of a repository removes what killed pushes left.
#[derive(Debug)]
pub(super) struct PushGuard {
    quarantines: Quarantines,
    repository: PathBuf,
}

impl Quarantines {
    /// Counts one more push.
    pub(super) fn begin(&self, repository: &Path) -> PushGuard {
        *self.counts().entry(repository.to_owned()).or_default() += 1;
        PushGuard { quarantines: self.clone(), repository: repository.to_owned() }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<PathBuf, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PushGuard {
    fn drop(&mut self) {
        // Held until everything is removed: no push begins meanwhile.
        let mut counts = self.quarantines.counts();
        let count = counts.entry(self.repository.clone()).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&self.repository);
            remove_quarantines(&self.repository.join("objects"));
        }
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
