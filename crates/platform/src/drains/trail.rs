//! How far a drain has come, in a file beside the log: written with each batch, for the cost of a
//! system call, so that a platform that is killed sends next to nothing twice.
//!
//! Two slots are written in turn, so that one is always whole. Nothing is forced to the disk: after
//! a power cut, what a receiver's machine had acknowledged is no news of this boot, and the row of
//! the database is what counts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Crc;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tolv_logs::store::Position;
use tolv_model::id::DrainId;

/// Room of a slot: above what 256 writers of a position take.
const SLOT: usize = 64 * 1024;
/// Says which boot of the machine this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    /// What the receiver, or its machine, has.
    pub(super) place: Position,
    pub(super) sent: u64,
    pub(super) dropped: u64,
    /// Lines that were sent, or began to be.
    pub(super) tried: u64,
    pub(super) retried: u64,
    /// The most lines that were sent, whatever of them is sent again.
    #[serde(default)]
    pub(super) reached: u64,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    number: u64,
    boot: String,
    trace: Trace,
}

/// The file of one drain.
#[derive(Debug)]
pub(super) struct Trail {
    path: PathBuf,
    file: Option<File>,
    boot: String,
    number: u64,
    last: Option<Trace>,
    /// Another platform may write it now.
    closed: bool,
}

/// What the platform before wrote.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) trace: Trace,
    /// Whether the machine was started since.
    pub(super) is_of_another_boot: bool,
}

fn file(folder: &Path, id: &DrainId) -> PathBuf {
    folder.join(format!("{id}.drain"))
}

/// Removes the file of a drain that is no more.
pub(super) fn remove(folder: &Path, id: &DrainId) {
    // Left, it is a small file that goes with the log.
    std::fs::remove_file(file(folder, id)).ok();
}

impl Trail {
    /// Of a drain of the log in this folder.
    pub(super) fn new(folder: &Path, id: &DrainId) -> Self {
        let (path, boot) = (file(folder, id), String::new());
        Self { path, file: None, boot, number: 0, last: None, closed: false }
    }

    /// What the platform before wrote.
    pub(super) fn take_up(&mut self) -> Option<Found> {
        self.boot = std::fs::read_to_string(BOOT).unwrap_or_default().trim().to_owned();
        let slots = self.file().map(|file| [slot(file, 0), slot(file, 1)]);
        let newest = slots.into_iter().flatten().flatten().max_by_key(|slot| slot.number)?;
        self.number = newest.number;
        let is_of_another_boot = newest.boot != self.boot || self.boot.is_empty();
        Some(Found { trace: newest.trace, is_of_another_boot })
    }

    fn file(&mut self) -> Option<&File> {
        if self.file.is_none() && !self.closed {
            self.file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
                .open(&self.path)
                .ok();
        }
        self.file.as_ref()
    }

    /// Writes how far the drain has come. Where that fails, more is sent again than had to be.
    pub(super) fn record(&mut self, trace: Trace) {
        if self.closed || self.last.as_ref() == Some(&trace) {
            return;
        }
        let (number, boot) = (self.number + 1, self.boot.clone());
        let Ok(json) = serde_json::to_vec(&Slot { number, boot, trace: trace.clone() }) else {
            return;
        };
        let mut bytes = format!("{:08x} {:08x} ", sum(&json), json.len()).into_bytes();
        bytes.extend(json);
        let place = (number % 2) * SLOT as u64;
        if bytes.len() <= SLOT
            && self.file().is_some_and(|file| file.write_all_at(&bytes, place).is_ok())
        {
            self.number = number;
            self.last = Some(trace);
        }
    }

    /// Nothing is written from here on: the file is another platform's.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// What a slot has, if it is whole.
fn slot(file: &File, index: u64) -> Option<Slot> {
    let mut bytes = vec![0; SLOT];
    let length = read_all_at(file, &mut bytes, index * SLOT as u64).ok()?;
    let (head, rest) = bytes.get(..length)?.split_at_checked(18)?;
    let (crc, size) = std::str::from_utf8(head).ok()?.trim_end().split_once(' ')?;
    let json = rest.get(..usize::from_str_radix(size, 16).ok()?)?;
    let is_whole = u32::from_str_radix(crc, 16).is_ok_and(|crc| crc == sum(json));
    is_whole.then(|| serde_json::from_slice(json).ok())?
}

fn read_all_at(file: &File, bytes: &mut [u8], place: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], place + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(sent: u64) -> Trace {
        Trace {
            place: Position::default(),
            sent,
            dropped: 0,
            tried: sent,
            retried: 0,
            reached: sent,
        }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let home = tempfile::tempdir().unwrap();
        let id = DrainId::new(jiff::Timestamp::UNIX_EPOCH, 7);
        let open = || Trail::new(home.path(), &id);
        let mut trail = open();
        assert!(trail.take_up().is_none());
        (1..=5).for_each(|sent| trail.record(trace(sent)));
        let mut next = open();
        let found = next.take_up().unwrap();
        assert!(found.trace == trace(5) && !found.is_of_another_boot);
        next.record(trace(6));
        // A write that was cut off.
        let written = OpenOptions::new().write(true).open(file(home.path(), &id)).unwrap();
        written.write_all_at(b"cut", 40).unwrap();
        let mut last = open();
        assert_eq!(last.take_up().unwrap().trace, trace(5));
        last.close();
        last.record(trace(9));
        assert_eq!(open().take_up().unwrap().trace, trace(5));
        remove(home.path(), &id);
        assert!(std::fs::read_dir(home.path()).unwrap().next().is_none());
    }
}
