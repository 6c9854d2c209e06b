//! Writes a tree of files below one folder, whatever names and links a stranger made up.
//!
//! Names are [`TreePath`]s. No link is followed on the way and nothing is replaced: every folder
//! is opened beneath the one before it, and every file is new.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2, symlinkat};
use rustix::io::Errno;
use tolv_model::tree_path::TreePath;

/// A folder that is written below.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
    /// The folder that was written to last, and its path: the next file is mostly there too.
    last: Option<(Vec<u8>, OwnedFd)>,
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Beneath {
    /// Opens the folder, which must be there and no link.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: openat(CWD, root, FOLDER, Mode::empty())?, last: None })
    }

    /// Creates a file, with this mode whatever the umask is.
    pub(crate) fn create(&mut self, path: &TreePath, mode: u32) -> io::Result<File> {
        let (folder, name) = path.split();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open_beneath(self.folder(folder)?, name, flags, Mode::from_raw_mode(0o600))?;
        fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(file.into())
    }

    /// Creates a symbolic link. Its target is the stranger's, and nothing here follows it.
    pub(crate) fn link(&mut self, path: &TreePath, target: &[u8]) -> io::Result<()> {
        let (folder, name) = path.split();
        let folder = self.folder(folder)?;
        Ok(symlinkat(OsStr::from_bytes(target), folder, OsStr::from_bytes(name))?)
    }

    /// Makes a folder and those above it, where missing.
    pub(crate) fn make(&mut self, path: &TreePath) -> io::Result<()> {
        self.folder(path.as_bytes()).map(drop)
    }

    fn folder(&mut self, path: &[u8]) -> io::Result<&OwnedFd> {
        if path.is_empty() {
            return Ok(&self.root);
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            self.last = None;
            let fd = match open_beneath(&self.root, path, FOLDER, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => self.made(path)?,
                Err(error) => return Err(error.into()),
            };
            self.last = Some((path.to_vec(), fd));
        }
        Ok(self.last.as_ref().map_or(&self.root, |(_, fd)| fd))
    }

    fn made(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut here: Option<OwnedFd> = None;
        for name in path.split(|&byte| byte == b'/') {
            let parent = here.as_ref().unwrap_or(&self.root);
            let is_new = match mkdirat(parent, OsStr::from_bytes(name), Mode::from_raw_mode(0o755))
            {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            let next = open_beneath(parent, name, FOLDER, Mode::empty())?;
            if is_new {
                fchmod(&next, Mode::from_raw_mode(0o755))?;
            }
            here = Some(next);
        }
        here.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// Opens a path that leaves its folder neither by `..` nor through a link.
///
/// Where the kernel or a filter of system calls has no openat2(2), the names are opened one by
/// one, which is the same and takes longer.
pub(crate) fn open_beneath(
    folder: &impl AsFd,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(folder, OsStr::from_bytes(path), flags, mode, resolve) {
        Err(Errno::NOSYS | Errno::PERM) => {}
        opened => return opened,
    }
    let (folders, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[][..], path),
    };
    let mut here: Option<OwnedFd> = None;
    for part in folders.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        let part = named(part)?;
        here = Some(match &here {
            Some(here) => openat(here, part, FOLDER, Mode::empty())?,
            None => openat(folder, part, FOLDER, Mode::empty())?,
        });
    }
    let name = named(name)?;
    match &here {
        Some(here) => openat(here, name, flags | OFlags::NOFOLLOW, mode),
        None => openat(folder, name, flags | OFlags::NOFOLLOW, mode),
    }
}

fn named(name: &[u8]) -> rustix::io::Result<&OsStr> {
    if matches!(name, b"" | b"." | b"..") {
        return Err(Errno::XDEV);
    }
    Ok(OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn path(path: &str) -> TreePath {
        TreePath::new(path).unwrap()
    }

    #[test]
    fn files_links_and_folders_are_made_with_their_modes() {
        let home = tempfile::tempdir().unwrap();
        let mut to = Beneath::open(home.path()).unwrap();
        to.create(&path("a/b/run"), 0o755).unwrap().write_all(b"x").unwrap();
        to.create(&path("a/b/text"), 0o644).unwrap();
        to.link(&path("a/link"), b"/etc/passwd").unwrap();
        to.make(&path("empty/one")).unwrap();
        let mode = |name: &str| {
            fs::metadata(home.path().join(name)).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!(
            [mode("a"), mode("a/b/run"), mode("a/b/text"), mode("empty/one")],
            [0o755, 0o755, 0o644, 0o755]
        );
        assert_eq!(fs::read_link(home.path().join("a/link")).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn no_link_is_followed_and_nothing_replaced() {
        let home = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let mut to = Beneath::open(home.path()).unwrap();
        symlink(outside.path(), home.path().join("out")).unwrap();
        symlink(outside.path().join("file"), home.path().join("file")).unwrap();
        for name in ["out/x", "out/deep/x", "file"] {
            assert!(to.create(&path(name), 0o644).is_err(), "{name}");
        }
        assert!(to.make(&path("out/deep")).is_err());
        assert!(to.link(&path("out/x"), b"y").is_err());
        to.link(&path("twice"), b"out").unwrap();
        assert!(to.create(&path("twice/x"), 0o644).is_err());
        assert!(to.create(&path("twice"), 0o644).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(Beneath::open(&home.path().join("out")).is_err());
    }
}
