//! Questions to a log: the last lines that fit, or those behind a place.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use regex::bytes::Regex;

use super::reader::{Item, Read, Seen, end, line, lines};
use super::record::Record;
use super::{Cursor, Place, Reader, segment_name, segments, shared_name};
use crate::line::{Line, Micros, Source};

/// A record may stand this much later in the log than its time says.
const SLACK: i64 = 60_000_000;

/// Which lines are wanted; what is not said fits everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Not before.
    pub since: Option<Micros>,
    /// Before.
    pub until: Option<Micros>,
    /// Of this process, `web.1`, or of all of a type, `web`.
    pub process: Option<String>,
    /// Written by the app, or by the platform.
    pub source: Option<Source>,
    /// Of this release.
    pub release: Option<u32>,
    /// With this in its text.
    pub grep: Option<Regex>,
    /// Put there by this writer.
    pub writer: Option<u64>,
}

impl Filter {
    /// Whether a line of the record may fit.
    fn takes(&self, record: &Record, name: &[u8]) -> bool {
        self.writer.is_none_or(|writer| record.writer == writer)
            && self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time < until)
            && self.source.is_none_or(|source| record.source == source)
            && self.release.is_none_or(|release| record.release == release)
            && self.process.as_ref().is_none_or(|process| is_of(name, process.as_bytes()))
    }

    /// Whether lines of a process that are gone may have been among those that fit.
    pub fn takes_missed(&self, source: Source, process: &str) -> bool {
        let of = |wanted: &String| is_of(process.as_bytes(), wanted.as_bytes());
        self.source.is_none_or(|wanted| wanted == source) && self.process.as_ref().is_none_or(of)
    }

    /// Whether a line fits.
    pub fn takes_line(&self, line: &Line) -> bool {
        self.since.is_none_or(|since| line.time >= since)
            && self.until.is_none_or(|until| line.time < until)
            && self.source.is_none_or(|source| line.source == source)
            && self.release.is_none_or(|release| line.release == Some(release))
            && self
                .process
                .as_ref()
                .is_none_or(|process| is_of(line.process.as_bytes(), process.as_bytes()))
            && self.grep.as_ref().is_none_or(|grep| grep.is_match(&line.text))
    }
}

/// Whether `name` is `wanted`, or `wanted` and a number.
fn is_of(name: &[u8], wanted: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(wanted) else { return false };
    match rest.split_first() {
        None => true,
        Some((b'.', digits)) => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

/// Lines that fit, and the place to go on at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The oldest first.
    pub lines: Vec<Line>,
    /// Behind everything that was looked at.
    pub place: Place,
    /// Whether there may be more behind it.
    pub more: bool,
    /// Whether the place that was asked for is not there any more.
    pub gap: bool,
}

/// How much a question may bring at once; it is cut behind the first line of which there is too much.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Lines.
    pub lines: usize,
    /// Bytes of their text; one line comes however long it is.
    pub bytes: usize,
}

/// The last lines of a segment that fit, or how many there are where they have too many bytes.
#[derive(Default)]
struct LastLines {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Of all lines of the segment that fit, kept or not.
    count: usize,
    is_too_large: bool,
}

impl LastLines {
    fn push(&mut self, line: Line, most: Most) {
        self.count += 1;
        if self.is_too_large {
            return;
        }
        self.bytes += line.text.len();
        self.lines.push_back(line);
        if self.lines.len() > most.lines {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.text.len());
        }
        if self.bytes > most.bytes {
            (self.lines, self.is_too_large) = (VecDeque::new(), true);
        }
    }
}

/// The last lines that fit, as many as `most` says; looks at no more segments than that needs. Where
/// these have more bytes than it says they come in pages: the first of them is given, and the rest
/// is behind its place.
///
/// # Errors
///
/// The folder or a segment cannot be read.
pub fn tail(folder: &Path, filter: &Filter, most: Most) -> io::Result<Found> {
    let end = end(folder)?;
    let mut parts: Vec<VecDeque<Line>> = Vec::new();
    let (mut left, mut is_too_large) = (most, false);
    let mut start = Place::default();
    for segment in segments(folder)?.into_iter().rev() {
        if left.lines == 0 || filter.since.is_some_and(|since| is_older(folder, segment, since)) {
            break;
        }
        let until = if segment == end.segment { end.offset } else { u64::MAX };
        let mut part = LastLines { is_too_large, ..LastLines::default() };
        scan(folder, segment, until, filter, &mut |line| part.push(line, left))?;
        is_too_large = part.is_too_large;
        left.bytes -= part.bytes.min(left.bytes);
        // Where the first page begins if there is more than one.
        let skipped = part.count.saturating_sub(left.lines);
        start = Place { cursor: Cursor { segment, offset: 0 }, lines: skipped as u64 };
        left.lines -= part.count.min(left.lines);
        parts.push(part.lines);
    }
    if is_too_large {
        return gather(folder, start, filter, most);
    }
    let lines = parts.into_iter().rev().flatten().collect();
    Ok(Found { lines, place: Place { cursor: end, lines: 0 }, ..Found::default() })
}

/// Whether nothing in a segment is as young as `since`.
fn is_older(folder: &Path, segment: u64, since: Micros) -> bool {
    let modified = std::fs::metadata(folder.join(segment_name(segment)))
        .and_then(|meta| meta.modified())
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .and_then(|age| i64::try_from(age.as_micros()).ok());
    modified.is_some_and(|modified| modified + SLACK < since.0)
}

/// Everything of one segment that fits.
fn scan(
    folder: &Path,
    segment: u64,
    until: u64,
    filter: &Filter,
    give: &mut dyn FnMut(Line),
) -> io::Result<()> {
    let mut reader = Reader::at(folder, Cursor { segment, offset: 0 });
    let mut done = false;
    while !done {
        let read = reader.read_with(&mut |reader, seen| {
            done = seen.behind.segment != segment || seen.behind.offset > until;
            if !done {
                pick(reader, filter, &seen, &mut |_, line| give(line));
            }
            !done
        })?;
        done |= read != Read::Some;
    }
    Ok(())
}

/// Whether a line is in the log, or counts what is missing there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stored,
    Missed,
}

/// The lines of a record that fit, behind one that counts what is missing before it.
fn pick(reader: &mut Reader, filter: &Filter, seen: &Seen<'_>, give: &mut dyn FnMut(Kind, Line)) {
    let Seen { record, name, text, .. } = seen;
    if let Some(Item::Missed { source, process, lines, .. }) = reader.account(record, name)
        && filter.takes_missed(source, &process)
        && filter.grep.is_none()
    {
        give(Kind::Missed, Line { time: record.time, ..Line::dropped(process, Some(lines)) });
    }
    reader.count(record, text);
    if !filter.takes(record, name) {
        return;
    }
    let mut process: Option<Arc<str>> = None;
    let mut take = |text: &[u8]| {
        let process = process.get_or_insert_with(|| shared_name(name));
        give(Kind::Stored, line(record, process, text));
    };
    match &filter.grep {
        None => lines(record, text, &mut take),
        // Most records have nothing: one search in all of it, not one a line.
        Some(grep) if !may_match(grep, text) => {}
        Some(grep) => lines(record, text, &mut |text| {
            if grep.is_match(text) {
                take(text);
            }
        }),
    }
}

/// Whether a line of the text may match: anchors are lines' ends, so only a search in each can
/// say no where there are any.
fn may_match(grep: &Regex, text: &[u8]) -> bool {
    let pattern = grep.as_str();
    pattern.contains(['^', '$', '\\']) || grep.is_match(text)
}

/// Lines that fit, from `from` on or from the oldest, as many as `most` says.
///
/// # Errors
///
/// The folder or a segment cannot be read.
pub fn page(folder: &Path, from: Option<Place>, filter: &Filter, most: Most) -> io::Result<Found> {
    let start = match from {
        Some(place) => place,
        None => Place { cursor: first(folder, filter.since)?, lines: 0 },
    };
    gather(folder, start, filter, most)
}

/// What is skipped is counted and not stored.
fn gather(folder: &Path, from: Place, filter: &Filter, most: Most) -> io::Result<Found> {
    let mut reader = Reader::at(folder, from.cursor);
    let (mut skip, mut bytes) = (from.lines, 0);
    let mut found = Found::default();
    let mut cut = None;
    while !found.more {
        let read = reader.read_with(&mut |reader, seen| {
            // Of this record: skipped or given.
            let mut taken = 0;
            pick(reader, filter, &seen, &mut |kind, line| {
                if cut.is_some() {
                    return;
                }
                if skip > 0 {
                    let is_stored = u64::from(kind == Kind::Stored);
                    (skip, taken) = (skip - is_stored, taken + is_stored);
                    return;
                }
                let is_full = found.lines.len() >= most.lines
                    || !found.lines.is_empty() && bytes + line.text.len() > most.bytes;
                if is_full
                    && kind == Kind::Stored
                    && let Some(cursor) = seen.start
                {
                    cut = Some(Place { cursor, lines: taken });
                    return;
                }
                taken += u64::from(kind == Kind::Stored);
                bytes += line.text.len();
                found.lines.push(line);
            });
            found.more = cut.is_some() || found.lines.len() >= most.lines || bytes >= most.bytes;
            !found.more
        })?;
        match read {
            // What was to be skipped made room.
            Read::Gap => (found.gap, skip) = (true, 0),
            Read::All => break,
            Read::Some => {}
        }
    }
    found.place = cut.unwrap_or(Place { cursor: reader.cursor(), lines: 0 });
    Ok(found)
}

/// The oldest segment that may have something as young as `since`.
fn first(folder: &Path, since: Option<Micros>) -> io::Result<Cursor> {
    let all = segments(folder)?;
    let old = |segment: &&u64| since.is_some_and(|since| is_older(folder, **segment, since));
    let skipped = all.iter().take_while(old).count();
    let segment = all.get(skipped).or(all.last()).copied().unwrap_or(0);
    Ok(Cursor { segment, offset: 0 })
}
