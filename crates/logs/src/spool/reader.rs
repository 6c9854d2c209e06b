//! The reading end: any number of them, at any time, also of a spool that is being written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, LENGTH, Record};
use super::{MAGIC, segment_index, segment_name};
use crate::line::{Line, Source};

/// Bytes of one read.
const READ: usize = 256 * 1024;

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A line of the app.
    Line(Line),
    /// This many lines are not to be had any more.
    Missed(u64),
}

/// Reads a spool from its oldest line on.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    process: Arc<str>,
    /// The number of the next line.
    next: u64,
    /// Segment being read; nothing before the first.
    open: Option<(u64, File)>,
    /// Where the next record begins in it.
    offset: u64,
    /// Whether the segment's header was skipped.
    begun: bool,
    buffer: Vec<u8>,
}

impl Reader {
    /// Of the spool in `folder`, whose lines are named for `process`.
    pub fn open(folder: &Path, process: Arc<str>) -> Self {
        Self {
            folder: folder.to_owned(),
            process,
            next: 0,
            open: None,
            offset: 0,
            begun: false,
            buffer: Vec::new(),
        }
    }

    /// The number of the next line: how many were delivered or counted as missed.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Appends some of what is there to `items`; `false` when all that is there was read.
    ///
    /// # Errors
    ///
    /// The folder or a segment cannot be read. A damaged record is no error: its lines are missed.
    pub fn read(&mut self, items: &mut Vec<Item>) -> io::Result<bool> {
        loop {
            let Some((index, file)) = &self.open else {
                if self.open_next(None)? {
                    continue;
                }
                return Ok(false);
            };
            let index = *index;
            // Looked up before the read: when there is one, this one is complete.
            let newer = newest(&self.folder)?.is_some_and(|newest| newest > index);
            // Kept only while there is more: of many readers, most wait.
            let mut buffer = match std::mem::take(&mut self.buffer) {
                buffer if buffer.is_empty() => vec![0; READ],
                buffer => buffer,
            };
            let mut length = read_at(file, &mut buffer, self.offset)?;
            if let Some(wanted) = missing(&buffer[..length])
                && length == buffer.len()
            {
                // A record larger than the buffer.
                buffer.resize(wanted, 0);
                length = read_at(file, &mut buffer, self.offset)?;
            }
            let at_end = length < buffer.len();
            let (used, some) = self.parse(&buffer[..length], newer && at_end, items);
            self.offset += used as u64;
            if some {
                self.buffer = buffer;
                return Ok(true);
            }
            if used == 0 && (!newer || !self.open_next(Some(index))?) {
                return Ok(false);
            }
        }
    }

    /// The spool is complete and `lines` were written to it: tells how many of them are missing.
    pub fn finish(&mut self, lines: u64) -> Option<Item> {
        let missed = lines.saturating_sub(self.next);
        self.next = self.next.max(lines);
        (missed > 0).then_some(Item::Missed(missed))
    }

    fn open_next(&mut self, after: Option<u64>) -> io::Result<bool> {
        loop {
            let mut next = None;
            for index in segments(&self.folder)? {
                if after.is_none_or(|after| index > after) && next.is_none_or(|next| index < next) {
                    next = Some(index);
                }
            }
            let Some(index) = next else { return Ok(false) };
            match File::open(self.folder.join(segment_name(index))) {
                Ok(file) => {
                    self.open = Some((index, file));
                    (self.offset, self.begun) = (0, false);
                    return Ok(true);
                }
                // It made room between the listing and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes records off the bytes; returns how many bytes it used and whether it gave items.
    /// What is not whole is left; in a segment that is `complete`, it is damage.
    fn parse(&mut self, read: &[u8], complete: bool, items: &mut Vec<Item>) -> (usize, bool) {
        let (mut at, before) = (0, items.len());
        if !self.begun {
            match header_length(read) {
                Some(length) => at = length,
                None if !complete && read.len() < MAGIC.len() + 4 + 1024 => {
                    return (0, false);
                }
                // Not a header: the first mark is where it begins.
                None => {}
            }
            self.begun = true;
        }
        while at < read.len() {
            let rest = &read[at..];
            let Some(header) = rest.first_chunk::<LENGTH>() else {
                break;
            };
            let Some(record) = Record::from_bytes(header) else {
                // Damage: go on at the next mark, keeping what may be the start of one.
                let next = memchr::memmem::find(&rest[1..], record::MAGIC);
                at += next.map_or(rest.len() - (record::MAGIC.len() - 1), |place| place + 1);
                continue;
            };
            let Some(bytes) = rest[LENGTH..].get(..record.length as usize) else {
                if complete && memchr::memmem::find(&rest[1..], record::MAGIC).is_some() {
                    at += 1;
                    continue;
                }
                break;
            };
            deliver(&self.process, &mut self.next, record, bytes, items);
            at += LENGTH + bytes.len();
        }
        (at, items.len() > before)
    }
}

fn deliver(
    process: &Arc<str>,
    next: &mut u64,
    record: Record,
    bytes: &[u8],
    items: &mut Vec<Item>,
) {
    if record.first < *next {
        return;
    }
    if record.first > *next {
        items.push(Item::Missed(record.first - *next));
    }
    *next = record.first + u64::from(record.lines);
    let line = |text: &[u8], marks| {
        Item::Line(Line {
            time: record.time,
            source: Source::App,
            process: process.clone(),
            stream: record.stream,
            marks,
            text: text.to_vec(),
        })
    };
    let end = |text: &'_ [u8]| text.strip_suffix(b"\r").map_or(text.len(), <[u8]>::len);
    if record.lines == 1 {
        // A piece that goes on keeps its last byte, whatever it is.
        let length = if record.marks.more { bytes.len() } else { end(bytes) };
        items.push(line(&bytes[..length], record.marks));
        return;
    }
    let mut start = 0;
    for newline in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]) {
        let text = &bytes[start..newline];
        items.push(line(&text[..end(text)], record.marks));
        start = newline + 1;
    }
}

/// Bytes that the record at the front needs, where it is whole but for its end.
fn missing(buffer: &[u8]) -> Option<usize> {
    let record = Record::from_bytes(buffer.first_chunk::<LENGTH>()?)?;
    let wanted = LENGTH + record.length as usize;
    (wanted > buffer.len()).then_some(wanted)
}

fn header_length(buffer: &[u8]) -> Option<usize> {
    let rest = buffer.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    (length <= rest.len()).then_some(MAGIC.len() + 4 + length)
}

fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut indices = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        indices.extend(segment_index(entry?.file_name().as_encoded_bytes()));
    }
    Ok(indices)
}

fn newest(folder: &Path) -> io::Result<Option<u64>> {
    Ok(segments(folder)?.into_iter().max())
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
