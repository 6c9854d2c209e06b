//! The writing end: one in each shim, one in the platform.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fchown, fstat, fstatvfs, openat, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::record::{self, Record};
use super::{Limits, segment_index, segment_name};
use crate::framer::Batch;
use crate::line::{Micros, Source, Stream};

/// Bytes kept in memory while the disk takes none.
const RING: usize = 1 << 20;
/// Longest name that a record holds.
const NAME: usize = 255;

/// Whose lines they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// Who wrote them.
    pub source: Source,
    /// Which process; at most 255 bytes of it are kept.
    pub process: &'a str,
    /// Of which release, where it is of one.
    pub release: Option<u32>,
}

/// Appends to the log in one folder. It never fails and never waits for a reader: what the disk
/// does not take stays in a ring in memory, and what that does not hold is dropped, by its numbers.
#[derive(Debug)]
pub struct Writer {
    folder: OwnedFd,
    id: u64,
    limits: Limits,
    /// What was taken in so far: the number of the next line, and of its first byte.
    taken: Count,
    /// The segment that was written to last.
    open: Option<(u64, File)>,
    /// Whole records that the disk did not take, oldest first, and what they count.
    ring: VecDeque<(Vec<u8>, Count)>,
    ring_bytes: usize,
    /// What the ring did not hold.
    lost: Count,
}

/// Lines, and their bytes with a line end each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many lines.
    pub lines: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.bytes += other.bytes;
    }
}

impl Writer {
    /// For the log in `folder`; `id` is one of [`writer_id`](super::writer_id).
    pub fn new(folder: OwnedFd, id: u64, limits: Limits) -> Self {
        let (ring, open) = (VecDeque::new(), None);
        let (taken, lost) = Default::default();
        Self { folder, id, limits, taken, open, ring, ring_bytes: 0, lost }
    }

    /// The number that tells it apart.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How much was taken in so far.
    pub fn taken(&self) -> Count {
        self.taken
    }

    /// How much of that neither the disk nor the ring took.
    pub fn lost(&self) -> Count {
        self.lost
    }

    /// Whether [`Writer::retry`] has something to do.
    pub fn is_behind(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Whether somebody has removed the log's folder: nothing of it will be read.
    pub fn is_folder_gone(&self) -> bool {
        fstat(&self.folder).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Takes in a batch that was read at `time`.
    pub fn append(&mut self, tag: Tag<'_>, stream: Stream, time: Micros, batch: Batch<'_>) {
        let before = self.taken;
        let head = self.head(tag, stream, time, batch);
        self.put(&head, batch.bytes, before);
    }

    /// Says that nothing comes any more: a reader that has missed all of it knows how much.
    pub fn end(&mut self, tag: Tag<'_>, time: Micros) {
        let batch = Batch { bytes: &[], lines: 0, marks: crate::Marks::default() };
        self.append(tag, Stream::Out, time, batch);
    }

    /// Takes in several lines, each with a tag and a time of its own, by one write.
    pub fn append_all<'a>(&mut self, lines: impl Iterator<Item = (Tag<'a>, Micros, &'a [u8])>) {
        let (mut records, mut before) = (Vec::new(), self.taken);
        for (tag, time, bytes) in lines {
            let batch = Batch { bytes, lines: 1, marks: crate::Marks::default() };
            records.extend(self.head(tag, Stream::Out, time, batch));
            records.extend(bytes);
            if records.len() > record::MAX_BYTES / 2 {
                self.put(&records, &[], before);
                records.clear();
                before = self.taken;
            }
        }
        if !records.is_empty() {
            self.put(&records, &[], before);
        }
    }

    /// The head of a record, and the name behind it.
    fn head(&mut self, tag: Tag<'_>, stream: Stream, time: Micros, batch: Batch<'_>) -> Vec<u8> {
        let name = tag.process.as_bytes();
        let name = &name[..name.len().min(NAME)];
        let record = Record {
            // The framer's batches are far below what 32 bits hold.
            length: u32::try_from(name.len() + batch.bytes.len()).unwrap_or(u32::MAX),
            writer: self.id,
            first: self.taken.lines,
            before: self.taken.bytes,
            time,
            lines: batch.lines,
            release: tag.release.unwrap_or(0),
            source: tag.source,
            stream,
            marks: batch.marks,
            name: u8::try_from(name.len()).unwrap_or(u8::MAX),
            sum: record::sum(&[name, batch.bytes]),
        };
        // Each line's end is a byte too, but for that of a line that goes on.
        let ends = batch.lines > 0 && !batch.marks.more;
        let bytes = batch.bytes.len() as u64 + u64::from(ends);
        self.taken += Count { lines: batch.lines.into(), bytes };
        [&record.to_bytes()[..], name].concat()
    }

    /// Writes records, or keeps them; `before` was taken in before them.
    fn put(&mut self, head: &[u8], tail: &[u8], before: Count) {
        self.retry();
        let written = self.ring.is_empty() && self.write(head, tail).is_ok();
        if !written {
            self.ring_bytes += head.len() + tail.len();
            let (lines, bytes) = (self.taken.lines - before.lines, self.taken.bytes - before.bytes);
            self.ring.push_back(([head, tail].concat(), Count { lines, bytes }));
            while self.ring_bytes > RING
                && let Some((record, count)) = self.ring.pop_front()
            {
                self.ring_bytes -= record.len();
                self.lost += count;
            }
        }
    }

    /// Writes what is in the ring, as far as the disk takes it.
    pub fn retry(&mut self) {
        while let Some((record, count)) = self.ring.pop_front() {
            if self.write(&record, &[]).is_err() {
                self.ring.push_front((record, count));
                return;
            }
            self.ring_bytes -= record.len();
        }
    }

    /// All of it with one call, or an error: a reader skips the half that may stand there then.
    fn write(&mut self, head: &[u8], tail: &[u8]) -> io::Result<()> {
        self.find_room()?;
        let Some((_, file)) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
        loop {
            match file.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]) {
                Ok(written) if written == head.len() + tail.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the newest segment, a new one where it is full.
    fn find_room(&mut self) -> io::Result<()> {
        loop {
            let next = match &self.open {
                Some((index, file)) => {
                    let stat = fstat(file)?;
                    let gone = stat.st_nlink == 0;
                    if !gone && u64::try_from(stat.st_size).unwrap_or(0) < self.limits.segment {
                        return Ok(());
                    }
                    // One that made room has been overtaken by more than one segment.
                    if gone { self.newest()?.unwrap_or(index + 1) } else { index + 1 }
                }
                None => self.newest()?.unwrap_or(0),
            };
            self.open = Some((next, self.open_segment(next)?));
        }
    }

    fn open_segment(&self, index: u64) -> io::Result<File> {
        let name = segment_name(index);
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(&self.folder, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            opened => return Ok(File::from(opened?)),
        }
        let made = openat(
            &self.folder,
            &name,
            flags | OFlags::CREATE | OFlags::EXCL,
            Mode::from_raw_mode(0o600),
        );
        match made {
            // Another writer was first.
            Err(Errno::EXIST) => Ok(File::from(openat(&self.folder, &name, flags, Mode::empty())?)),
            made => {
                let file = File::from(made?);
                let owner = fstat(&self.folder)?;
                if rustix::process::geteuid().is_root() && owner.st_uid != 0 {
                    // The shims of this deploy write here as another user.
                    let uid = rustix::fs::Uid::from_raw(owner.st_uid);
                    let gid = rustix::fs::Gid::from_raw(owner.st_gid);
                    fchown(&file, Some(uid), Some(gid))?;
                }
                self.make_room(index)?;
                Ok(file)
            }
        }
    }

    fn indices(&self) -> io::Result<Vec<u64>> {
        let mut indices = Vec::new();
        for entry in Dir::read_from(self.folder.as_fd())? {
            indices.extend(segment_index(entry?.file_name().to_bytes()));
        }
        indices.sort_unstable();
        Ok(indices)
    }

    fn newest(&self) -> io::Result<Option<u64>> {
        Ok(self.indices()?.pop())
    }

    /// Whether the disk has less room than has to stay.
    fn is_disk_full(&self) -> bool {
        self.limits.min_free > 0
            && fstatvfs(&self.folder).is_ok_and(|stat| {
                stat.f_bavail.saturating_mul(stat.f_frsize) < self.limits.min_free
            })
    }

    /// Removes the oldest segments until the rest, and the new one once it is full, fit.
    fn make_room(&self, new: u64) -> io::Result<()> {
        let older: Vec<_> = self.indices()?.into_iter().filter(|&index| index < new).collect();
        let size = |index: &u64| {
            let stat = statat(&self.folder, segment_name(*index), AtFlags::SYMLINK_NOFOLLOW);
            stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
        };
        let sizes: Vec<_> = older.iter().map(size).collect();
        let mut total: u64 = sizes.iter().sum();
        let limit = match self.is_disk_full() {
            true => self.limits.total.min(total),
            false => self.limits.total,
        };
        for (index, size) in older.into_iter().zip(sizes) {
            if total + self.limits.segment <= limit {
                break;
            }
            unlinkat(&self.folder, segment_name(index), AtFlags::empty()).ok();
            total -= size;
        }
        Ok(())
    }
}
