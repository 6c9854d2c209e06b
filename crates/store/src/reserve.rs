//! Disk space that is reserved: a file that gets smaller when the disk is full, so that stopping,
//! scaling down and destroying can still be recorded.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// The size of the reserve: more than SQLite's log grows to before it is written from its beginning.
const RESERVE_BYTES: u64 = 8 << 20;
/// With less free space than this as much of the reserve is given up as is missing: no transaction
/// takes as much. The rest is for a disk that is filled again.
const LOW_BYTES: u64 = 2 << 20;
/// The reserve does not grow by less.
const MIN_GROWTH_BYTES: u64 = 256 << 10;

/// Gives a part of the reserve up where the disk is full, and makes the reserve, as much of it as there
/// is space for, where there is space again. One that cannot be made is tried again at the next call.
pub(crate) fn adjust(file: &Path) {
    let Some(Ok(stat)) = file.parent().map(statvfs) else { return };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let size = fs::symlink_metadata(file).map_or(0, |meta| meta.len());
    if free < LOW_BYTES {
        shrink(file, size.saturating_sub(LOW_BYTES - free));
        return;
    }
    // What is left is no reason to give a part of it up again.
    let growth = RESERVE_BYTES.saturating_sub(size).min(free.saturating_sub(2 * LOW_BYTES));
    if growth >= MIN_GROWTH_BYTES && grow(file, size, growth).is_err() {
        shrink(file, size);
    }
}

fn shrink(file: &Path, size: u64) {
    let cut = || File::options().write(true).open(file)?.set_len(size);
    // There are file systems that need space to cut a file.
    if size == 0 || cut().is_err() {
        fs::remove_file(file).ok();
    }
}

fn grow(file: &Path, size: u64, growth: u64) -> io::Result<()> {
    let mut out = File::options().create(true).write(true).truncate(false).open(file)?;
    match fallocate(&out, FallocateFlags::empty(), size, growth) {
        // A file system that only takes bytes, and might compress others.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            out.seek(SeekFrom::Start(size))?;
            let mut random = File::open("/dev/urandom")?.take(growth);
            io::copy(&mut random, &mut out).map(drop)
        }
        made => Ok(made?),
    }
}
