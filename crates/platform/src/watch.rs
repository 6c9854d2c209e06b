//! Tells when the codebase changed, for `up --watch`.
//!
//! Only folders that a build would read are watched: what git ignores, `.git` and the state
//! folder are left out, so that a build never wakes itself and a large `node_modules` costs
//! nothing. A change is a hint to look, not the news itself: whoever gets it builds, and the slug
//! id says whether anything differs.
//!
//! The kernel watches a folder, not a path. Where the folder of the codebase is renamed or removed,
//! that is told, and the path is looked at until a folder is there again, whichever it is: that one
//! is watched from then on.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::WalkBuilder;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

/// A burst of events is one change once it has been quiet this long.
const QUIET: Duration = Duration::from_millis(80);
/// A burst without end is a change after this long.
const LONGEST: Duration = Duration::from_secs(1);
/// Between two looks at which folder is at the path of the codebase: a rename of a folder above it
/// is no event of its own.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The folder cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` cannot be watched for changes")]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// What a watch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Something may differ.
    Change,
    /// The folder of the codebase is not at its path any more.
    Gone,
    /// A folder is there again.
    Back,
}

/// A running watch over one codebase.
#[derive(Debug)]
pub(crate) struct Watch {
    root: PathBuf,
    state: PathBuf,
    /// The device and the inode of the folder that is watched; nothing while there is none.
    identity: Option<(u64, u64)>,
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    hints: mpsc::Sender<()>,
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
        let watcher = watcher(root, hints.clone())?;
        let mut watch = Self {
            root: root.to_owned(),
            state: state.to_owned(),
            identity: identity_of(root),
            watcher,
            watched: BTreeSet::new(),
            hints,
            events,
        };
        watch.follow()?;
        Ok(watch)
    }

    /// Waits for the next change, with its burst over. Cancel safe: a hint that was taken is
    /// followed by a look at the whole tree, so a dropped future loses at most one burst's end.
    pub(crate) async fn changed(&mut self) -> Result<Seen, WatchError> {
        if self.identity.is_none() {
            while identity_of(&self.root).is_none() {
                sleep(LOOK_INTERVAL).await;
            }
            self.begin_again()?;
            // Whoever copies it back may not be done yet.
            self.burst().await;
            self.follow()?;
            return Ok(Seen::Back);
        }
        loop {
            tokio::select! {
                // This keeps a sender: there is always a hint to wait for.
                _ = self.events.recv() => {
                    self.burst().await;
                    break;
                }
                () = sleep(LOOK_INTERVAL) => {
                    if identity_of(&self.root) != self.identity {
                        break;
                    }
                }
            }
        }
        match identity_of(&self.root) {
            None => {
                self.identity = None;
                return Ok(Seen::Gone);
            }
            found if found != self.identity => self.begin_again()?,
            _ => self.follow()?,
        }
        Ok(Seen::Change)
    }

    /// Waits until it has been quiet for a moment.
    async fn burst(&mut self) {
        let end = Instant::now() + LONGEST;
        while timeout_at(end.min(Instant::now() + QUIET), self.events.recv()).await.is_ok() {
            if Instant::now() >= end {
                break;
            }
        }
    }

    /// Watches the folder that is at the path now, and the one before no more.
    fn begin_again(&mut self) -> Result<(), WatchError> {
        self.watcher = watcher(&self.root, self.hints.clone())?;
        self.watched.clear();
        self.identity = identity_of(&self.root);
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
        // Those that were watched too: the folder at a path may be another one by now, and to watch
        // the same one again changes nothing.
        for folder in &folders {
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // It went away between the walk and the watch.
                Err(_) if !folder.exists() => {}
                Err(source) => return Err(WatchError { path: folder.clone(), source }),
            }
        }
        self.watched = folders;
        Ok(())
    }
}

fn watcher(root: &Path, hints: mpsc::Sender<()>) -> Result<RecommendedWatcher, WatchError> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            hints.try_send(()).ok();
        }
    });
    watcher.map_err(|source| WatchError { path: root.to_owned(), source })
}

/// Which folder is at a path.
fn identity_of(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests;
