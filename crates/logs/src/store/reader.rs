//! The reading end: any number of them, at any time, also of a log that is being written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::{self, LENGTH, Record};
use super::{Count, Cursor, segment_name, segments, shared_name, writer_id};
use crate::line::{Line, Source};

/// Bytes of one read.
pub(super) const READ: usize = 256 * 1024;
/// Writers that are remembered; further ones put the oldest out.
const WRITERS: usize = 4096;

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A line.
    Line(Line),
    /// Lines of a process that are not to be had any more.
    Missed {
        /// Who wrote them.
        source: Source,
        /// Whose.
        process: Arc<str>,
        /// How many.
        lines: u64,
        /// Their bytes, line ends included.
        bytes: u64,
    },
    /// The place where the reader was is not there any more, and nobody knows what was.
    Gap,
}

/// What a reader has behind it; a reader made of this goes on exactly there, and counts what is
/// not to be had any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Where it is.
    pub cursor: Cursor,
    /// Writer → what of it was taken.
    writers: BTreeMap<u64, Count>,
    /// A writer that is not among them and began after this is missed from its first line on;
    /// of an older one nobody knows what was read before.
    since: u64,
}

impl Position {
    /// At `cursor`, by somebody who looks from now on.
    fn now(cursor: Cursor) -> Self {
        Self { cursor, writers: BTreeMap::new(), since: writer_id(0) }
    }
}

impl Position {
    /// The same place, which knows of the `most` writers alone that began last.
    #[must_use]
    pub fn newest(&self, most: usize) -> Self {
        let mut position = self.clone();
        while position.writers.len() > most
            && let Some((oldest, _)) = position.writers.pop_first()
        {
            position.since = oldest.max(position.since);
        }
        position
    }
}

/// Reads the log of a deploy.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    /// Whether a place that is gone is no news: the writers' numbers count what was there.
    knows: bool,
    position: Position,
    /// Segment being read; nothing before the first, and while none is there.
    open: Option<(u64, File)>,
    /// The segment before: a writer that was slow may still append to it.
    before: Option<(u64, File, u64)>,
    buffer: Vec<u8>,
    /// How much is read at once.
    piece: usize,
    names: BTreeMap<Vec<u8>, Arc<str>>,
}

impl Reader {
    /// From the oldest line on. What made room before is not missed.
    pub fn open(folder: &Path) -> Self {
        Self::new(folder, true, Position::now(Cursor::default()))
    }

    /// From `cursor` on.
    pub fn at(folder: &Path, cursor: Cursor) -> Self {
        Self::new(folder, false, Position::now(cursor))
    }

    /// From what comes next: nothing of what is there already.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn at_end(folder: &Path) -> io::Result<Self> {
        let cursor = end(folder)?;
        Ok(Self::new(folder, true, Position::now(cursor)))
    }

    /// Where another reader stopped.
    pub fn resume(folder: &Path, position: Position) -> Self {
        Self::new(folder, true, position)
    }

    fn new(folder: &Path, knows: bool, position: Position) -> Self {
        let (open, before) = (None, None);
        let (buffer, names) = (Vec::new(), BTreeMap::new());
        let folder = folder.to_owned();
        Self { folder, knows, position, open, before, buffer, piece: READ, names }
    }

    /// Reads at most about so many bytes at once.
    #[must_use]
    pub fn in_pieces(mut self, bytes: usize) -> Self {
        self.piece = bytes;
        self
    }

    /// The place behind what was read.
    pub fn cursor(&self) -> Cursor {
        self.position.cursor
    }

    /// All that another reader needs to go on here.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// What this writer has written until now is not for this reader, and is not missed by it.
    pub fn skip(&mut self, writer: u64, taken: Count) {
        self.position.writers.insert(writer, taken);
    }

    /// How much of a writer was read, or counted as missed.
    pub fn taken(&self, writer: u64) -> Count {
        self.position.writers.get(&writer).copied().unwrap_or_default()
    }

    /// Everything of an app's writer is in the log, and these were all: gives what is missing of them,
    /// and forgets the writer.
    pub fn finish(&mut self, writer: u64, process: &Arc<str>, all: Count) -> Option<Item> {
        let taken = self.position.writers.remove(&writer).unwrap_or_default();
        missed(Source::App, process, taken, all)
    }

    /// Appends some of what is there to `items`; `false` when all that is there was read.
    ///
    /// # Errors
    ///
    /// The folder or a segment cannot be read.
    pub fn read(&mut self, items: &mut Vec<Item>) -> io::Result<bool> {
        let folder = self.folder.clone();
        self.read_with(&mut |reader, Seen { record, name, text, .. }| {
            if reader.is_old(&record) {
                return true;
            }
            items.extend(reader.account(&record, name));
            reader.count(&record, text);
            let process = reader.name(name);
            lines(&record, text, &mut |text| items.push(Item::Line(line(&record, &process, text))));
            true
        })
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))
        .map(|read| {
            if read == Read::Gap {
                items.push(Item::Gap);
            }
            read != Read::All
        })
    }

    fn is_old(&self, record: &Record) -> bool {
        self.position.writers.get(&record.writer).is_some_and(|taken| record.first < taken.lines)
    }

    /// What is missing before a record.
    pub(super) fn account(&self, record: &Record, name: &[u8]) -> Option<Item> {
        let known = self.position.writers.get(&record.writer).copied();
        let taken = match known {
            Some(taken) => taken,
            None if record.writer > self.position.since => Count::default(),
            None => return None,
        };
        let until = Count { lines: record.first, bytes: record.before };
        missed(record.source, &shared_name(name), taken, until)
    }

    pub(super) fn count(&mut self, record: &Record, text: &[u8]) {
        let Position { writers, since, .. } = &mut self.position;
        if writers.len() >= WRITERS
            && !writers.contains_key(&record.writer)
            && let Some((oldest, _)) = writers.pop_first()
        {
            *since = oldest.max(*since);
        }
        let ends = record.lines > 0 && !record.marks.more;
        let bytes = text.len() as u64 + u64::from(ends);
        let lines = record.first.saturating_add(u64::from(record.lines));
        writers.insert(record.writer, Count { lines, bytes: record.before.saturating_add(bytes) });
    }

    fn name(&mut self, name: &[u8]) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.names.len() >= WRITERS {
            self.names.clear();
        }
        let shared = shared_name(name);
        self.names.insert(name.to_owned(), Arc::clone(&shared));
        shared
    }

    /// Gives some records to `visit`, in order, until it says `false`: then the reader stands
    /// behind that record.
    pub(super) fn read_with(&mut self, visit: &mut Visit<'_>) -> io::Result<Read> {
        if !self.read_late(visit)? {
            return Ok(Read::Some);
        }
        loop {
            if self.open.is_none() {
                let wanted = self.position.cursor;
                match self.open_from(wanted.segment)? {
                    None => return Ok(Read::All),
                    Some(found) if found == wanted.segment => {}
                    Some(found) => {
                        self.position.cursor = Cursor { segment: found, offset: 0 };
                        if !self.knows {
                            self.knows = true;
                            return Ok(Read::Gap);
                        }
                    }
                }
            }
            let Some((index, file)) = &self.open else { return Ok(Read::All) };
            let index = *index;
            // Before the end is looked at: what comes later is in the next one.
            let newer = segments(&self.folder)?.last().is_some_and(|&newest| newest > index);
            // Kept only while there is more: of many readers, most wait.
            let mut buffer = match std::mem::take(&mut self.buffer) {
                buffer if buffer.is_empty() => vec![0; self.piece],
                buffer => buffer,
            };
            let offset = self.position.cursor.offset;
            let mut length = read_at(file, &mut buffer, offset)?;
            if let Some(wanted) = missing(&buffer[..length])
                && length == buffer.len()
            {
                // A record larger than the buffer.
                buffer.resize(wanted, 0);
                length = read_at(file, &mut buffer, offset)?;
            }
            let at_end = length < buffer.len();
            let Parsed { used, some, .. } =
                self.parse(&buffer[..length], Some(offset), newer && at_end, visit);
            self.position.cursor.offset = offset + used as u64;
            if some {
                self.buffer = buffer;
                return Ok(Read::Some);
            }
            if used == 0 {
                if !newer {
                    return Ok(Read::All);
                }
                self.leave(index)?;
            }
        }
    }

    /// What a writer that was slow has put into the segment before; whether to go on.
    fn read_late(&mut self, visit: &mut Visit<'_>) -> io::Result<bool> {
        let Some((index, file, offset)) = self.before.take() else { return Ok(true) };
        let mut bytes = Vec::new();
        if file.metadata()?.len() > offset {
            bytes.resize(READ, 0);
            let length = read_at(&file, &mut bytes, offset)?;
            bytes.truncate(length);
        }
        let Parsed { used, stopped, .. } = self.parse(&bytes, None, false, visit);
        self.before = Some((index, file, offset + used as u64));
        Ok(!stopped)
    }

    /// Goes on behind a segment that is read to its end.
    fn leave(&mut self, index: u64) -> io::Result<()> {
        let offset = self.position.cursor.offset;
        self.before = self.open.take().map(|(_, file)| (index, file, offset));
        self.position.cursor = Cursor { segment: index + 1, offset: 0 };
        // What lies between made room already: counted by the writers' numbers.
        if let Some(found) = self.open_from(index + 1)? {
            self.position.cursor.segment = found;
        }
        Ok(())
    }

    /// Opens the first segment that is not before `index`.
    fn open_from(&mut self, index: u64) -> io::Result<Option<u64>> {
        loop {
            let Some(found) = segments(&self.folder)?.into_iter().find(|&at| at >= index) else {
                return Ok(None);
            };
            match File::open(self.folder.join(segment_name(found))) {
                Ok(file) => {
                    self.open = Some((found, file));
                    return Ok(Some(found));
                }
                // It made room between the listing and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes records off the bytes, which begin at `base` of the segment where they are not late.
    /// What is not whole is left; in a segment that is `complete`, it is damage.
    fn parse(
        &mut self,
        read: &[u8],
        base: Option<u64>,
        complete: bool,
        visit: &mut Visit<'_>,
    ) -> Parsed {
        let (mut at, mut some) = (0, false);
        while at < read.len() {
            let rest = &read[at..];
            let Some(head) = rest.first_chunk::<LENGTH>() else {
                if complete {
                    at = read.len();
                }
                break;
            };
            let Some(record) = Record::from_bytes(head) else {
                // Damage: go on at the next mark, keeping what may be the start of one.
                let next = memchr::memmem::find(&rest[1..], record::MAGIC);
                at += next.map_or(rest.len() - (record::MAGIC.len() - 1), |place| place + 1);
                continue;
            };
            let Some(body) = rest[LENGTH..].get(..record.length as usize) else {
                if complete {
                    at += 1;
                    continue;
                }
                break;
            };
            if record::sum(&[body]) != record.sum {
                at += 1;
                continue;
            }
            let (name, text) = body.split_at(usize::from(record.name));
            some = true;
            let Cursor { segment, offset } = self.position.cursor;
            let start = base.map(|base| Cursor { segment, offset: base + at as u64 });
            at += LENGTH + body.len();
            let offset = base.map_or(offset, |base| base + at as u64);
            let behind = Cursor { segment, offset };
            if !visit(self, Seen { record, name, text, start, behind }) {
                return Parsed { used: at, some, stopped: true };
            }
        }
        Parsed { used: at, some, stopped: false }
    }
}

/// Takes records; whether to go on.
pub(super) type Visit<'a> = dyn FnMut(&mut Reader, Seen<'_>) -> bool + 'a;

/// A record that is whole.
pub(super) struct Seen<'a> {
    pub(super) record: Record,
    pub(super) name: &'a [u8],
    pub(super) text: &'a [u8],
    /// The place before it; nothing where it came late into the segment before.
    pub(super) start: Option<Cursor>,
    /// The place behind it.
    pub(super) behind: Cursor,
}

/// What became of some bytes.
struct Parsed {
    used: usize,
    /// Whether there was a record.
    some: bool,
    /// Whether no more are wanted.
    stopped: bool,
}

/// How far a read came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// There were records.
    Some,
    /// The place of the cursor is not there any more.
    Gap,
    /// All that is there was read.
    All,
}

/// The place behind all that is there.
pub(super) fn end(folder: &Path) -> io::Result<Cursor> {
    let Some(&segment) = segments(folder)?.last() else { return Ok(Cursor::default()) };
    let size = std::fs::metadata(folder.join(segment_name(segment)));
    Ok(Cursor { segment, offset: size.map_or(0, |meta| meta.len()) })
}

fn missed(source: Source, process: &Arc<str>, taken: Count, until: Count) -> Option<Item> {
    let lines = until.lines.saturating_sub(taken.lines);
    let (process, bytes) = (Arc::clone(process), until.bytes.saturating_sub(taken.bytes));
    (lines > 0).then_some(Item::Missed { source, process, lines, bytes })
}

pub(super) fn line(record: &Record, process: &Arc<str>, text: &[u8]) -> Line {
    Line {
        time: record.time,
        source: record.source,
        process: Arc::clone(process),
        release: (record.release > 0).then_some(record.release),
        stream: record.stream,
        marks: record.marks,
        text: text.to_vec(),
    }
}

/// The lines of a record's text.
pub(super) fn lines(record: &Record, text: &[u8], give: &mut dyn FnMut(&[u8])) {
    let end = |text: &'_ [u8]| text.strip_suffix(b"\r").map_or(text.len(), <[u8]>::len);
    if record.lines == 0 {
        return;
    }
    if record.lines == 1 {
        // A piece that goes on keeps its last byte, whatever it is.
        let length = if record.marks.more { text.len() } else { end(text) };
        give(&text[..length]);
        return;
    }
    let mut start = 0;
    for newline in memchr::memchr_iter(b'\n', text).chain([text.len()]) {
        let line = &text[start..newline];
        give(&line[..end(line)]);
        start = newline + 1;
    }
}

/// Bytes that the record at the front needs, where it is whole but for its end.
fn missing(buffer: &[u8]) -> Option<usize> {
    let record = Record::from_bytes(buffer.first_chunk::<LENGTH>()?)?;
    let wanted = LENGTH + record.length as usize;
    (wanted > buffer.len()).then_some(wanted)
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
