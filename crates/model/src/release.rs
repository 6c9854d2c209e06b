//! A release: slug + config, numbered, never changed (factor V).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::formation::Formation;
use crate::name::{Deploy, ProcessType};
use crate::slug::SlugId;

/// A release's number in its deploy: prints as `v12`, starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseNumber(pub u32);

/// Not a release's number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a release: a number from 1, as in `v3`")]
pub struct ReleaseNumberError(String);

impl FromStr for ReleaseNumber {
    type Err = ReleaseNumberError;
    /// Reads `v3` and `3`.
    fn from_str(text: &str) -> Result<Self, ReleaseNumberError> {
        let number = text.strip_prefix('v').unwrap_or(text).parse().ok();
        let found = number.filter(|&number| number > 0).map(Self);
        found.ok_or_else(|| ReleaseNumberError(text.chars().take(60).collect()))
    }
}

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// All that the run stage needs to start a deploy's processes.
#[derive(Clone, Debug)]
pub struct Release {
    /// Whose release it is.
    pub deploy: Deploy,
    /// Its place in the deploy's ledger.
    pub number: ReleaseNumber,
    /// The build's output.
    pub slug: SlugId,
    /// The commit that was built, as 40 hex digits, `+dirty` behind it where the tree differed;
    /// nothing for a codebase without commits.
    pub commit: Option<String>,
    /// The deploy's config variables.
    pub config: Env,
    /// Process type → command line.
    pub process_types: BTreeMap<ProcessType, String>,
    /// Process type → quantity.
    pub formation: Formation,
}
