//! Tells when the codebase changed, for `up --watch`.
//!
//! Only folders that a build would read are watched: what git ignores, `.git` and the state
//! folder are left out, so that a build never wakes itself and a large `node_modules` costs
//! nothing. A change is a hint to look, not the news itself: whoever gets it builds, and the slug
//! id says whether anything differs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::WalkBuilder;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A burst of events is one change once it has been quiet this long.
const QUIET: Duration = Duration::from_millis(80);
/// A burst without end is a change after this long.
const LONGEST: Duration = Duration::from_secs(1);

/// The folder cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` cannot be watched for changes")]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// A running watch over one codebase.
#[derive(Debug)]
pub(crate) struct Watch {
    root: PathBuf,
    state: PathBuf,
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    events: mpsc::Receiver<()>,
}

impl Watch {
    /// Starts watching `root`; `state` and everything below it is left out.
    ///
    /// # Errors
    ///
    /// [`WatchError`] when the system refuses (too many watches, an unreadable root).
    pub(crate) fn start(root: &Path, state: &Path) -> Result<Self, WatchError> {
        // Capacity 1: a second hint before the first was looked at says nothing new.
        let (hints, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
                hints.try_send(()).ok();
            }
        })
        .map_err(|source| WatchError { path: root.to_owned(), source })?;
        let mut watch = Self {
            root: root.to_owned(),
            state: state.to_owned(),
            watcher,
            watched: BTreeSet::new(),
            events,
        };
        watch.follow()?;
        Ok(watch)
    }

    /// Waits for the next change, with its burst over. Cancel safe: a hint that was taken is
    /// followed by a look at the whole tree, so a dropped future loses at most one burst's end.
    pub(crate) async fn changed(&mut self) -> Result<(), WatchError> {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let end = Instant::now() + LONGEST;
        while timeout_at(end.min(Instant::now() + QUIET), self.events.recv()).await.is_ok() {
            if Instant::now() >= end {
                break;
            }
        }
        self.follow()
    }

    /// Brings the set of watched folders up to date with the tree.
    fn follow(&mut self) -> Result<(), WatchError> {
        let state = self.state.clone();
        let walk = WalkBuilder::new(&self.root)
            .hidden(false)
            .parents(false)
            .require_git(false)
            .filter_entry(move |entry| {
                entry.file_name() != ".git"
                    && entry.path() != state
                    && tolv_build::odd_ignore_file(entry.path()).is_none()
            })
            .build();
        let folders = walk
            .flatten()
            .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_dir()))
            .map(ignore::DirEntry::into_path);
        // The walk would read it at its root before anything is filtered; the next build says so.
        let folders: BTreeSet<_> = match tolv_build::odd_ignore_file(&self.root) {
            Some(_) => [self.root.clone()].into(),
            None => folders.collect(),
        };
        for gone in self.watched.difference(&folders) {
            // A folder that was removed has taken its watch along.
            self.watcher.unwatch(gone).ok();
        }
        for new in folders.difference(&self.watched) {
            match self.watcher.watch(new, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // It went away between the walk and the watch.
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(source) => return Err(WatchError { path: new.clone(), source }),
            }
        }
        self.watched = folders;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
