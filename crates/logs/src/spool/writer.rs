//! The writing end, held by the shim.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use super::record::{LENGTH, Record};
use super::{Header, Limits, MAGIC, segment_name};
use crate::framer::Batch;
use crate::line::{Micros, Stream};

/// Bytes kept in memory while the disk takes none.
const RING: usize = 1 << 20;

/// Appends to the spool in one folder. It never fails and never waits: what the disk does not
/// take stays in a ring in memory, and what that does not hold is dropped, by its numbers.
#[derive(Debug)]
pub struct Writer {
    folder: OwnedFd,
    process: String,
    limits: Limits,
    /// The number of the next line.
    next: u64,
    /// Index and size of the closed segments, oldest first.
    closed: VecDeque<(u64, u64)>,
    index: u64,
    /// The open segment and its size; nothing while none can be made.
    open: Option<(File, u64)>,
    /// Whole records that the disk did not take, oldest first.
    ring: VecDeque<Vec<u8>>,
    ring_bytes: usize,
}

impl Writer {
    /// For an empty folder.
    pub fn new(folder: OwnedFd, process: impl Into<String>, limits: Limits) -> Self {
        let mut writer = Self {
            folder,
            process: process.into(),
            limits,
            next: 0,
            closed: VecDeque::new(),
            index: 0,
            open: None,
            ring: VecDeque::new(),
            ring_bytes: 0,
        };
        writer.open_segment().ok();
        writer
    }

    /// How many lines were taken in so far.
    pub fn lines(&self) -> u64 {
        self.next
    }

    /// Whether [`Writer::retry`] has something to do.
    pub fn is_behind(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Takes in a batch that was read at `time`.
    pub fn append(&mut self, stream: Stream, time: Micros, batch: Batch<'_>) {
        let Ok(length) = u32::try_from(batch.bytes.len()) else { return };
        let (first, lines, marks) = (self.next, batch.lines, batch.marks);
        let header = Record { length, first, time, lines, stream, marks }.to_bytes();
        self.next += u64::from(lines);
        self.retry();
        let written = self.ring.is_empty() && self.write(&header, batch.bytes).is_ok();
        if !written {
            self.ring_bytes += LENGTH + batch.bytes.len();
            self.ring.push_back([&header, batch.bytes].concat());
            while self.ring_bytes > RING {
                self.ring_bytes -= self.ring.pop_front().map_or(0, |record| record.len());
            }
        }
    }

    /// Writes what is in the ring, as far as the disk takes it.
    pub fn retry(&mut self) {
        while let Some(record) = self.ring.pop_front() {
            if self.write(&record, &[]).is_err() {
                self.ring.push_front(record);
                return;
            }
            self.ring_bytes -= record.len();
        }
    }

    /// All of a record, or nothing.
    fn write(&mut self, head: &[u8], tail: &[u8]) -> io::Result<()> {
        let full = self.open.as_ref().is_none_or(|(_, size)| *size >= self.limits.segment);
        if full {
            self.open_segment()?;
        }
        let Some((file, size)) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
        match write_all(file, head, tail) {
            Ok(()) => *size += (head.len() + tail.len()) as u64,
            Err(error) => {
                // The half record must not stand before the next; where even this fails, a
                // reader skips it by its mark.
                file.set_len(*size).ok();
                return Err(error);
            }
        }
        Ok(())
    }

    fn open_segment(&mut self) -> io::Result<()> {
        let header =
            serde_json::to_vec(&Header { process: self.process.clone(), first: self.next })?;
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        let header = [MAGIC, &length.to_le_bytes()[..], &header].concat();
        let index = self.index + u64::from(self.open.is_some());
        let name = segment_name(index);
        let flags =
            OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.folder, &name, flags, Mode::from_raw_mode(0o600))?);
        if let Err(error) = file.write_all(&header) {
            unlinkat(&self.folder, &name, AtFlags::empty()).ok();
            return Err(error);
        }
        if let Some((_, size)) = self.open.replace((file, header.len() as u64)) {
            self.closed.push_back((self.index, size));
        }
        self.index = index;
        self.make_room();
        Ok(())
    }

    fn make_room(&mut self) {
        let mut total: u64 = self.closed.iter().map(|(_, size)| size).sum();
        while total + self.limits.segment > self.limits.total {
            let Some((index, size)) = self.closed.pop_front() else { return };
            unlinkat(&self.folder, segment_name(index), AtFlags::empty()).ok();
            total -= size;
        }
    }
}

fn write_all(file: &mut File, head: &[u8], tail: &[u8]) -> io::Result<()> {
    let (mut head, mut tail) = (head, tail);
    while !head.is_empty() || !tail.is_empty() {
        let written = match file.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let of_head = written.min(head.len());
        head = &head[of_head..];
        tail = &tail[written - of_head..];
    }
    Ok(())
}
