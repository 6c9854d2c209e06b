//! One-off runs (factor XII): what is run, how it is connected, where it is.
//!
//! ```text
//!  starting ──▶ up ──▶ ended        with an exit
//!      │         └───▶ lost         the platform ended without a word
//!      └──▶ failed                  it could not be started
//! ```

pub mod ring;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::env::{Env, EnvError, EnvName};

/// Longest word, in bytes: execve's own limit is 128 KiB with the NUL.
pub const MAX_WORD: usize = 128 * 1024 - 1;
/// All words in bytes, each with its NUL.
pub const MAX_WORDS: usize = 256 * 1024;

/// Why words cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgvError {
    /// There is nothing to run.
    #[error("there is no command to run")]
    Empty,
    /// execve cannot carry it.
    #[error("word {0} of the command has a NUL byte")]
    Nul(usize),
    /// execve would refuse it.
    #[error("word {place} of the command has {len} bytes, more than {MAX_WORD}")]
    TooLong {
        /// Which, from 1.
        place: usize,
        /// Its bytes.
        len: usize,
    },
    /// More than a command is.
    #[error("the command has {0} bytes in all, more than {MAX_WORDS}")]
    TooLarge(usize),
}

/// The words of a command, executed as they are: no shell reads them.
///
/// In JSON a list; a word that is not UTF-8 is the list of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Word>", into = "Vec<Word>")]
pub struct Argv(Vec<Vec<u8>>);

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Bytes(Vec<u8>),
}

impl Argv {
    /// Checks the words.
    ///
    /// # Errors
    ///
    /// [`ArgvError`].
    pub fn new(words: Vec<Vec<u8>>) -> Result<Self, ArgvError> {
        if words.first().is_none_or(Vec::is_empty) {
            return Err(ArgvError::Empty);
        }
        for (word, place) in words.iter().zip(1..) {
            if word.contains(&0) {
                return Err(ArgvError::Nul(place));
            }
            if word.len() > MAX_WORD {
                return Err(ArgvError::TooLong { place, len: word.len() });
            }
        }
        let total = words.iter().map(|word| word.len() + 1).sum();
        if total > MAX_WORDS {
            return Err(ArgvError::TooLarge(total));
        }
        Ok(Self(words))
    }

    /// The words.
    pub fn words(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// The program alone, for those who may not see what it was told.
    #[must_use]
    pub fn program(&self) -> Self {
        Self(self.0.iter().take(1).cloned().collect())
    }
}

impl TryFrom<Vec<Word>> for Argv {
    type Error = ArgvError;
    fn try_from(words: Vec<Word>) -> Result<Self, ArgvError> {
        let bytes = |word| match word {
            Word::Text(text) => text.into_bytes(),
            Word::Bytes(bytes) => bytes,
        };
        Self::new(words.into_iter().map(bytes).collect())
    }
}

impl From<Argv> for Vec<Word> {
    fn from(argv: Argv) -> Self {
        let word = |bytes: Vec<u8>| match String::from_utf8(bytes) {
            Ok(text) => Word::Text(text),
            Err(error) => Word::Bytes(error.into_bytes()),
        };
        argv.0.into_iter().map(word).collect()
    }
}

/// As a person would type it: words that a shell would change are in quotes.
impl fmt::Display for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "_-+=./:,@%".contains(c);
        for (place, word) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(" ")?;
            }
            let word = String::from_utf8_lossy(word);
            match !word.is_empty() && word.chars().all(plain) {
                true => f.write_str(&word)?,
                false => write!(f, "'{}'", word.replace('\'', r"'\''"))?,
            }
        }
        Ok(())
    }
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A signal that a run may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(i32);

/// Not such a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a signal: HUP, INT, QUIT, KILL, USR1, USR2, TERM or CONT")]
pub struct SignalError(String);

impl Signal {
    const NAMES: [(&'static str, i32); 8] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("CONT", 18),
    ];

    /// Its number on Linux.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = SignalError;
    /// Reads `INT` and `SIGINT`.
    fn from_str(text: &str) -> Result<Self, SignalError> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        let bad = || SignalError(text.chars().take(60).collect());
        found.map(|&(_, number)| Self(number)).ok_or_else(bad)
    }
}

/// How a run is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// It has a terminal of its own.
    Terminal,
    /// Three pipes.
    Pipes,
    /// Nothing comes in; what it writes is in the log.
    Detached,
}

impl Connection {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Terminal, Self::Pipes, Self::Detached];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Pipes => "pipes",
            Self::Detached => "detached",
        }
    }
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is being started.
    Starting,
    /// It runs.
    Up,
    /// It ended.
    Ended,
    /// It could not be started.
    Failed,
    /// The platform ended while it ran, and it with that; how is not known.
    Lost,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Up, Self::Ended, Self::Failed, Self::Lost];

    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Starting | Self::Up)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a run was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// ended, failed or lost.
    pub state: State,
    /// The exit status as a shell shows it: 128 + the signal's number.
    pub status: Option<u8>,
    /// What there is to say of it beside that.
    pub note: Option<String>,
}

/// Adds the variables of a run to the environment of its release.
///
/// # Errors
///
/// A name of the platform's own, and what [`Env::set`] refuses.
pub fn check_env(pairs: &[(EnvName, Vec<u8>)]) -> Result<(), EnvError> {
    let mut env = Env::default();
    pairs.iter().try_for_each(|(name, value)| env.set_config(name.clone(), value.clone()))
}

/// Which part of `len` bytes that begin at `at` is new, where everything before `taken` was
/// taken already; nothing where bytes between are missing.
pub fn fresh(taken: u64, at: u64, len: usize) -> Option<usize> {
    let known = usize::try_from(taken.checked_sub(at)?).unwrap_or(usize::MAX);
    Some(known.min(len))
}

#[cfg(test)]
mod tests;
