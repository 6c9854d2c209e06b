//! The ledger of a deploy's releases: append-only, each row sealed with the hash of the one
//! before (factor V).
//!
//! ```text
//!  v1 ── hash ──▶ v2 ── hash ──▶ v3        prev of v1 is 64 zeros
//! ```
//!
//! A row's hash covers everything in it, `prev` included; how a release turned out is said later
//! and lies beside the ledger. Whoever changes, removes or inserts a row breaks the chain at that
//! row, and [`verify`] names it. What the chain cannot show is that rows at its end were cut off;
//! the deploy's current release, which is recorded elsewhere, must be in it.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::DeployId;
use crate::name::ProcessType;
use crate::release::ReleaseNumber;
use crate::size::Sizes;
use crate::slug::{Digest, SlugId};

/// The hash before the first row.
pub const GENESIS: Digest = Digest([0; 32]);

/// Why a release was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Reason {
    /// A commit was built.
    Deploy,
    /// Another deploy's slug.
    Promote {
        /// Which deploy's.
        from: String,
        /// Which of its releases.
        release: ReleaseNumber,
    },
    /// Made equal to an earlier release.
    Rollback {
        /// Which.
        to: ReleaseNumber,
    },
    /// A release that failed, tried again.
    Retry {
        /// Which.
        of: ReleaseNumber,
    },
    /// Config variables were set or unset: their names.
    Config {
        /// Set, in order.
        set: Vec<String>,
        /// Unset, in order.
        unset: Vec<String>,
    },
    /// Limits of process types were changed.
    Limits {
        /// What was asked for.
        #[serde(default)]
        set: Sizes,
        /// Types that have the defaults again.
        #[serde(default)]
        reset: Vec<ProcessType>,
    },
}

impl fmt::Display for Reason {
    /// `Deploy`, `Promote shop/staging v3`, `Rollback to v2`, `Retry of v4`, `Set FOO, unset BAR`,
    /// `Limits: web memory=1G`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy => write!(f, "Deploy"),
            Self::Promote { from, release } => write!(f, "Promote {from} {release}"),
            Self::Rollback { to } => write!(f, "Rollback to {to}"),
            Self::Retry { of } => write!(f, "Retry of {of}"),
            Self::Config { set, unset } => match (set.is_empty(), unset.is_empty()) {
                (false, true) => write!(f, "Set {}", set.join(", ")),
                (true, false) => write!(f, "Unset {}", unset.join(", ")),
                _ => write!(f, "Set {}, unset {}", set.join(", "), unset.join(", ")),
            },
            Self::Limits { set, reset } => {
                let reset: Vec<_> = reset.iter().map(|kind| format!("{kind} default")).collect();
                let parts = [reset.join("; "), set.to_string()];
                let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                write!(f, "Limits: {}", parts.join("; "))
            }
        }
    }
}

/// One row: a release, as it is recorded before anything of it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whose release it is.
    pub deploy: DeployId,
    /// Its place, from 1, without gaps.
    pub number: ReleaseNumber,
    /// What runs.
    pub slug: SlugId,
    /// The commit that the slug was built from.
    pub commit: Option<String>,
    /// The version of the deploy's config.
    pub config_version: u32,
    /// SHA-256 of that version as it is stored, encrypted: it says whether it was changed and
    /// nothing about the values.
    pub config_digest: Digest,
    /// Process type → command line.
    pub process_types: BTreeMap<ProcessType, String>,
    /// Process type → what was asked for of its size.
    pub sizes: Sizes,
    /// Why it was made.
    pub reason: Reason,
    /// Who made it.
    pub actor: String,
    /// When, to the microsecond.
    pub created: Timestamp,
    /// The hash of the row before; [`GENESIS`] for the first.
    pub prev: Digest,
}

impl Row {
    /// SHA-256 over every field, each with its length before it.
    pub fn hash(&self) -> Digest {
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        put(b"tolv release 1");
        put(self.deploy.as_str().as_bytes());
        put(&self.number.0.to_be_bytes());
        put(&self.slug.0.0);
        put(self.commit.as_deref().unwrap_or_default().as_bytes());
        put(&self.config_version.to_be_bytes());
        put(&self.config_digest.0);
        put(&(self.process_types.len() as u64).to_be_bytes());
        for (name, command) in &self.process_types {
            put(name.as_str().as_bytes());
            put(command.as_bytes());
        }
        put(&(self.sizes.0.len() as u64).to_be_bytes());
        for (name, size) in &self.sizes.0 {
            put(name.as_str().as_bytes());
            put(size.to_string().as_bytes());
        }
        self.reason.put(&mut put);
        put(self.actor.as_bytes());
        put(&self.created.as_microsecond().to_be_bytes());
        put(&self.prev.0);
        Digest(hash.finalize().into())
    }
}

impl Reason {
    fn put(&self, put: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Deploy => put(b"deploy"),
            Self::Promote { from, release } => {
                put(b"promote");
                put(from.as_bytes());
                put(&release.0.to_be_bytes());
            }
            Self::Rollback { to } => {
                put(b"rollback");
                put(&to.0.to_be_bytes());
            }
            Self::Retry { of } => {
                put(b"retry");
                put(&of.0.to_be_bytes());
            }
            Self::Config { set, unset } => {
                put(b"config");
                for names in [set, unset] {
                    put(&(names.len() as u64).to_be_bytes());
                    names.iter().for_each(|name| put(name.as_bytes()));
                }
            }
            Self::Limits { set, reset } => {
                put(b"limits");
                put(set.to_string().as_bytes());
                put(&(reset.len() as u64).to_be_bytes());
                reset.iter().for_each(|name| put(name.as_str().as_bytes()));
            }
        }
    }
}

/// The first row of a ledger that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A row is not where its number says.
    #[error("release {expected} is missing: {found} stands in its place")]
    Missing {
        /// What should be there.
        expected: ReleaseNumber,
        /// What is there.
        found: ReleaseNumber,
    },
    /// A row's contents do not give its hash.
    #[error("release {0} was changed: its row does not match its hash")]
    Changed(ReleaseNumber),
    /// A row does not continue the one before.
    #[error("release {0} does not continue the one before it")]
    Unlinked(ReleaseNumber),
}

impl Broken {
    /// The release at which the ledger does not hold.
    pub fn release(&self) -> ReleaseNumber {
        match self {
            Self::Missing { expected, .. } => *expected,
            Self::Changed(number) | Self::Unlinked(number) => *number,
        }
    }
}

/// Proves a chain: `rows` are all rows of one deploy by number, each with the hash that was
/// stored with it. Gives the hash of the last, [`GENESIS`] for an empty ledger.
///
/// # Errors
///
/// The first row that does not hold.
pub fn verify<'a>(rows: impl IntoIterator<Item = (&'a Row, Digest)>) -> Result<Digest, Broken> {
    let mut prev = GENESIS;
    for ((row, stored), number) in rows.into_iter().zip(1..) {
        let expected = ReleaseNumber(number);
        if row.number != expected {
            return Err(Broken::Missing { expected, found: row.number });
        }
        if row.hash() != stored {
            return Err(Broken::Changed(expected));
        }
        if row.prev != prev {
            return Err(Broken::Unlinked(expected));
        }
        prev = stored;
    }
    Ok(prev)
}

#[cfg(test)]
mod tests;
