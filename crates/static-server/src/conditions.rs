//! Conditional and range requests (RFC 9110, sections 13 and 14), without I/O.
//!
//! A date is compared as text with the one that was sent: a client that has any other date, even
//! a later one, does not have this file. After a rollback the file is older than what the client
//! has, and still another one.

use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use hyper::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// What names this state of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Validators {
    /// With its quotes.
    pub(crate) etag: String,
    /// For `Last-Modified`; absent where it would lie in the future.
    pub(crate) modified: Option<String>,
}

impl Validators {
    /// From what the file system says.
    ///
    /// The time is when the file came to stand here, not when it was written: a build may set
    /// the latter to anything, the same for each file of each deploy.
    pub(crate) fn of(meta: &Metadata, now: SystemTime) -> Self {
        let mut hash = DefaultHasher::new();
        (meta.dev(), meta.ino(), meta.len()).hash(&mut hash);
        (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()).hash(&mut hash);
        let changed = Timestamp::from_second(meta.ctime()).ok();
        let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
        let printed = changed
            .filter(|changed| *changed <= now)
            .and_then(|changed| DateTimePrinter::new().timestamp_to_rfc9110_string(&changed).ok());
        Self { etag: format!("\"{:016x}\"", hash.finish()), modified: printed }
    }

    /// Whether a list of tags has this file's. A weak one will do for `weak`.
    fn in_list(&self, headers: &HeaderMap, name: HeaderName, weak: bool) -> Option<bool> {
        let mut lines = headers.get_all(name).iter().peekable();
        lines.peek()?;
        // The tag has no comma, so parts of other tags can only differ.
        let mut tags = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
        Some(tags.any(|tag| {
            let tag = tag.trim_ascii();
            let tag = if weak { tag.strip_prefix(b"W/").unwrap_or(tag) } else { tag };
            tag == b"*" || tag == self.etag.as_bytes()
        }))
    }

    fn is_date(&self, date: &[u8]) -> bool {
        self.modified.as_ref().is_some_and(|modified| modified.as_bytes() == date.trim_ascii())
    }
}

/// What to send of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All of it.
    Whole,
    /// From the first of these bytes to before the second.
    Part(u64, u64),
    /// Nothing: the client has it (304).
    NotModified,
    /// Nothing: it is not the file that the client wants (412).
    Failed,
    /// Nothing: no byte of it was asked for (416).
    OutOfRange,
}

/// Judges a GET request, or a HEAD request, for a file of `length` bytes.
pub(crate) fn judge(
    headers: &HeaderMap,
    validators: &Validators,
    length: u64,
    get: bool,
) -> Verdict {
    if validators.in_list(headers, IF_MATCH, false) == Some(false) {
        return Verdict::Failed;
    }
    let known = validators.in_list(headers, IF_NONE_MATCH, true).unwrap_or_else(|| {
        headers.get(IF_MODIFIED_SINCE).is_some_and(|date| validators.is_date(date.as_bytes()))
    });
    if known {
        return Verdict::NotModified;
    }
    let same = headers.get(IF_RANGE).is_none_or(|value| {
        let value = value.as_bytes().trim_ascii();
        value == validators.etag.as_bytes() || validators.is_date(value)
    });
    let mut ranges = headers.get_all(RANGE).iter();
    match (ranges.next().and_then(|range| range.to_str().ok()), ranges.next()) {
        (Some(range), None) if get && same => self::range(range, length),
        _ => Verdict::Whole,
    }
}

/// Judges one `Range`. What is no range of bytes, or more than one, is as if it were not there.
fn range(text: &str, length: u64) -> Verdict {
    let Some((first, last)) = bounds(text) else { return Verdict::Whole };
    match (first, last) {
        (Some(first), _) if first >= length => Verdict::OutOfRange,
        (Some(first), Some(last)) if last < first => Verdict::Whole,
        (Some(first), Some(last)) => Verdict::Part(first, length.min(last.saturating_add(1))),
        (Some(first), None) => Verdict::Part(first, length),
        (None, Some(0)) => Verdict::OutOfRange,
        (None, Some(_)) if length == 0 => Verdict::Whole,
        (None, Some(count)) => Verdict::Part(length.saturating_sub(count), length),
        (None, None) => Verdict::Whole,
    }
}

/// `bytes=first-last`, either of which may be left out.
fn bounds(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| {
        if text.is_empty() {
            return Some(None);
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit are more bytes than there are.
        digits.then(|| Some(text.parse().unwrap_or(u64::MAX)))
    };
    let bounds = (number(first)?, number(last)?);
    unit.trim().eq_ignore_ascii_case("bytes").then_some(bounds)
}

#[cfg(test)]
mod tests;
