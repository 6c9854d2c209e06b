//! The program that runs, as a file of its own: what the platform starts of itself besides helpers.
//!
//! The file that it was started from is the operator's, who may replace or remove it at any time, and
//! means the next upgrade by it. git's hook and the file server of static sites are this program too:
//! they are started from a file in the state folder, which is made of the running image (`/proc/self/exe`)
//! when it is needed, and made again where it is gone or has changed. It is a hard link to the image; on
//! another disk a symbolic link to the file that was started, and a copy once that is another one.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, linkat, statvfs};

use crate::platform::lock;

/// In the state folder.
pub(super) const FOLDER: &str = "program";
const FILE: &str = "tolv";
/// Processes with other uids execute it.
const MODE: u32 = 0o755;

/// The running program's own file. Clones are the same.
#[derive(Clone, Debug)]
pub struct Image(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Leads to the running image, whatever is at its path.
    running: PathBuf,
    /// Where it was started from.
    started: PathBuf,
    /// Where it is kept.
    kept: PathBuf,
    /// The file that was made there.
    made: Mutex<Option<Identity>>,
    /// Whether something is to be started from it.
    is_used: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl Image {
    /// The image that `running` leads to, which was `started` from there, to be kept in a state folder.
    pub fn at(home: &Path, running: &Path, started: &Path) -> Self {
        let folder = home.join(FOLDER);
        // Nothing can be started from there, then.
        let is_noexec = |path: &Path| {
            statvfs(path).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC))
        };
        let kept = match is_noexec(home) {
            true => started.to_owned(),
            false => folder.join(FILE),
        };
        let (running, started) = (running.to_owned(), started.to_owned());
        let (made, is_used) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { running, started, kept, made, is_used }))
    }

    /// Where [`Image::file`] is, once it was asked for.
    pub fn path(&self) -> &Path {
        &self.0.kept
    }

    /// The file, made where it is not there as it was made.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn file(&self) -> io::Result<PathBuf> {
        let inner = &self.0;
        inner.is_used.store(true, Ordering::Relaxed);
        if inner.kept == inner.started {
            return Ok(inner.kept.clone());
        }
        let running = fs::metadata(&inner.running)?;
        // Whoever comes meanwhile finds the one that is made now.
        let mut made = lock(&inner.made);
        if is_right(inner, &running, *made) {
            return Ok(inner.kept.clone());
        }
        match make(inner, &running) {
            Ok(identity) => {
                *made = Some(identity);
                Ok(inner.kept.clone())
            }
            // A full or read-only disk takes nothing away from what still works.
            Err(error) => match fs::metadata(&inner.started) {
                Ok(meta) if Identity::of(&meta) == Identity::of(&running) => {
                    Ok(inner.started.clone())
                }
                Ok(_) | Err(_) => Err(error),
            },
        }
    }

    /// As [`Image::file`], where something is to be started from it.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub(super) fn require(&self) -> io::Result<()> {
        match self.0.is_used.load(Ordering::Relaxed) {
            true => self.file().map(drop),
            false => Ok(()),
        }
    }
}

/// Whether the kept file has the bytes of the running image, and may be executed.
fn is_right(inner: &Inner, running: &Metadata, made: Option<Identity>) -> bool {
    let Ok(meta) = inner.kept.symlink_metadata() else { return false };
    if meta.is_symlink() {
        let leads_there = fs::read_link(&inner.kept).is_ok_and(|to| to == inner.started);
        return leads_there && is_started_from_there(inner, running);
    }
    // Nobody writes to a file that is being executed.
    let is_same = || {
        let identity = Identity::of(&meta);
        identity == Identity::of(running) || Some(identity) == made
    };
    meta.is_file() && is_executable(&meta) && is_same()
}

fn is_executable(meta: &Metadata) -> bool {
    meta.mode() & 0o7777 == MODE && meta.uid() == rustix::process::geteuid().as_raw()
}

/// Whether the file that was started is still there, for everybody to execute.
fn is_started_from_there(inner: &Inner, running: &Metadata) -> bool {
    fs::metadata(&inner.started).is_ok_and(|meta| {
        Identity::of(&meta) == Identity::of(running) && meta.mode() & 0o055 == 0o055
    })
}

/// Makes the file anew.
fn make(inner: &Inner, running: &Metadata) -> io::Result<Identity> {
    let folder = inner.kept.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A name that is swept at a start, after a kill.
    let aside = folder.join(format!(".{FILE}.{}.0", std::process::id()));
    remove(&aside)?;
    let made = || {
        // The same file under another name, as long as nobody may change what it is.
        let is_linked = is_executable(running)
            && linkat(CWD, &inner.running, CWD, &aside, AtFlags::SYMLINK_FOLLOW).is_ok();
        if !is_linked {
            // On another disk a copy takes its space only once it is needed.
            match is_started_from_there(inner, running) {
                true => symlink(&inner.started, &aside)?,
                false => copy(&inner.running, &aside)?,
            }
        }
        let identity = Identity::of(&fs::metadata(&aside)?);
        if fs::symlink_metadata(&inner.kept).is_ok_and(|meta| meta.is_dir()) {
            fs::remove_dir_all(&inner.kept)?;
        }
        fs::rename(&aside, &inner.kept)?;
        Ok(identity)
    };
    // The first error is the one to tell; where both names were one file's, the other is left.
    let made = made();
    remove(&aside).ok();
    made
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut options = OpenOptions::new();
    let mut copy = options.write(true).create_new(true).mode(0o600).open(to)?;
    // By the kernel, and without a second copy where the file system can share blocks.
    io::copy(&mut from, &mut copy)?;
    copy.set_permissions(Permissions::from_mode(MODE))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
