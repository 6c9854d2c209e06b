//! Identifiers that the platform makes: sortable by age, never used twice.
//!
//! An id is a prefix for its kind and 20 characters of Crockford's base 32 in lower case: 48 bits
//! of time in milliseconds since 1970, then 52 random bits. Ids of one kind sort by the time they
//! were made, so a list can go on behind the last id seen.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 20;

/// Not an id of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not an id like `{prefix}_…`")]
pub struct IdError {
    given: String,
    prefix: &'static str,
}

fn make(prefix: &str, now: Timestamp, random: u64) -> String {
    let time = u64::try_from(now.as_millisecond()).unwrap_or(0) & ((1 << 48) - 1);
    let bits = u128::from(time) << 52 | u128::from(random & ((1 << 52) - 1));
    let letter = |place: usize| {
        let five = (bits >> (5 * (LENGTH - 1 - place))) & 31;
        char::from(ALPHABET[usize::try_from(five).unwrap_or(0)])
    };
    format!("{prefix}_{}", (0..LENGTH).map(letter).collect::<String>())
}

/// The moment that an id was made with; the epoch for what is none.
fn moment(text: &str) -> Timestamp {
    let letters = text.rsplit('_').next().unwrap_or_default().bytes();
    let bits = letters.fold(0u128, |bits, letter| {
        let five = ALPHABET.iter().position(|&known| known == letter).unwrap_or(0);
        bits << 5 | five as u128
    });
    let time = i64::try_from((bits >> 52) & ((1 << 48) - 1)).unwrap_or(0);
    Timestamp::from_millisecond(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn check(prefix: &'static str, text: &str) -> Result<(), IdError> {
    let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
    match rest {
        Some(rest) if rest.len() == LENGTH && rest.bytes().all(|b| ALPHABET.contains(&b)) => Ok(()),
        _ => Err(IdError { given: text.chars().take(60).collect(), prefix }),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// A new id: `now` decides its place among the others, `random` makes it unique.
            pub fn new(now: Timestamp, random: u64) -> Self {
                Self(make($prefix, now, random))
            }

            /// The moment that decides its place, in whole milliseconds.
            pub fn moment(&self) -> Timestamp {
                moment(&self.0)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($prefix, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// An app, for as long as it lives; its name may be given to another one afterwards.
    AppId, "app"
}
id! {
    /// A deploy, for as long as it lives.
    DeployId, "dep"
}
id! {
    /// One operation on a deploy.
    OperationId, "op"
}
id! {
    /// One run of a schedule, or a tick that was left out.
    CronRunId, "cron"
}
id! {
    /// A token; not the secret itself.
    TokenId, "tok"
}
id! {
    /// A drain of a deploy's log.
    DrainId, "drn"
}
id! {
    /// One one-off run.
    RunId, "run"
}
id! {
    /// A line of the audit log.
    AuditId, "aud"
}

#[cfg(test)]
mod tests;
