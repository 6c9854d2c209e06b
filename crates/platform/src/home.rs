//! The state folder: `.tolv/` in the codebase for `up`, `TOLV_HOME` where that is set.
//!
//! Whoever holds [`Home`] holds its lock: two platforms cannot mix their state.
//! The lock is the kernel's (`flock`), so a killed holder leaves nothing behind; the file's text
//! only tells the second comer who the first is.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The folder, or a file in it, cannot be made.
    #[error("the state folder `{path}` cannot be used")]
    Unusable {
        /// What was touched.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another process holds it.
    #[error("another `tolv` has the state folder: {holder}")]
    Held {
        /// Who, in words.
        holder: String,
    },
}

/// An open, locked state folder. The lock ends with the value, or with the process.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    lock: File,
}

impl Home {
    /// Makes the folder where it is missing, ignored by git, and takes its lock.
    ///
    /// # Errors
    ///
    /// [`HomeError::Held`] when a living process has it, [`HomeError::Unusable`] otherwise.
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Unusable { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o755).create(root).map_err(unusable(root))?;
        let root = root.canonicalize().map_err(unusable(root))?;
        let ignore = root.join(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(unusable(&ignore))?;
        }
        let path = root.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable(&path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { root, lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).map_err(unusable(&path))?;
                let holder = match holder.trim() {
                    "" => "a process that is just starting".to_owned(),
                    holder => holder.to_owned(),
                };
                Err(HomeError::Held { holder })
            }
            Err(errno) => Err(HomeError::Unusable { path, source: errno.into() }),
        }
    }

    /// The folder, absolute and without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes who holds the lock, for the error of a second comer.
    ///
    /// # Errors
    ///
    /// [`HomeError::Unusable`] when the lock file cannot be written.
    pub fn sign(&mut self, holder: &str) -> Result<(), HomeError> {
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{holder}")
        };
        let path = self.root.join("lock");
        write(&mut self.lock).map_err(|source| HomeError::Unusable { path, source })
    }
}

impl Drop for Home {
    /// Wipes the holder's name; the lock itself ends with the file.
    fn drop(&mut self) {
        self.lock.set_len(0).ok();
    }
}

#[cfg(test)]
mod tests;
