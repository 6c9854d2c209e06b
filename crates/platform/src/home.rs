//! The state folder: `.tolv/` in the codebase for `up`, `TOLV_HOME` where that is set.
//!
//! It is its owner's alone: folders 0700, files 0600, whatever the umask was. What processes with
//! uids of their own must see (slugs, layers, toolchains) has modes of its own in it, and is shown
//! to them by mounts.
//!
//! Whoever holds [`Home`] holds its lock: two platforms cannot mix their state.
//! The lock is the kernel's (`flock`), so a killed holder leaves nothing behind; the file's text
//! only tells the second comer who the first is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The file whose lock is held, in the state folder.
pub(crate) const LOCK: &str = "lock";

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
    /// The disk took no writer when it was opened: the lock bears another one's name, or none.
    is_read_only: bool,
}

impl Home {
    /// Makes the folder where it is missing, ignored by git, and takes its lock.
    ///
    /// # Errors
    ///
    /// [`HomeError::Held`] when a living process has it, [`HomeError::Unusable`] otherwise.
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        private_umask();
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Unusable { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(unusable(root))?;
        let root = root.canonicalize().map_err(unusable(root))?;
        tighten(&root).map_err(unusable(&root))?;
        let ignore = root.join(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(unusable(&ignore))?;
        }
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

/// Names of folders whose contents have modes of their own, because processes with other uids see
/// or own them.
const SHOWN: [&str; 5] = ["slugs", "toolchains", "cache", "builds", crate::image::FOLDER];

/// Takes the rights of others away from an existing folder, and from what is in it where they could
/// reach that.
fn tighten(root: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(root)?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    // First: nobody comes in any more.
    match fs::set_permissions(root, fs::Permissions::from_mode(0o700)) {
        // Somebody else's, as a volume of a container may be: what is made in it is ours alone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        tightened => tightened?,
    }
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Another process is at work here; its files are behind a closed door already.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let shown = entry.file_name().to_str().is_some_and(|name| SHOWN.contains(&name));
            if meta.is_dir() && !shown {
                open.push(entry.path());
            }
            let mode = meta.mode() & 0o7777;
            if !meta.is_symlink() && mode & 0o077 != 0 {
                let mode = fs::Permissions::from_mode(mode & 0o700);
                match fs::set_permissions(entry.path(), mode) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
