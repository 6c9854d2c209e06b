//! Locks by name among the programs of a machine. A lock's file is there only while it is held.
//!
//! Who takes a lock looks, once it has it, whether the name still leads to the file that it locked:
//! the one before may have removed that file meanwhile, and then another one is tried. A file is
//! removed by a holder of its lock alone, so nobody loses a lock that it has.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Files that are removed by others right between the opening and the lock, before it is given up.
const TRIES: usize = 64;

/// A lock that nobody else has until this is dropped, or its program is gone.
#[derive(Debug)]
pub struct NamedLock {
    file: File,
    path: PathBuf,
}

impl NamedLock {
    /// Takes a lock; nothing where another has it.
    ///
    /// # Errors
    ///
    /// The file cannot be made, opened or locked.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let mut options = File::options();
        options.create(true).truncate(false).write(true).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW);
        for _ in 0..TRIES {
            let lock = Self { file: options.open(path)?, path: path.to_owned() };
            match lock.lock() {
                Ok(true) => return Ok(Some(lock)),
                // What this one opened is not there any more.
                Ok(false) => lock.leave(),
                Err(error) => {
                    lock.leave();
                    let is_held = error.kind() == io::ErrorKind::WouldBlock;
                    return if is_held { Ok(None) } else { Err(error) };
                }
            }
        }
        Ok(None)
    }

    /// Whether the lock is had on the file that has the name.
    fn lock(&self) -> io::Result<bool> {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(self.has_name())
    }

    fn has_name(&self) -> bool {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(own), Ok(named)) => identity(own) == identity(named),
            _ => false,
        }
    }

    /// Closes the file, and leaves the name to whoever has it.
    fn leave(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for NamedLock {
    fn drop(&mut self) {
        // The lock is still had: nobody takes this file for one that stays.
        if self.has_name() {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Removes the files of locks that nobody has, where their names are meant: a program that was
/// killed has left them. What cannot be removed stays.
pub fn sweep_locks(folder: &Path, is_meant: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !entry.file_name().to_str().is_some_and(&is_meant) {
            continue;
        }
        // It is not made where it is gone meanwhile.
        let path = entry.path();
        let opened = File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let Ok(file) = opened else { continue };
        let lock = NamedLock { file, path };
        match flock(&lock.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => drop(lock),
            Err(_) => lock.leave(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_lock_is_one_programs_and_leaves_no_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("20000");
        let lock = NamedLock::try_take(&path).unwrap().unwrap();
        assert!(NamedLock::try_take(&path).unwrap().is_none());
        assert!(path.exists(), "who was refused leaves the holder's file");
        drop(lock);
        assert!(!path.exists());
        // Of a killed one.
        fs::write(&path, "").unwrap();
        drop(NamedLock::try_take(&path).unwrap().unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_sweep_removes_what_nobody_holds_and_is_meant() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for name in ["lock-1", "lock-2", "other"] {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir(at("lock-folder")).unwrap();
        std::os::unix::fs::symlink(at("other"), at("lock-link")).unwrap();
        let held = NamedLock::try_take(&at("lock-2")).unwrap().unwrap();
        sweep_locks(home.path(), |name| name.starts_with("lock-"));
        let is_there = ["lock-1", "lock-2", "other", "lock-folder"].map(|name| at(name).exists());
        assert_eq!(is_there, [false, true, true, true]);
        assert!(NamedLock::try_take(&at("lock-2")).unwrap().is_none());
        drop(held);
        sweep_locks(&at("missing"), |_| true);
    }

    #[test]
    fn at_no_time_two_have_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let (holders, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (path, holders, taken) = (&path, &holders, &taken);
                scope.spawn(move || {
                    for _ in 0..2000 {
                        if worker == 0 {
                            sweep_locks(path.parent().unwrap(), |_| true);
                        } else if let Some(_lock) = NamedLock::try_take(path).unwrap() {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                            taken.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            holders.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
        assert!(!path.exists());
    }
}
