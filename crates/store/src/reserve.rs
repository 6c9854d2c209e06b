//! Disk space that is reserved: a file that is removed when the disk is full, so that stopping,
//! scaling down and destroying can still be recorded.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// The size of the reserve: more than SQLite's log grows to before it is written from its beginning.
const RESERVE_BYTES: u64 = 8 << 20;
/// With less free space than this the reserve is given up: no transaction takes as much.
const LOW_BYTES: u64 = 2 << 20;

/// Gives the reserve up where the disk is full, and makes it where there is space again. A reserve
/// that cannot be made is tried again at the next call.
pub(crate) fn adjust(file: &Path) {
    let Some(Ok(stat)) = file.parent().map(statvfs) else { return };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let is_made = || fs::symlink_metadata(file).is_ok_and(|meta| meta.len() == RESERVE_BYTES);
    let is_low = free < LOW_BYTES;
    if is_low || (free >= 2 * RESERVE_BYTES && !is_made() && make(file).is_err()) {
        fs::remove_file(file).ok();
    }
}

fn make(file: &Path) -> io::Result<()> {
    let mut out = File::create(file)?;
    match fallocate(&out, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        // A file system that only takes bytes, and might compress others.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let mut random = File::open("/dev/urandom")?.take(RESERVE_BYTES);
            io::copy(&mut random, &mut out).map(drop)
        }
        made => Ok(made?),
    }
}
