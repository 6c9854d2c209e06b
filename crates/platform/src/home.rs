//! The state folder: `.tolv/` in the codebase for `up`, `TOLV_HOME` where that is set.
//!
//! It is its owner's alone: folders 0700, files 0600, whatever the umask was. What processes with
//! uids of their own must see (slugs, layers, toolchains) has modes of its own in it, and is shown
//! to them by mounts.
//!
//! Whoever holds [`Home`] holds its lock: two platforms cannot mix their state.
//! The lock is the kernel's (`flock`), so a killed holder leaves nothing behind; the file's text
//! only tells the second comer who the first is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tolv_build::{StateFolder, StateFolderError};

/// The file whose lock is held, in the state folder.
pub(crate) const LOCK: &str = "lock";

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The folder may not be used.
    #[error(transparent)]
    Folder(#[from] StateFolderError),
    /// A file in it cannot be made.
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
    /// The disk took no writer when it was opened: the lock bears another one's name, or none.
    is_read_only: bool,
}

impl Home {
    /// Claims the folder, which makes it where it is missing, and takes its lock.
    ///
    /// # Errors
    ///
    /// [`HomeError::Held`] when a living process has it, [`HomeError::Folder`] when it may not be used,
    /// [`HomeError::Unusable`] otherwise.
    pub fn open(folder: &StateFolder) -> Result<Self, HomeError> {
        private_umask();
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Unusable { path, source }
        };
        let root = folder.claim()?;
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        let options = options.create(true).read(true).write(true).truncate(false).mode(0o600);
        let opened = options.open(&path).map(|lock| (lock, false));
        let opened = match opened {
            // A lock writes nothing: what ran before is brought back on a read-only disk too.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                File::open(&path).map(|lock| (lock, true))
            }
            opened => opened,
        };
        let (mut lock, is_read_only) = opened.map_err(unusable(&path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { root, lock, is_read_only }),
            Err(rustix::io::Errno::WOULDBLOCK) if is_read_only => {
                let holder = "a process that could not write its name, for the disk is read-only";
                Err(HomeError::Held { holder: holder.to_owned() })
            }
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

    /// Writes who holds the lock, for the error of a second comer; on a read-only disk nothing.
    ///
    /// # Errors
    ///
    /// [`HomeError::Unusable`] when the lock file cannot be written.
    pub fn sign(&mut self, holder: &str) -> Result<(), HomeError> {
        if self.is_read_only {
            return Ok(());
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{holder}")
        };
        let path = self.root.join(LOCK);
        write(&mut self.lock).map_err(|source| HomeError::Unusable { path, source })
    }
}

impl Drop for Home {
    /// Wipes the holder's name; the lock itself ends with the file.
    fn drop(&mut self) {
        self.lock.set_len(0).ok();
    }
}

/// Makes every file that this process creates from here on its owner's alone, unless it is given
/// another mode by name.
pub fn private_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

#[cfg(test)]
mod tests;
