//! The room of a sandbox's own: one file system in memory, bounded, for `/tmp` and for what its
//! processes write above mounts that are [`Access::Private`](crate::Access::Private).
//!
//! ```text
//!  tmpfs (limits.tmp) ┬─ tmp            shown at /tmp
//!                     └─ 0/upper, work  above /app, below it the slug, read-only
//! ```
//!
//! Its pages count as memory of whoever writes them. A layer belongs to the app. So has what lies below
//! it, or the app could write at its top alone: the mount below is an id-mapped one where the kernel has
//! that (see [`crate::idmap`]). Elsewhere its folders are made in the layer too, up to a bound; then the
//! app can make, replace and remove files, but not change those of the slug in place.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, mkdirat, openat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};

use super::{at, fs, room_options};
use crate::level::{Level, Reason};

/// Where the room is mounted at first: below the `/tmp` that covers it.
const PLACE: &str = "/tmp/tmp";
/// Most folders that are made in a layer where mounts cannot be id-mapped.
const MAX_FOLDERS: usize = 1000;

/// See the module.
pub(super) struct Room {
    top: OwnedFd,
    level: Level,
    /// The app's uid and gid.
    ids: (u32, u32),
    layers: usize,
}

impl Room {
    /// Mounts it, and shows its `tmp` at `/tmp`.
    pub(super) fn make(
        root: &OwnedFd,
        level: Level,
        ids: (u32, u32),
        bytes: u64,
    ) -> Result<Self, Reason> {
        fs("tmpfs", PLACE, &room_options("0755", bytes))?;
        let top = at("open the room", || {
            openat(CWD, PLACE, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        })?;
        at("mkdir /tmp", || mkdirat(&top, "tmp", Mode::from_raw_mode(0o1777)))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tmp = at("open_tree /tmp", || open_tree(&top, "tmp", flags))?;
        at("mount /tmp", || {
            move_mount(&tmp, "", root, "tmp", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        })?;
        Ok(Self { top, level, ids, layers: 0 })
    }

    /// Puts a writable layer above what is mounted there. What a kernel cannot do leaves it read-only;
    /// [`crate::Machine`] says so.
    pub(super) fn cover(&mut self, root: &OwnedFd, target: &Path) -> Result<(), Reason> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lower = at("open a mount", || openat(root, target, flags, Mode::empty()))?;
        let layer = PathBuf::from(self.layers.to_string());
        self.layers += 1;
        let stat = at("stat a mount", || fstat(&lower))?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777 | 0o700);
        let upper = layer.join("upper");
        at("make a layer", || mkdirat(&self.top, &layer, Mode::from_raw_mode(0o755)))?;
        at("make a layer", || mkdirat(&self.top, layer.join("work"), Mode::from_raw_mode(0o755)))?;
        at("make a layer", || self.folder(&upper, mode))?;
        let owner = match self.level {
            Level::Strict => self.ids.0,
            _ => rustix::process::geteuid().as_raw(),
        };
        if stat.st_uid != owner {
            self.copy_folders(&lower, &upper)?;
        }
        let fd = lower.as_raw_fd();
        let place = format!("/proc/self/fd/{fd}");
        let top = format!("/proc/self/fd/{}/{}", self.top.as_raw_fd(), layer.display());
        let more = if self.level == Level::Strict { "redirect_dir=on" } else { "userxattr" };
        let options =
            format!("lowerdir={place},upperdir={top}/upper,workdir={top}/work,index=off,{more}");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let options = CString::new(options).unwrap_or_default();
        mount("overlay", &place, "overlay", flags, options.as_c_str()).ok();
        Ok(())
    }

    /// Makes a folder that is the app's.
    fn folder(&self, path: &Path, mode: Mode) -> rustix::io::Result<()> {
        mkdirat(&self.top, path, mode)?;
        if self.level == Level::Strict {
            let (uid, gid) = (Uid::from_raw(self.ids.0), Gid::from_raw(self.ids.1));
            chownat(&self.top, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Makes folders of a mount in its layer, nearest first.
    fn copy_folders(&self, lower: &OwnedFd, upper: &Path) -> Result<(), Reason> {
        let mut left = VecDeque::from([PathBuf::new()]);
        let mut made = 0;
        while let Some(folder) = left.pop_front() {
            let here = match reopen(lower, &folder) {
                Ok(here) => here,
                // One that the app may not read: it can do nothing there.
                Err(Errno::ACCESS) => continue,
                Err(error) => return Err(Reason::new("read a mount", error.raw_os_error())),
            };
            for entry in at("read a mount", || Dir::read_from(&here))? {
                let entry = at("read a mount", || entry)?;
                let name = entry.file_name();
                if name == c"." || name == c".." || entry.file_type() != FileType::Directory {
                    continue;
                }
                if made == MAX_FOLDERS {
                    return Ok(());
                }
                let path = folder.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                match self.folder(&upper.join(&path), Mode::from_raw_mode(0o755)) {
                    Ok(()) => made += 1,
                    // The room is small: as far as it goes.
                    Err(Errno::NOSPC) => return Ok(()),
                    Err(error) => return Err(Reason::new("make a layer", error.raw_os_error())),
                }
                left.push_back(path);
            }
        }
        Ok(())
    }
}

fn reopen(lower: &OwnedFd, folder: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    openat(lower, folder, flags, Mode::empty())
}
