//! The durable buffer of one process's output: a folder of segment files.
//!
//! A segment is a header and then records, appended only. A record is what one read from a pipe
//! brought: whole lines with one time stamp, or one piece of a long line.
//!
//! ```text
//! segment  "TOLVLOG1"  u32 length  JSON { process, first }  record*
//! record   "TLR1"  u32 length  u64 first line  i64 µs  u32 lines  u8 stream  u8 marks  u32 check
//!          bytes, lines divided by '\n'                                  (all little-endian)
//! ```
//!
//! Lines are numbered from 0 in a spool, dropped ones too: a reader knows from a gap how many it
//! missed, and by whom they were dropped does not matter: the oldest segment made room, the disk
//! was full and the ring in memory too, or a record was damaged.
//!
//! # Invariants
//!
//! * The sum of the segments stays within [`Limits::total`] and one segment more.
//! * A damaged or cut record costs itself alone: the next is found by its mark.

mod reader;
mod record;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use reader::{Item, Reader};
pub use writer::Writer;

use crate::line::Line;

/// How much one spool may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Bytes after which a segment is closed.
    pub segment: u64,
    /// Bytes of all segments, after which the oldest goes.
    pub total: u64,
}

impl Limits {
    /// `total` bytes in eight segments.
    pub fn of(total: u64) -> Self {
        Self { segment: (total / 8).max(64 * 1024), total }
    }
}

/// What stands at a segment's start.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Header {
    /// Whose output it is: `web.1`.
    process: String,
    /// The number of its first line.
    first: u64,
}

const MAGIC: &[u8; 8] = b"TOLVLOG1";
const EXTENSION: &str = "spool";

fn segment_name(index: u64) -> String {
    format!("{index:010}.{EXTENSION}")
}

fn segment_index(name: &[u8]) -> Option<u64> {
    let (stem, extension) = std::str::from_utf8(name).ok()?.split_once('.')?;
    (extension == EXTENSION).then(|| stem.parse().ok()).flatten()
}

/// The last `count` lines of the spool in `folder`.
///
/// # Errors
///
/// The folder or a segment cannot be read.
pub fn last_lines(folder: &Path, process: Arc<str>, count: usize) -> io::Result<Vec<Line>> {
    let mut reader = Reader::open(folder, process);
    let mut lines = std::collections::VecDeque::new();
    let mut items = Vec::new();
    while reader.read(&mut items)? {
        for item in items.drain(..) {
            if let Item::Line(line) = item {
                if lines.len() == count {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        }
    }
    Ok(lines.into())
}

/// Most spools that [`tidy`] leaves: each start of a process makes one.
const MOST: usize = 1000;

/// Removes the oldest spools of `folder`, its subfolders, until the rest fit `limit` bytes and are
/// no more than 1,000; those in `keep` stay. Returns how many were removed.
///
/// # Errors
///
/// The folder cannot be listed. What vanishes meanwhile is no error.
pub fn tidy(folder: &Path, limit: u64, keep: &dyn Fn(&str) -> bool) -> io::Result<usize> {
    let mut spools = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (mut size, mut newest) = (0, std::time::SystemTime::UNIX_EPOCH);
        let Ok(segments) = std::fs::read_dir(entry.path()) else { continue };
        for meta in segments.flatten().filter_map(|segment| segment.metadata().ok()) {
            size += meta.len();
            newest = newest.max(meta.modified().unwrap_or(newest));
        }
        let name = entry.file_name();
        let kept = name.to_str().is_none_or(keep);
        spools.push((newest, size, kept, entry.path()));
    }
    let mut total: u64 = spools.iter().map(|spool| spool.1).sum();
    spools.sort();
    let (mut removed, count) = (0, spools.len());
    for (_, size, kept, path) in spools {
        if total <= limit && count - removed <= MOST {
            break;
        }
        if !kept && std::fs::remove_dir_all(path).is_ok() {
            total -= size;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
