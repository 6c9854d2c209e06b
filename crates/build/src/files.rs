//! Work on trees of files whose contents nobody vouches for: no symbolic link is ever followed.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, chmod, fchmod, flock, openat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tolv_model::slug::Digest;

use crate::Error;

/// Opens a regular file for reading; a link or a pipe in its place is an error, not a trap.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Largest file that is read whole: a lock file of a big project has a few MiB.
pub(crate) const MAX_READ: u64 = 64 << 20;

/// The bytes of a regular file; one with more than [`MAX_READ`] is an error of the kind
/// `FileTooLarge`.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, MAX_READ)
}

/// As [`read`], with another bound.
pub(crate) fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Whether a file could not be opened because there is none, or a link in its place.
pub(crate) fn is_missing_or_link(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::LOOP))
}

/// Reads all of `from`, hashing it on the way to `to`.
pub(crate) fn pour(from: impl Read, to: impl Write) -> io::Result<(Digest, u64)> {
    pour_until(from, to, &|| false)
}

/// As [`pour`], unless `stop` says so meanwhile, which is the error ECANCELED.
pub(crate) fn pour_until(
    mut from: impl Read,
    mut to: impl Write,
    stop: &dyn Fn() -> bool,
) -> io::Result<(Digest, u64)> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((Digest(hash.finalize().into()), size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if stop() {
            return Err(Errno::CANCELED.into());
        }
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

/// Refuses a folder in which somebody else could put what this user runs: one of another user than
/// root, and one that others may write to. A missing one is fine.
pub(crate) fn check_own(path: &Path) -> Result<(), Error> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta.map_err(Error::io("look at", path))?,
    };
    let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
    let why = if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        format!("it belongs to another user (uid {owner})")
    } else if mode & 0o022 != 0 {
        format!("other users may write to it (mode {mode:o})")
    } else {
        return Ok(());
    };
    Err(Error::ForeignFolder { path: path.to_owned(), why })
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

/// Most folders in each other.
const MAX_DEPTH: usize = tolv_model::tree_path::MAX_DEPTH;
/// Most bytes of all names of one walk: they are held in memory.
const MAX_NAMES: usize = 64 << 20;

/// Everything below `root`, a folder before what is in it, sorted by name. `enter` decides about
/// each folder before it is read, and may change its mode. At most `most` things.
pub(crate) fn walk(
    root: &Path,
    most: u64,
    cancelled: &dyn Fn() -> bool,
    enter: &mut dyn FnMut(&Found) -> Result<bool, Error>,
) -> Result<Vec<Found>, Error> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    let mut open = vec![(root.to_owned(), Vec::new(), 0)];
    while let Some((folder, prefix, depth)) = open.pop() {
        if depth >= MAX_DEPTH {
            return Err(Error::Limit {
                what: "how deep the build's folders are".into(),
                limit: format!("{MAX_DEPTH} folders"),
            });
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            let name = entry.map_err(Error::io("read", &folder))?.file_name();
            bytes += prefix.len() + name.len();
            if all.len() as u64 + names.len() as u64 >= most || bytes > MAX_NAMES {
                return Err(Error::Limit {
                    what: "the number of files that the build made".into(),
                    limit: format!("{most} files (TOLV_BUILD_FILES)"),
                });
            }
            names.push(name);
        }
        names.sort();
        for name in names {
            let full = folder.join(&name);
            let meta = full.symlink_metadata().map_err(Error::io("read", &full))?;
            let mut path = prefix.clone();
            path.extend_from_slice(name.as_bytes());
            let found = Found { path, full, meta };
            if found.meta.is_dir() && enter(&found)? {
                open.push((found.full.clone(), [&found.path, &b"/"[..]].concat(), depth + 1));
            }
            all.push(found);
        }
    }
    Ok(all)
}

/// More things than these are more than any limit of bytes.
pub(crate) const MAX_COUNTED: u64 = 4_000_000;

/// Bytes on disk below `root`; things that vanish meanwhile count as nothing. What nobody can
/// count, because it is too much or too deep, is more than any limit.
pub(crate) fn disk_use(root: &Path) -> u64 {
    let (mut total, mut count) = (0_u64, 0_u64);
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return u64::MAX;
        }
        let Ok(list) = fs::read_dir(&folder) else { continue };
        for entry in list.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // An empty file takes room too: an inode.
            total = total.saturating_add(meta.blocks().max(8).saturating_mul(512));
            count += 1;
            if count > MAX_COUNTED {
                return u64::MAX;
            }
            if meta.is_dir() {
                open.push((entry.path(), depth + 1));
            }
        }
    }
    total
}

/// Removes a tree, whatever modes its folders have; nothing there is fine.
pub(crate) fn remove(root: &Path) -> Result<(), Error> {
    remove_until(root, &|| false)
}

/// Removes a tree, unless `stop` says so meanwhile, which is [`Error::Cancelled`].
///
/// Folders may be in each other without end, so that a path or a descriptor for each would not
/// do: one that is too deep is first moved up into `root`.
pub(crate) fn remove_until(root: &Path, stop: &dyn Fn() -> bool) -> Result<(), Error> {
    let io = |error: Errno| Error::io("remove", root)(error.into());
    match root.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return fs::remove_file(root).map_err(Error::io("remove", root)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("remove", root)(error)),
    }
    set_mode(root, 0o700)?;
    let top = openat(CWD, root, FOLDER, Mode::empty()).map_err(io)?;
    let mut work = Removal { top: &top, moved: 0, stop };
    // What was moved up may be behind the place of the reader: read again until nothing is left.
    while work.clear(&top, 0).map_err(io)? {}
    fs::remove_dir(root).map_err(Error::io("remove", root))
}

/// A folder that is opened to be read; a link is none.
pub(crate) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Removal<'a> {
    top: &'a OwnedFd,
    /// Folders moved up so far: their names there.
    moved: u64,
    stop: &'a dyn Fn() -> bool,
}

impl Removal<'_> {
    /// Removes what is in a folder; says whether anything was there.
    fn clear(&mut self, folder: &OwnedFd, depth: usize) -> rustix::io::Result<bool> {
        /// Descriptors at once.
        const DEPTH: usize = 32;
        let mut any = false;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            any = true;
            if (self.stop)() {
                return Err(Errno::CANCELED);
            }
            match unlinkat(folder, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // The second is a folder's where root is not us, the first where it is.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
            // A folder without write or search permission keeps its contents.
            let below = match openat(folder, name, FOLDER, Mode::empty()) {
                Err(Errno::ACCESS) => {
                    let inode = openat(
                        folder,
                        name,
                        FOLDER.difference(OFlags::RDONLY) | OFlags::PATH,
                        Mode::empty(),
                    )?;
                    let path = format!("/proc/self/fd/{}", inode.as_raw_fd());
                    chmod(path, Mode::from_raw_mode(0o700))?;
                    openat(folder, name, FOLDER, Mode::empty())?
                }
                below => below?,
            };
            fchmod(&below, Mode::from_raw_mode(0o700))?;
            if depth < DEPTH {
                self.clear(&below, depth + 1)?;
                match unlinkat(folder, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    // Something was left in it that was too deep.
                    Err(Errno::NOTEMPTY) => {}
                    Err(error) => return Err(error),
                }
            } else {
                self.moved += 1;
                let new = format!(".too-deep-{}", self.moved);
                renameat_with(folder, name, self.top, new, RenameFlags::NOREPLACE)?;
            }
        }
        Ok(any)
    }
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

/// Writes a file so that it is there whole or not at all, also after a power cut.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    tolv_durable::write(path, bytes, 0o600).map_err(Error::io("write", path))
}

/// Makes a symbolic link, in place of one that is there, so that there always is one.
pub(crate) fn write_link(path: &Path, target: &Path) -> Result<(), Error> {
    tolv_durable::link(path, target).map_err(Error::io("create", path))
}

#[cfg(test)]
mod tests;
