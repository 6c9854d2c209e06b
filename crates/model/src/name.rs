//! Names of apps, deploys, process types and processes.
//!
//! Each is checked once, by `FromStr` or serde, and then carried as a type, so that a process
//! type cannot be handed in where an app is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The empty string.
    #[error("{kind} name is empty")]
    Empty {
        /// What was to be named.
        kind: &'static str,
    },
    /// Longer than the noun allows.
    #[error("{kind} name `{name}` is longer than {max} characters")]
    TooLong {
        /// What was to be named.
        kind: &'static str,
        /// The name, shortened to `max` characters.
        name: String,
        /// The longest allowed, in characters.
        max: usize,
    },
    /// A character outside the noun's alphabet.
    #[error("{kind} name `{name}` has {bad:?}; allowed are {allowed}")]
    BadCharacter {
        /// What was to be named.
        kind: &'static str,
        /// The name as given.
        name: String,
        /// The first character that is not allowed.
        bad: char,
        /// The alphabet, in words.
        allowed: &'static str,
    },
}

/// Not `app/deploy`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeployError {
    /// Not two names.
    #[error("`{0}` is not `<app>/<deploy>`, as in `shop/production`")]
    NoSlash(String),
    /// One of the names is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

pub(crate) fn check(
    kind: &'static str,
    name: &str,
    max: usize,
    allowed: &'static str,
    first: impl Fn(char) -> bool,
    rest: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    let Some(head) = name.chars().next() else {
        return Err(NameError::Empty { kind });
    };
    if name.chars().count() > max {
        return Err(NameError::TooLong { kind, name: name.chars().take(max).collect(), max });
    }
    let bad =
        if first(head) { name.chars().skip(1).find(|&letter| !rest(letter)) } else { Some(head) };
    match bad {
        None => Ok(()),
        Some(bad) => Err(NameError::BadCharacter { kind, name: name.to_owned(), bad, allowed }),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal, $allowed:literal, $first:expr, $rest:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                check($kind, name, $max, $allowed, $first, $rest)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                name.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) use name;

name! {
    /// One codebase's name: a DNS label, since it is also a host name.
    AppName, "app", 30, "a-z, 0-9 and `-`, a letter first",
    |c: char| c.is_ascii_lowercase(), |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}
name! {
    /// One running instance of an app: `production`, `staging`, `local`.
    DeployName, "deploy", 30, "a-z, 0-9 and `-`, a letter first",
    |c: char| c.is_ascii_lowercase(), |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}
name! {
    /// A kind of process (factor VIII): `web`, `worker`. Grammar: `[A-Za-z0-9_-]+`.
    ProcessType, "process type", 63, "A-Z, a-z, 0-9, `_` and `-`",
    |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-',
    |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

name! {
    /// A schedule of an app: `nightly`.
    ScheduleName, "schedule", 40, "a-z, 0-9, `_` and `-`, a letter first",
    |c: char| c.is_ascii_lowercase(),
    |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-'
}

/// The nearest label to any text: upper case is lowered, every other run of letters becomes one
/// `-`; `other` when nothing is left.
fn label(text: &str, most: usize, other: &str) -> String {
    let mut name = String::new();
    for letter in text.chars() {
        match letter.to_ascii_lowercase() {
            letter @ ('a'..='z') => name.push(letter),
            letter @ ('0'..='9') if !name.is_empty() => name.push(letter),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
        if name.len() == most {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { other } else { name }.to_owned()
}

impl ScheduleName {
    /// A name for a command that has none: its letters and digits, `-` between them.
    pub fn from_command(command: &str) -> Self {
        Self(label(command, 40, "job"))
    }

    /// Another one like it, for a second command with the same name: `clean-2`.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        let end = format!("-{number}");
        let most = 40_usize.saturating_sub(end.len());
        let start: String = self.0.chars().take(most).collect();
        Self(start + &end)
    }
}

impl AppName {
    /// The nearest valid name to any text, such as a folder's name; `app` when nothing is left.
    ///
    /// Total: upper case is lowered, every other run of letters becomes one `-`.
    pub fn from_text(text: &str) -> Self {
        Self(label(text, 30, "app"))
    }
}

impl DeployName {
    /// `production`: the first deploy of an app.
    pub fn production() -> Self {
        Self("production".to_owned())
    }

    /// `local`: the deploy of a codebase on a developer's machine.
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

impl ProcessType {
    /// `web`: the one type that receives routed requests.
    pub fn web() -> Self {
        Self("web".to_owned())
    }

    /// `release`: the one type that is the release phase, never part of a formation.
    pub fn release() -> Self {
        Self("release".to_owned())
    }

    /// `cron-nightly`: what runs for a schedule, never part of a formation.
    pub fn scheduled(name: &ScheduleName) -> Self {
        Self(format!("cron-{name}"))
    }

    /// Whether routed requests go to this type.
    pub fn is_web(&self) -> bool {
        self.0 == "web"
    }

    /// Whether this is the release phase.
    pub fn is_release(&self) -> bool {
        self.0 == "release"
    }
}

/// `app/deploy`, as in `shop/production`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Deploy {
    /// The codebase.
    pub app: AppName,
    /// Which of its instances.
    pub name: DeployName,
}

impl fmt::Display for Deploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.name)
    }
}

impl FromStr for Deploy {
    type Err = DeployError;
    fn from_str(text: &str) -> Result<Self, DeployError> {
        let (app, name) =
            text.split_once('/').ok_or_else(|| DeployError::NoSlash(text.to_owned()))?;
        Ok(Self { app: app.parse()?, name: name.parse()? })
    }
}

impl TryFrom<String> for Deploy {
    type Error = DeployError;
    fn try_from(text: String) -> Result<Self, DeployError> {
        text.parse()
    }
}

impl From<Deploy> for String {
    fn from(deploy: Deploy) -> Self {
        deploy.to_string()
    }
}

/// One process of a formation: `web.1`. Numbers start at 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessName {
    /// The type it belongs to.
    pub process_type: ProcessType,
    /// Its place in the type, from 1.
    pub number: u16,
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process_type, self.number)
    }
}

impl FromStr for ProcessName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (process_type, number) = text.rsplit_once('.').unwrap_or((text, ""));
        let number = number.parse().ok().filter(|&number| number > 0).ok_or_else(|| {
            NameError::BadCharacter {
                kind: "process",
                name: text.to_owned(),
                bad: '.',
                allowed: "a process type, `.` and a number from 1, as in `web.1`",
            }
        })?;
        Ok(Self { process_type: process_type.parse()?, number })
    }
}

impl TryFrom<String> for ProcessName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ProcessName> for String {
    fn from(name: ProcessName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests;
