//! Build folders: `<home>/builds/<n>`, each with a lock beside it that its build holds.
//!
//! A folder whose lock is free belongs to nobody: its build was killed. The next build removes it.
//! The lowest free number is taken, so that paths repeat where a build sees the host's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Error;
use crate::files::{self, Lock};

/// How long the end of a build takes to remove its folder, on a disk that may be busy; and of one that
/// was cancelled, whose user waits.
const CLEANING: Duration = Duration::from_secs(10);
const CLEANING_SOON: Duration = Duration::from_secs(1);

/// A build's own folder, removed with the value.
#[derive(Debug)]
pub(crate) struct Slot {
    folder: PathBuf,
    cleaning: Duration,
    _lock: Lock,
}

impl Slot {
    /// Takes a folder in `builds`, and removes those that killed builds left.
    pub(crate) fn take(builds: &Path) -> Result<Self, Error> {
        Self::take_until(builds, &|| false)
    }

    /// As [`Slot::take`], unless `stop` says so meanwhile.
    pub(crate) fn take_until(builds: &Path, stop: &dyn Fn() -> bool) -> Result<Self, Error> {
        files::make_folder(builds)?;
        let list = fs::read_dir(builds).map_err(Error::io("read", builds))?;
        let numbers = list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let left: Vec<u32> = numbers.collect();
        let mut slot = None;
        for number in 1..=left.iter().max().copied().unwrap_or(0).saturating_add(1) {
            let lock = builds.join(format!("{number}.lock"));
            let folder = builds.join(number.to_string());
            if slot.is_some() && !left.contains(&number) {
                continue;
            }
            let Some(lock) = Lock::try_take(&lock)? else { continue };
            files::remove_until(&folder, stop)?;
            if slot.is_none() {
                files::make_folder(&folder)?;
                slot = Some(Self { folder, cleaning: CLEANING, _lock: lock });
            }
        }
        // Every number known was held, or somebody was quicker: one more look finds a new one.
        slot.map_or_else(|| Self::take_until(builds, stop), Ok)
    }

    /// Lets nobody wait long for its end: what is left then is removed by the next build.
    pub(crate) fn end_soon(&mut self) {
        self.cleaning = CLEANING_SOON;
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next build.
        let end = Instant::now() + self.cleaning;
        files::remove_until(&self.folder, &|| Instant::now() > end).ok();
    }
}

#[cfg(test)]
mod tests;
