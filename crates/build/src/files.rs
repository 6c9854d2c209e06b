//! Work on trees of files whose contents nobody vouches for: no symbolic link is ever followed.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use sha2::{Digest as _, Sha256};
use tolv_model::slug::Digest;

use crate::Error;

/// Opens a regular file for reading; a link or a pipe in its place is an error, not a trap.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Reads all of `from`, hashing it on the way to `to`.
pub(crate) fn pour(mut from: impl Read, mut to: impl Write) -> io::Result<(Digest, u64)> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((Digest(hash.finalize().into()), size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        size += count as u64;
    }
}

/// Whether the owner may execute it: the one mode bit that a slug keeps.
pub(crate) fn is_executable(meta: &Metadata) -> bool {
    meta.permissions().mode() & 0o100 != 0
}

/// Sets a mode exactly, whatever the umask is.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io("chmod", path))
}

/// Makes a folder and those above it where missing.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// One thing of a tree.
#[derive(Debug)]
pub(crate) struct Found {
    /// Relative to the tree's root, `/` between parts.
    pub(crate) path: Vec<u8>,
    /// On the host.
    pub(crate) full: PathBuf,
    /// Of the thing itself, never of a link's target.
    pub(crate) meta: Metadata,
}

/// Everything below `root`, a folder before what is in it, sorted by name. `enter` decides about
/// each folder before it is read, and may change its mode.
pub(crate) fn walk(
    root: &Path,
    enter: &mut dyn FnMut(&Found) -> Result<bool, Error>,
) -> Result<Vec<Found>, Error> {
    let mut all = Vec::new();
    let mut open = vec![(root.to_owned(), Vec::new())];
    while let Some((folder, prefix)) = open.pop() {
        let list = fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
        let mut names = list
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(Error::io("read", &folder))?;
        names.sort();
        for name in names {
            let full = folder.join(&name);
            let meta = full.symlink_metadata().map_err(Error::io("read", &full))?;
            let mut path = prefix.clone();
            path.extend_from_slice(name.as_bytes());
            let found = Found { path, full, meta };
            if found.meta.is_dir() && enter(&found)? {
                open.push((found.full.clone(), [&found.path, &b"/"[..]].concat()));
            }
            all.push(found);
        }
    }
    Ok(all)
}

/// Bytes on disk below `root`; things that vanish meanwhile count as nothing.
pub(crate) fn disk_use(root: &Path) -> u64 {
    let mut total = 0;
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(list) = fs::read_dir(&folder) else { continue };
        for entry in list.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            total += meta.blocks() * 512;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    total
}

/// Removes a tree, whatever modes its folders have; nothing there is fine.
pub(crate) fn remove(root: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(root) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return fs::remove_file(root).map_err(Error::io("remove", root));
        }
        Err(_) => {}
    }
    // A folder without write or search permission keeps its contents: open them all first.
    set_mode(root, 0o700)?;
    walk(root, &mut |found| set_mode(&found.full, 0o700).map(|()| true))?;
    fs::remove_dir_all(root).map_err(Error::io("remove", root))
}

/// A file lock that ends with the value, or with the process.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held open: closing it unlocks")] File);

impl Lock {
    fn file(path: &Path) -> Result<File, Error> {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io("lock", path))
    }

    /// The lock, unless somebody else has it.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        let file = Self::file(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::io("lock", path)(errno.into())),
        }
    }

    /// Waits for the lock; `waiting` is told once when there is a wait.
    pub(crate) fn take(
        path: &Path,
        cancelled: &dyn Fn() -> bool,
        waiting: &mut dyn FnMut(),
    ) -> Result<Self, Error> {
        let mut told = false;
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            if cancelled() {
                return Err(Error::Cancelled);
            }
            if !told {
                waiting();
                told = true;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    // Two builds of one process may write the same file.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let next = PathBuf::from(name);
    let write = || {
        let mut file = File::create(&next)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&next, path)
    };
    write().map_err(|error| {
        fs::remove_file(&next).ok();
        Error::io("write", path)(error)
    })
}

/// Makes a symbolic link, in place of one that is there, so that there always is one.
pub(crate) fn write_link(path: &Path, target: &Path) -> Result<(), Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let next = PathBuf::from(name);
    let write = || {
        std::os::unix::fs::symlink(target, &next)?;
        fs::rename(&next, path)
    };
    write().map_err(|error| {
        fs::remove_file(&next).ok();
        Error::io("create", path)(error)
    })
}

/// Lets everybody read a tree, and nobody but its owner write it, whatever the umask was when it
/// was made: processes with uids of their own see it.
pub(crate) fn show(root: &Path) -> Result<(), Error> {
    let open = |path: &Path, meta: &Metadata| {
        let mode = match meta.is_dir() || is_executable(meta) {
            true => 0o755,
            false => 0o644,
        };
        match meta.is_symlink() || meta.mode() & 0o7777 == mode {
            true => Ok(()),
            false => set_mode(path, mode),
        }
    };
    let meta = root.symlink_metadata().map_err(Error::io("look at", root))?;
    open(root, &meta)?;
    if meta.is_dir() {
        for found in walk(root, &mut |found| open(&found.full, &found.meta).map(|()| true))? {
            if !found.meta.is_dir() {
                open(&found.full, &found.meta)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
