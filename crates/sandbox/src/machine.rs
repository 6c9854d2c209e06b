//! What this machine gives, found out by doing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::level::{Choice, Level, Reason};
use crate::spawner::Spawner;

/// The cgroup tree in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroups {
    /// One tree.
    V2,
    /// A tree per controller.
    V1,
    /// Limits in v1 trees, killing in a v2 tree.
    Hybrid,
    /// None that can be written.
    None,
}

/// What this machine gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Per level: `None` if it can be had, else what failed.
    pub levels: BTreeMap<Level, Option<Reason>>,
}

impl Machine {
    /// Tries every level in a throw-away child.
    ///
    /// # Errors
    ///
    /// Only if the spawner itself fails; a level that cannot be had is a finding.
    pub fn probe(_spawner: &Spawner) -> Result<Self, Error> {
        Err(Error::Gone("not started".to_owned()))
    }

    /// The level to use, and what is missing with it and why.
    ///
    /// # Errors
    ///
    /// [`Error::Level`] if the level asked for cannot be had, [`Error::NoLevel`] if nothing but
    /// `none` can.
    pub fn choose(&self, _choice: Choice) -> Result<(Level, Vec<String>), Error> {
        Err(Error::NoLevel(String::new()))
    }

    /// Lines for `tolv status`.
    pub fn describe(&self) -> Vec<String> {
        Vec::new()
    }
}
