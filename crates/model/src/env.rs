//! Environment variables as bytes (factor III).
//!
//! A value is whatever `execve` can carry: any bytes but NUL. It never passes through a shell or
//! a file on its way to a process, and it never prints itself.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest value, in bytes. `execve` itself refuses strings of 128 KiB.
pub const MAX_VALUE: usize = 64 * 1024;
/// Largest environment in all, in bytes, each name and value with its `=` and NUL.
pub const MAX_TOTAL: usize = 256 * 1024;

/// Why a variable cannot be set. The value itself is never part of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// Not `[A-Za-z_][A-Za-z0-9_]*`.
    #[error("`{0}` is not a variable name: use letters, digits and `_`, no digit first")]
    BadName(String),
    /// A name that the platform sets itself.
    #[error("`{0}` is set by the platform and cannot be set by config")]
    Reserved(String),
    /// A name that would change what a build's programs are.
    #[error("`{0}` never enters a build: it would change which programs and libraries run there")]
    NotInBuilds(String),
    /// A NUL byte cannot pass `execve`.
    #[error("the value of `{0}` has a NUL byte, which no process environment can carry")]
    Nul(String),
    /// Longer than [`MAX_VALUE`].
    #[error("the value of `{name}` has {len} bytes, more than {MAX_VALUE}")]
    TooLong {
        /// The variable.
        name: String,
        /// Its value's length in bytes.
        len: usize,
    },
    /// Larger than [`MAX_TOTAL`] in all.
    #[error("the environment has {0} bytes in all, more than {MAX_TOTAL}")]
    TooLarge(usize),
}

/// A variable's name: `[A-Za-z_][A-Za-z0-9_]*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvName(String);

impl EnvName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the platform owns this name: `PORT`, `DYNO` and all of `TOLV_*`.
    pub fn is_reserved(&self) -> bool {
        self.0 == "PORT" || self.0 == "DYNO" || self.0.starts_with("TOLV_")
    }
}

/// Names that no build gets: they say which programs and libraries run, and what a shell does first.
const NOT_IN_BUILDS: [&str; 12] = [
    "BASH_ENV",
    "CPATH",
    "CPPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "ENV",
    "HOME",
    "IFS",
    "LIBRARY_PATH",
    "PATH",
    "SHELLOPTS",
    "TMPDIR",
];

impl EnvName {
    /// Whether a build may get a variable of this name.
    pub fn enters_builds(&self) -> bool {
        let name = self.as_str();
        let is_of = |prefix: &&str| name.starts_with(*prefix);
        !self.is_reserved()
            && !NOT_IN_BUILDS.contains(&name)
            && !["GIT_", "LD_", "BASH_FUNC_"].iter().any(is_of)
            && !["STACK", "SOURCE_VERSION", "SOURCE_DATE_EPOCH"].contains(&name)
    }
}

impl FromStr for EnvName {
    type Err = EnvError;
    fn from_str(name: &str) -> Result<Self, EnvError> {
        let mut bytes = name.bytes();
        let head = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if head && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            Ok(Self(name.to_owned()))
        } else {
            Err(EnvError::BadName(name.to_owned()))
        }
    }
}

impl TryFrom<String> for EnvName {
    type Error = EnvError;
    fn try_from(name: String) -> Result<Self, EnvError> {
        name.parse()
    }
}

impl From<EnvName> for String {
    fn from(name: EnvName) -> Self {
        name.0
    }
}

impl fmt::Display for EnvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A variable's value: any bytes but NUL. Its `Debug` prints `****`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EnvValue(Vec<u8>);

impl EnvValue {
    /// The bytes, as a process gets them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// A process environment: names and values, sorted by name, within the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<EnvName, EnvValue>);

impl Env {
    /// Sets one variable; an earlier value is replaced.
    ///
    /// # Errors
    ///
    /// [`EnvError::Nul`], [`EnvError::TooLong`], [`EnvError::TooLarge`]; then nothing is changed.
    pub fn set(&mut self, name: EnvName, value: impl Into<Vec<u8>>) -> Result<(), EnvError> {
        let value = value.into();
        if value.contains(&0) {
            return Err(EnvError::Nul(name.0));
        }
        if value.len() > MAX_VALUE {
            return Err(EnvError::TooLong { name: name.0, len: value.len() });
        }
        let old = self.0.get(&name).map_or(0, |old| name.0.len() + old.0.len() + 2);
        let total = self.size() - old + name.0.len() + value.len() + 2;
        if total > MAX_TOTAL {
            return Err(EnvError::TooLarge(total));
        }
        self.0.insert(name, EnvValue(value));
        Ok(())
    }

    /// Sets one config variable: as [`Env::set`], but a name of the platform is refused.
    ///
    /// # Errors
    ///
    /// Those of [`Env::set`], and [`EnvError::Reserved`].
    pub fn set_config(&mut self, name: EnvName, value: impl Into<Vec<u8>>) -> Result<(), EnvError> {
        if name.is_reserved() {
            return Err(EnvError::Reserved(name.0));
        }
        self.set(name, value)
    }

    /// Whether the variable is set.
    pub fn has(&self, name: &EnvName) -> bool {
        self.0.contains_key(name)
    }

    /// Unsets one variable; whether it was set.
    pub fn remove(&mut self, name: &EnvName) -> bool {
        self.0.remove(name).is_some()
    }

    /// The value of `name`, if it is set.
    pub fn get(&self, name: &str) -> Option<&EnvValue> {
        self.0.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&EnvName, &EnvValue)> {
        self.0.iter()
    }

    /// `NAME=value` for each variable, as `execve` wants them (without the NUL).
    pub fn to_execve(&self) -> Vec<Vec<u8>> {
        let line = |(name, value): (&EnvName, &EnvValue)| {
            [name.0.as_bytes(), b"=", value.as_bytes()].concat()
        };
        self.0.iter().map(line).collect()
    }

    /// Bytes that this takes in `execve`.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.0.len() + value.0.len() + 2).sum()
    }
}

#[cfg(test)]
mod tests;
