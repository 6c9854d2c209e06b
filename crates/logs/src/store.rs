//! The log of one deploy on disk: a folder of segment files that many writers append to.
//!
//! Each shim writes the output of its process, the platform writes what it says of them and the
//! router's lines: all into the same segment, each record with one `write` that the kernel does not
//! interleave (`O_APPEND`). A segment that is full is left; whoever makes the next removes the
//! oldest. A place in the log is a segment and an offset: that is the cursor of a reader.
//!
//! ```text
//! segment  record*                                         0000000012.log, about 8 MiB
//! record   "TLR2"  u32 length  u64 writer  u64 first line  u64 first byte  i64 µs  u32 lines
//!          u32 release  u8 flags  u8 name length  u32 crc of the rest  u32 check of the head
//!          name of the process, lines divided by '\n'                     (all little-endian)
//! ```
//!
//! A record is what one read from a pipe brought: whole lines with one time stamp, or one piece of
//! a long line. A writer numbers its lines and bytes from 0, dropped ones too: a reader knows from
//! a gap how much it missed, and by whom it was dropped does not matter: the oldest segment made
//! room, the disk was full and the ring in memory too, or a record was damaged.
//!
//! # Invariants
//!
//! * The sum of the segments stays within [`Limits::total`] and one segment more.
//! * A damaged or cut record costs itself alone: the next is found by its mark.
//! * What an app writes is never read as a record: it is inside one whose sum holds.

mod query;
mod reader;
mod record;
mod writer;

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use query::{Filter, Found, Most, page, tail};
pub use reader::{Item, Position, Reader};
pub use writer::{Count, Tag, Writer};

use crate::line::Line;

/// How much the log of a deploy may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes after which a segment is left.
    pub segment: u64,
    /// Bytes of all segments, after which the oldest goes.
    pub total: u64,
    /// While the disk has fewer bytes free than this the log does not grow.
    #[serde(default)]
    pub min_free: u64,
}

impl Limits {
    /// `total` bytes in 32 segments.
    pub fn of(total: u64) -> Self {
        Self { segment: (total / 32).max(64 * 1024), total, min_free: 0 }
    }

    /// While the disk has fewer bytes free than this the log does not grow.
    #[must_use]
    pub fn on_a_disk_with(self, min_free: u64) -> Self {
        Self { min_free, ..self }
    }
}

/// A place in the log of a deploy, as `12-4039`: a reader that begins there goes on behind
/// everything before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Cursor {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment, self.offset)
    }
}

/// A text that is no [`Cursor`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a place in a log, as `12-4039` is")]
pub struct NoCursor(String);

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let parse = || {
            let (segment, offset) = text.split_once('-')?;
            let number = |text: &str| {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                digits.then(|| text.parse().ok()).flatten()
            };
            let cursor = Self { segment: number(segment)?, offset: number(offset)? };
            // No file has a place that is larger.
            i64::try_from(cursor.offset).is_ok().then_some(cursor)
        };
        parse().ok_or_else(|| NoCursor(text.chars().take(40).collect()))
    }
}

/// Lines that one read of a log may bring: a record that is as large as it may be and pieces of others,
/// with an end of a line in each byte.
const MAX_LINES: u64 = 2 * (record::MAX_BYTES + reader::READ) as u64;

/// A place among the lines that fit a question: behind some of those that come after a cursor. `12-4039`
/// or `12-4039.3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Where the lines are counted from.
    pub cursor: Cursor,
    /// How many of them were taken.
    pub lines: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines {
            0 => write!(f, "{}", self.cursor),
            lines => write!(f, "{}.{lines}", self.cursor),
        }
    }
}

impl FromStr for Place {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let no_place = || NoCursor(text.chars().take(40).collect());
        let (cursor, lines) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = lines.bytes().all(|byte| byte.is_ascii_digit());
        // A place that was given out has no more: it is not counted further for a stranger.
        let lines = lines.parse().ok().filter(|&lines| is_number && lines <= MAX_LINES);
        let lines = lines.ok_or_else(no_place)?;
        Ok(Self { cursor: cursor.parse().map_err(|_| no_place())?, lines })
    }
}

/// A number that tells a writer apart from the others of its log: those that began later have
/// larger ones.
pub fn writer_id(random: u64) -> u64 {
    let micros = u64::try_from(crate::Micros::now().0).unwrap_or(0);
    micros << 12 | random & 0xfff
}

const EXTENSION: &str = "log";

fn segment_name(index: u64) -> String {
    format!("{index:010}.{EXTENSION}")
}

fn segment_index(name: &[u8]) -> Option<u64> {
    let (stem, extension) = std::str::from_utf8(name).ok()?.split_once('.')?;
    (extension == EXTENSION).then(|| stem.parse().ok()).flatten()
}

/// The segments in a folder, oldest first; none where there is no folder yet.
fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let list = match std::fs::read_dir(folder) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut indices = Vec::new();
    for entry in list {
        indices.extend(segment_index(entry?.file_name().as_encoded_bytes()));
    }
    indices.sort_unstable();
    Ok(indices)
}

/// Bytes that the log in `folder` has on the disk.
///
/// # Errors
///
/// The folder cannot be listed.
pub fn size(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for index in segments(folder)? {
        // One that made room meanwhile has none.
        let meta = std::fs::metadata(folder.join(segment_name(index)));
        total += meta.map_or(0, |meta| meta.len());
    }
    Ok(total)
}

/// Bytes of the log in `folder` that lie behind a cursor.
///
/// # Errors
///
/// The folder cannot be listed.
pub fn behind(folder: &Path, cursor: Cursor) -> io::Result<u64> {
    let mut total = 0;
    for index in segments(folder)?.into_iter().filter(|&index| index >= cursor.segment) {
        // One that made room meanwhile has none.
        let size = std::fs::metadata(folder.join(segment_name(index))).map_or(0, |meta| meta.len());
        total += if index == cursor.segment { size.saturating_sub(cursor.offset) } else { size };
    }
    Ok(total)
}

/// The last `count` lines that a writer put into the log in `folder`.
///
/// # Errors
///
/// The folder or a segment cannot be read.
pub fn last_lines(folder: &Path, writer: u64, count: usize) -> io::Result<Vec<Line>> {
    let filter = Filter { writer: Some(writer), ..Filter::default() };
    Ok(tail(folder, &filter, Most { lines: count, bytes: usize::MAX })?.lines)
}

/// The name of the process as every reader shares it.
fn shared_name(name: &[u8]) -> Arc<str> {
    Arc::from(String::from_utf8_lossy(name))
}

#[cfg(test)]
mod tests;
