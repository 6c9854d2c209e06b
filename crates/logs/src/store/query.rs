//! Questions to a log: the last lines that fit, or those behind a place.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use regex::bytes::Regex;

use super::reader::{Item, Read, Seen, end, line, lines};
use super::record::Record;
use super::{Cursor, Reader, segment_name, segments, shared_name};
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

/// Lines that fit, each with the place behind its record, and the place to go on at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The oldest first.
    pub lines: Vec<(Line, Cursor)>,
    /// Behind everything that was looked at.
    pub cursor: Cursor,
    /// Whether there may be more behind it.
    pub more: bool,
    /// Whether the place that was asked for is not there any more.
    pub gap: bool,
}

/// The last `count` lines that fit; looks at no more segments than that needs.
///
/// # Errors
///
/// The folder or a segment cannot be read.
pub fn tail(folder: &Path, filter: &Filter, count: usize) -> io::Result<Found> {
    let cursor = end(folder)?;
    let mut found = Found { cursor, ..Found::default() };
    let mut parts: Vec<Vec<(Line, Cursor)>> = Vec::new();
    let mut left = count;
    for segment in segments(folder)?.into_iter().rev() {
        if left == 0 || filter.since.is_some_and(|since| is_older(folder, segment, since)) {
            break;
        }
        let until = if segment == cursor.segment { cursor.offset } else { u64::MAX };
        let mut part = std::collections::VecDeque::new();
        scan(folder, segment, until, filter, &mut |line, cursor| {
            if part.len() == left {
                part.pop_front();
            }
            part.push_back((line, cursor));
        })?;
        left -= part.len();
        parts.push(part.into());
    }
    found.lines = parts.into_iter().rev().flatten().collect();
    Ok(found)
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
    give: &mut dyn FnMut(Line, Cursor),
) -> io::Result<()> {
    let mut reader = Reader::at(folder, Cursor { segment, offset: 0 });
    let mut done = false;
    while !done {
        let read = reader.read_with(&mut |reader, seen| {
            done = seen.behind.segment != segment || seen.behind.offset > until;
            if !done {
                pick(reader, filter, &seen, &mut |line| give(line, seen.behind));
            }
            !done
        })?;
        done |= read != Read::Some;
    }
    Ok(())
}

/// The lines of a record that fit, behind one that counts what is missing before it.
fn pick(reader: &mut Reader, filter: &Filter, seen: &Seen<'_>, give: &mut dyn FnMut(Line)) {
    let Seen { record, name, text, .. } = seen;
    if let Some(Item::Missed { source, process, lines, .. }) = reader.account(record, name)
        && filter.takes_missed(source, &process)
        && filter.grep.is_none()
    {
        give(Line { time: record.time, ..Line::dropped(process, Some(lines)) });
    }
    reader.count(record, text);
    if !filter.takes(record, name) {
        return;
    }
    let mut process: Option<Arc<str>> = None;
    let mut take = |text: &[u8]| {
        let process = process.get_or_insert_with(|| shared_name(name));
        give(line(record, process, text));
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

/// `limit` lines that fit, from `from` on or from the oldest, and the rest of the last one's record.
///
/// # Errors
///
/// The folder or a segment cannot be read.
pub fn page(
    folder: &Path,
    from: Option<Cursor>,
    filter: &Filter,
    limit: usize,
) -> io::Result<Found> {
    let start = match from {
        Some(cursor) => cursor,
        None => first(folder, filter.since)?,
    };
    let mut reader = Reader::at(folder, start);
    let mut found = Found::default();
    while !found.more {
        let read = reader.read_with(&mut |reader, seen| {
            pick(reader, filter, &seen, &mut |line| found.lines.push((line, seen.behind)));
            found.more = found.lines.len() >= limit;
            !found.more
        })?;
        match read {
            Read::Gap => found.gap = true,
            Read::All => break,
            Read::Some => {}
        }
    }
    found.cursor = reader.cursor();
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
