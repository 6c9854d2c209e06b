//! The ledger of a deploy's releases: append-only, each row sealed with the keyed hash of the one
//! before (factor V).
//!
//! ```text
//!  v1 ─▶ outcome of v1 ─▶ v2 ─▶ outcome of v2 ─▶ v3        prev of v1 is 64 zeros
//! ```
//!
//! The hash of a row covers everything in it, `prev` included; so does that of an outcome, which is
//! appended once it is known how the release turned out. It is an HMAC: a row
//! that holds cannot be made without the key. Whoever changes, removes or inserts one breaks the chain there, and [`audit`]
//! names it. The deploy's current release is the last one that
//! succeeded. What the chain cannot show by itself is that its end was cut off or made longer: the
//! hash of its end is kept elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, Mac as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::id::DeployId;
use crate::name::ProcessType;
use crate::operation::Outcome;
use crate::release::ReleaseNumber;
use crate::size::Sizes;
use crate::slug::{Digest, SlugId};

/// The hash before the first row.
pub const GENESIS: Digest = Digest([0; 32]);

/// The key that the rows of ledgers are hashed with. Never printed.
#[derive(Clone)]
pub struct LedgerKey(Hmac<Sha256>);

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl From<[u8; 32]> for LedgerKey {
    fn from(key: [u8; 32]) -> Self {
        // Padded to a block, as RFC 2104 says.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(&key);
        Self(Hmac::new(&block.into()))
    }
}

impl LedgerKey {
    /// HMAC-SHA256 over fields, each with its length before it.
    fn hash(&self, fields: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Digest {
        let mut hash = self.0.clone();
        fields(&mut |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        });
        Digest(hash.finalize().into_bytes().into())
    }
}

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
    /// The keyed hash over every field.
    pub fn hash(&self, key: &LedgerKey) -> Digest {
        key.hash(|put| self.put(put))
    }

    fn put(&self, put: &mut dyn FnMut(&[u8])) {
        put(b"tolv release 2");
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
        self.reason.put(put);
        put(self.actor.as_bytes());
        put(&self.created.as_microsecond().to_be_bytes());
        put(&self.prev.0);
    }
}

/// How a release turned out, appended once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Whose release it is.
    pub deploy: DeployId,
    /// Which.
    pub number: ReleaseNumber,
    /// How it turned out.
    pub outcome: Outcome,
    /// Why it failed.
    pub error: Option<String>,
    /// When, to the microsecond.
    pub ended: Timestamp,
    /// The hash of what was appended before.
    pub prev: Digest,
}

impl Settled {
    /// The keyed hash over every field.
    pub fn hash(&self, key: &LedgerKey) -> Digest {
        key.hash(|put| self.put(put))
    }

    fn put(&self, put: &mut dyn FnMut(&[u8])) {
        put(b"tolv outcome 2");
        put(self.deploy.as_str().as_bytes());
        put(&self.number.0.to_be_bytes());
        put(self.outcome.as_str().as_bytes());
        put(if self.error.is_some() { b"error" } else { b"" });
        put(self.error.as_deref().unwrap_or_default().as_bytes());
        put(&self.ended.as_microsecond().to_be_bytes());
        put(&self.prev.0);
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

/// Something of a ledger as it is stored, whether it can be read or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// Of which release.
    pub number: ReleaseNumber,
    /// What it says; why not, where that cannot be read.
    pub contents: Result<T, String>,
    /// The hash of what was appended before it, as far as that can be read.
    pub prev: Option<Digest>,
    /// The hash that is stored with it, or another digest of it where that cannot be read.
    pub hash: Digest,
}

/// Why a ledger does not hold.
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
    #[error("release {0} does not continue what was recorded before it")]
    Unlinked(ReleaseNumber),
    /// A row cannot be read.
    #[error("the row of release {0} cannot be read: {1}")]
    Unreadable(ReleaseNumber, String),
    /// The config version of a release is another.
    #[error("the config of release {0} was changed")]
    Config(ReleaseNumber),
    /// An outcome was changed, or is not in the chain.
    #[error("the outcome of release {0} was changed")]
    Outcome(ReleaseNumber),
    /// The deploy's current release is not the last that succeeded.
    #[error(
        "the current release was changed: the last one that succeeded is {}, and {} is current",
        shown(*.recorded), shown(*.found)
    )]
    Current {
        /// The last one that succeeded.
        recorded: Option<ReleaseNumber>,
        /// What the deploy says.
        found: Option<ReleaseNumber>,
    },
    /// The end of the chain is not where the platform left it.
    #[error(
        "the ledger does not end where this platform left it, at {}: it ends at {}",
        shown(*.recorded), shown(*.found)
    )]
    End {
        /// The last release that the platform recorded.
        recorded: Option<ReleaseNumber>,
        /// The last release of the ledger.
        found: Option<ReleaseNumber>,
    },
    /// This state folder records where the ledgers of its deploys end, and has no record of this one.
    #[error(
        "this state folder has no record of the ledger, which ends at {}", shown(*.found)
    )]
    Unrecorded {
        /// The last release of the ledger.
        found: Option<ReleaseNumber>,
    },
    /// What this state folder recorded of the end of the ledger is damaged.
    #[error(
        "this state folder's record of where the ledger ends is damaged ({why}): it ends at {}",
        shown(*.found)
    )]
    Record {
        /// What is wrong with it.
        why: String,
        /// The last release of the ledger.
        found: Option<ReleaseNumber>,
    },
    /// The deploy of this name is not the one whose ledger was recorded.
    #[error(
        "the ledger, which ends at {}, belongs to another deploy than the one that this platform \
         recorded under this name, at {}",
        shown(*.found), shown(*.recorded)
    )]
    OtherDeploy {
        /// The last release that the platform recorded under this name.
        recorded: Option<ReleaseNumber>,
        /// The last release of the ledger.
        found: Option<ReleaseNumber>,
    },
    /// The deploy's own row, which says what is to run of the release, is not as the platform left it.
    #[error("the row of the deploy in the database {why}")]
    Row {
        /// What is wrong with it.
        why: String,
        /// The last release of the ledger.
        found: Option<ReleaseNumber>,
    },
}

fn shown(number: Option<ReleaseNumber>) -> String {
    number.map_or_else(|| "no release".to_owned(), |number| number.to_string())
}

impl Broken {
    /// The release at which the ledger does not hold.
    pub fn release(&self) -> ReleaseNumber {
        match self {
            Self::Missing { expected, .. } => *expected,
            Self::Changed(number)
            | Self::Unlinked(number)
            | Self::Unreadable(number, _)
            | Self::Config(number)
            | Self::Outcome(number) => *number,
            Self::Current { recorded, found }
            | Self::End { recorded, found }
            | Self::OtherDeploy { recorded, found } => {
                found.or(*recorded).unwrap_or(ReleaseNumber(1))
            }
            Self::Unrecorded { found } | Self::Record { found, .. } | Self::Row { found, .. } => {
                found.unwrap_or(ReleaseNumber(1))
            }
        }
    }

    /// Whether the ledger as a whole, or the deploy itself, is not as the platform recorded it.
    pub fn is_of_end(&self) -> bool {
        match self {
            Self::End { .. }
            | Self::Unrecorded { .. }
            | Self::Record { .. }
            | Self::OtherDeploy { .. }
            | Self::Row { .. } => true,
            Self::Missing { .. }
            | Self::Changed(_)
            | Self::Unlinked(_)
            | Self::Unreadable(..)
            | Self::Config(_)
            | Self::Outcome(_)
            | Self::Current { .. } => false,
        }
    }
}

/// What an audit of a chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Everything that does not hold, in order.
    pub broken: Vec<Broken>,
    /// The hash of its end; [`GENESIS`] for an empty ledger.
    pub end: Digest,
    /// The last release that succeeded.
    pub current: Option<ReleaseNumber>,
}

/// Proves a chain: `rows` are all rows of one deploy by number, `outcomes` all its outcomes. What
/// cannot be read is broken, and the chain goes on behind it.
pub fn audit(key: &LedgerKey, rows: &[Stored<Row>], outcomes: &[Stored<Settled>]) -> Audit {
    let mut found = Audit { broken: Vec::new(), end: GENESIS, current: None };
    let mut next: BTreeMap<Digest, &Stored<Settled>> = BTreeMap::new();
    let mut left: BTreeMap<ReleaseNumber, &Stored<Settled>> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(prev) = outcome.prev
            && next.insert(prev, outcome).is_some()
        {
            found.broken.push(Broken::Outcome(outcome.number));
        }
        left.insert(outcome.number, outcome);
    }
    let mut expected = 1;
    for at in 0..=rows.len() {
        // What was appended behind the row before.
        while let Some(outcome) = next.remove(&found.end) {
            left.remove(&outcome.number);
            let settled = outcome.contents.as_ref().ok();
            let is_changed = settled.is_none_or(|settled| settled.hash(key) != outcome.hash);
            if is_changed || outcome.number.0 >= expected {
                found.broken.push(Broken::Outcome(outcome.number));
            }
            if settled.is_some_and(|settled| settled.outcome == Outcome::Succeeded) {
                found.current = Some(outcome.number);
            }
            found.end = outcome.hash;
        }
        let Some(stored) = rows.get(at) else { break };
        let number = stored.number;
        if number.0 != expected {
            let expected = ReleaseNumber(expected);
            found.broken.push(Broken::Missing { expected, found: number });
        }
        match &stored.contents {
            Err(why) => found.broken.push(Broken::Unreadable(number, why.clone())),
            Ok(row) if row.hash(key) != stored.hash => found.broken.push(Broken::Changed(number)),
            Ok(row) if row.prev != found.end && number.0 == expected => {
                found.broken.push(Broken::Unlinked(number));
            }
            Ok(_) => {}
        }
        found.end = stored.hash;
        expected = number.0.saturating_add(1);
    }
    found.broken.extend(left.into_keys().map(Broken::Outcome));
    found
}

#[cfg(test)]
mod tests;
