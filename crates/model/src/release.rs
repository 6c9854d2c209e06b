//! A release: slug + config, numbered, never changed (factor V).

use std::collections::BTreeMap;
use std::fmt;

use crate::env::Env;
use crate::formation::Formation;
use crate::name::{Deploy, ProcessType};
use crate::slug::SlugId;

/// A release's number in its deploy: prints as `v12`, starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseNumber(pub u32);

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
