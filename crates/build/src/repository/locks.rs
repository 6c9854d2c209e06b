//! Locks of git's that a kill left behind: git itself would refuse for ever.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, openat, statat, unlinkat};
use rustix::io::Errno;

use super::Repository;
use crate::Error;
use crate::files::FOLDER;

/// Folders in each other that a ref can make: no name of one is longer than 250 bytes.
const DEPTH: usize = 128;
/// Where git locks, and how many folders below.
const PLACES: [(&str, usize); 5] =
    [(".", 0), ("refs", DEPTH), ("objects", 0), ("objects/info", 1), ("objects/pack", 0)];

impl Repository {
    /// Removes locks that nobody has touched for so long, or that are from the future: git holds
    /// one for moments. To be called outside of any sandbox; it follows no link.
    ///
    /// # Errors
    ///
    /// The file system's; a repository that is not there has no locks.
    pub fn remove_old_locks(&self, age: Duration) -> Result<(), Error> {
        let io = |error: Errno| Error::io("remove old locks of", &self.dir)(error.into());
        if let Err(error) = fs::symlink_metadata(&self.dir)
            && error.kind() == io::ErrorKind::NotFound
        {
            return Ok(());
        }
        let root = openat(CWD, &self.dir, FOLDER, Mode::empty()).map_err(io)?;
        for (place, depth) in PLACES {
            if let Some(folder) = folder_at(&root, place).map_err(io)? {
                clear(&folder, depth, age).map_err(io)?;
            }
        }
        Ok(())
    }
}

/// The folder at a path: each part may be a link, which is none.
fn folder_at(root: &OwnedFd, path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    let mut folder = openat(root, ".", FOLDER, Mode::empty())?;
    for part in path.split('/') {
        folder = match openat(&folder, part, FOLDER, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            below => below?,
        };
    }
    Ok(Some(folder))
}

fn clear(folder: &OwnedFd, depth: usize, age: Duration) -> rustix::io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth > 0 => match openat(folder, name, FOLDER, Mode::empty()) {
                Ok(below) => clear(&below, depth - 1, age)?,
                // It was removed meanwhile, or is something else now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error),
            },
            FileType::RegularFile if name.to_bytes().ends_with(b".lock") => {
                let touched = u64::try_from(stat.st_mtime).unwrap_or(0);
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
                if now.abs_diff(touched) > age.as_secs() {
                    match unlinkat(folder, name, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}
