//! Writes a layer's files into a new folder, several at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tolv_model::slug::Entry;

use super::select::{Item, Items};
use crate::seal::{self, READ_ONLY};
use crate::source::as_path;
use crate::{Error, files};

/// Copies at once: more than these wait for the same disk.
const MAX_THREADS: usize = 8;
/// How often a cancel is looked for while files are copied.
const CHECK: Duration = Duration::from_millis(50);
/// The time of every file of a stack: 2000-01-01.
const TIME: u64 = 946_684_800;
/// Bytes of the disk that a stack leaves free.
const MIN_FREE: u64 = 64 << 20;

/// Makes `folder`, which is not there, with these files, sealed. Returns what is in it.
///
/// # Errors
///
/// [`Error::PackagesChange`] where a file changes meanwhile, [`Error::Stack`] where the disk has no
/// room, [`Error::Cancelled`].
pub(crate) fn write(
    items: &Items,
    folder: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Vec<u8>, Entry)>, Error> {
    files::make_folder(folder)?;
    check_space(items, folder)?;
    let mut work = Vec::new();
    for (path, item) in items {
        let to = folder.join(as_path(path));
        match item {
            // A folder comes before what is in it.
            Item::Folder => files::make_folder(&to)?,
            Item::Text(text) => std::fs::write(&to, text).map_err(Error::io("write", &to))?,
            Item::Link(target) => std::os::unix::fs::symlink(as_path(target), &to)
                .map_err(Error::io("create", &to))?,
            Item::File { from, size } => work.push((from.as_path(), to, *size)),
        }
    }
    copy_all(&work, cancelled)?;
    let entries = seal::seal(folder, READ_ONLY, &|_| true, cancelled)?;
    for (path, _) in &entries {
        set_time(&folder.join(as_path(path)))?;
    }
    set_time(folder)?;
    Ok(entries)
}

fn check_space(items: &Items, folder: &Path) -> Result<(), Error> {
    let block = |size: u64| size.next_multiple_of(4096);
    let needed: u64 = items
        .values()
        .map(|item| match item {
            Item::File { size, .. } => block(*size),
            Item::Text(text) => block(text.len() as u64),
            Item::Folder | Item::Link(_) => 4096,
        })
        .sum();
    let there =
        rustix::fs::statvfs(folder).map_err(|errno| Error::io("look at", folder)(errno.into()))?;
    let free = there.f_bavail.saturating_mul(there.f_frsize);
    if free < needed.saturating_add(MIN_FREE) {
        return Err(Error::Stack {
            problem: format!(
                "a stack of {} does not fit on the disk of `{}`, which has {} left",
                crate::caps::bytes(needed),
                folder.display(),
                crate::caps::bytes(free)
            ),
            help: "make room, or name a folder on another disk with TOLV_STACKS".to_owned(),
        });
    }
    Ok(())
}

fn copy_all(
    work: &[(&Path, std::path::PathBuf, u64)],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (done, ends) = mpsc::channel();
        for _ in 0..threads {
            let done = done.clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                let mut result = Ok(());
                while result.is_ok() && !stop.load(Ordering::Relaxed) {
                    let Some((from, to, size)) = work.get(next.fetch_add(1, Ordering::Relaxed))
                    else {
                        break;
                    };
                    result = copy(from, to, *size);
                }
                // The receiver is there until every sender is gone.
                done.send(result).ok();
            });
        }
        drop(done);
        let mut first = Ok(());
        loop {
            match ends.recv_timeout(CHECK) {
                Ok(result) => {
                    if result.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    first = first.and(result);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return first,
                Err(mpsc::RecvTimeoutError::Timeout) if cancelled() => {
                    stop.store(true, Ordering::Relaxed);
                    first = first.and(Err(Error::Cancelled));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    })
}

/// Copies one file, which must be what it was when it was selected.
fn copy(from: &Path, to: &Path, size: u64) -> Result<(), Error> {
    let mut source = match files::open(from) {
        Ok(source) => source,
        Err(error) if files::is_missing_or_link(&error) => return Err(Error::PackagesChange),
        Err(error) => return Err(Error::io("read", from)(error)),
    };
    let look = |file: &File| file.metadata().map_err(Error::io("look at", from));
    let before = look(&source)?;
    if before.len() != size || before.mode() & 0o006 != 0o004 {
        return Err(Error::PackagesChange);
    }
    let mut target = File::create_new(to).map_err(Error::io("create", to))?;
    // The error may be the reader's or the writer's: a full disk is the likely one.
    let copied = io::copy(&mut source, &mut target).map_err(Error::io("write", to))?;
    let after = look(&source)?;
    let same = |one: &std::fs::Metadata| (one.len(), one.mtime(), one.mtime_nsec(), one.ino());
    if copied != size || same(&before) != same(&after) {
        return Err(Error::PackagesChange);
    }
    if files::is_executable(&before) {
        files::set_mode(to, 0o755)?;
    }
    Ok(())
}

fn set_time(path: &Path) -> Result<(), Error> {
    let time = || Timespec { tv_sec: i64::try_from(TIME).unwrap_or(0), tv_nsec: 0 };
    let times = Timestamps { last_access: time(), last_modification: time() };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Error::io("write", path)(errno.into()))
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
