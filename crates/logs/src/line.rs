//! One line of the log, as readers get it.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub i64);

impl Micros {
    /// The clock of this machine.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A process of the app.
    App,
    /// The platform.
    Tolv,
}

impl Source {
    /// The name in the views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Tolv => "tolv",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which of a process's two streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// The name in the views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

/// How a piece belongs to its line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// The line goes on in the stream's next piece.
    pub more: bool,
    /// This goes on with the line of the stream's piece before.
    pub continued: bool,
    /// `more` because the line is longer than one piece may be, not because it came slowly.
    pub long: bool,
}

impl Marks {
    pub(crate) fn to_bits(self) -> u8 {
        u8::from(self.more) | u8::from(self.continued) << 1 | u8::from(self.long) << 2
    }

    pub(crate) fn from_bits(bits: u8) -> Self {
        Self { more: bits & 1 != 0, continued: bits & 2 != 0, long: bits & 4 != 0 }
    }
}

/// One line, or one piece of a line that was split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was read from the process.
    pub time: Micros,
    /// Who wrote it.
    pub source: Source,
    /// Which process: `web.1`, `release.1`, `router`.
    pub process: Arc<str>,
    /// Of which release, where it is of one.
    pub release: Option<u32>,
    /// Which stream.
    pub stream: Stream,
    /// Whether it is a piece of a longer line.
    pub marks: Marks,
    /// The bytes, without the line's end.
    pub text: Vec<u8>,
}

impl Line {
    /// A line of the platform about `process`, now.
    pub fn tolv(process: impl Into<Arc<str>>, text: impl Into<Vec<u8>>) -> Self {
        Self {
            time: Micros::now(),
            source: Source::Tolv,
            process: process.into(),
            release: None,
            stream: Stream::Out,
            marks: Marks::default(),
            text: text.into(),
        }
    }

    /// The line that counts what a reader of `process` does not get: it was too slow, the disk was
    /// full, or a record is damaged (`L10`). Nothing where nobody knows how many.
    pub fn dropped(process: impl Into<Arc<str>>, lines: Option<u64>) -> Self {
        let count = match lines {
            Some(1) => "1 line".to_owned(),
            Some(lines) => format!("{lines} lines"),
            None => "an unknown number of lines".to_owned(),
        };
        Self::tolv(process, format!("Error L10 (output buffer overflow): {count} dropped"))
    }

    /// The same, of a release.
    #[must_use]
    pub fn of_release(mut self, release: u32) -> Self {
        self.release = Some(release);
        self
    }
}
