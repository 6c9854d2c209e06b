//! Makes what an app may write its own, in levels where it has a uid of its own.
//!
//! Done in the calling process and not in the spawner, which must not wait for a large tree.
//! Every step is by descriptor and follows no link: a process of the same app may be changing the
//! tree meanwhile.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchown, fstat, openat, statat,
};
use rustix::io::Errno;

use crate::error::Error;
use crate::spec::{Access, Spec};

/// Gives every [`Access::ReadWrite`] source to the sandbox's uid.
pub(crate) fn give(spec: &Spec) -> Result<(), Error> {
    let Some(uid) = spec.app_uid() else {
        return Ok(());
    };
    for mount in spec.mounts.iter().filter(|mount| mount.access == Access::ReadWrite) {
        give_tree(&mount.source, uid)
            .map_err(|source| Error::Io { what: "cannot give a mount to its app", source })?;
    }
    Ok(())
}

/// Gives pipes to the sandbox's uid, so that it can open them again as `/dev/stdout`.
pub(crate) fn give_pipes(spec: &Spec, fds: &[OwnedFd]) -> Result<(), Error> {
    let Some(uid) = spec.app_uid() else {
        return Ok(());
    };
    for fd in fds {
        let given = fstat(fd).and_then(|stat| {
            if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
                fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?;
            }
            Ok(())
        });
        given.map_err(|source| Error::Io {
            what: "cannot give a pipe to its app",
            source: source.into(),
        })?;
    }
    Ok(())
}

fn give_tree(path: &Path, uid: u32) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NONBLOCK;
    let top = openat(CWD, path, flags, Mode::empty())?;
    let stat = fstat(&top)?;
    if stat.st_uid != uid || stat.st_gid != uid {
        fchown(&top, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?;
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        give_below(&top, uid, 0)?;
    }
    Ok(())
}

/// Most folders in each other. A program in a sandbox can nest them without end; each takes a
/// descriptor and a piece of the stack here.
const MAX_DEPTH: usize = 256;

fn give_below(folder: &impl AsFd, uid: u32, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("it is more than {MAX_DEPTH} folders deep")));
    }
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        if stat.st_uid != uid || stat.st_gid != uid {
            let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
            match chownat(folder, name, owner, group, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
            match openat(folder, name, flags, Mode::empty()) {
                Ok(below) => give_below(&below.as_fd(), uid, depth + 1)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
