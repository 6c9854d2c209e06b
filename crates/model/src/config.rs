//! The config of a deploy: its environment variables, and which of them are secrets (factor III).
//!
//! A version is never changed: a [`Change`] makes the next one. There are no groups: a variable
//! belongs to one deploy and to nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::env::{Env, EnvError, EnvName, EnvValue};

/// The variables of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Names and values.
    pub vars: Env,
    /// Those whose values nobody but the processes may read again.
    pub secret: BTreeSet<EnvName>,
    /// Those that builds get too.
    pub build: BTreeSet<EnvName>,
}

/// A value to set. Its `Debug` prints `****`.
#[derive(Clone, PartialEq, Eq)]
pub struct NewValue {
    /// The bytes.
    pub value: Vec<u8>,
    /// Whether it may never be read again. A secret stays one until it is unset.
    pub secret: bool,
    /// Whether builds get it too. It stays so until it is unset.
    pub build: bool,
}

impl std::fmt::Debug for NewValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("****")
    }
}

/// Several changes that become one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Variables to set.
    pub set: BTreeMap<EnvName, NewValue>,
    /// Variables to unset; those that are not set are passed over.
    pub unset: BTreeSet<EnvName>,
}

impl Change {
    /// What makes a config have these variables and no others.
    pub fn between(config: &Config, vars: BTreeMap<EnvName, NewValue>) -> Self {
        let unset = config.names().filter(|name| !vars.contains_key(*name)).cloned().collect();
        let is_new = |(name, new): &(EnvName, NewValue)| {
            let old = config.vars.get(name.as_str());
            old.is_none_or(|old| old.as_bytes() != new.value)
        };
        Self { set: vars.into_iter().filter(is_new).collect(), unset }
    }
}

impl Config {
    /// The config after a change; what is both set and unset is set.
    ///
    /// # Errors
    ///
    /// A reserved name, a NUL byte, a value or an environment that is too large: then no part of
    /// the change is made.
    pub fn with(&self, change: &Change) -> Result<Self, EnvError> {
        let mut next = self.clone();
        for name in &change.unset {
            next.vars.remove(name);
            next.secret.remove(name);
            next.build.remove(name);
        }
        // Smaller ones first where old values give way to new ones: the limit is for the result.
        for name in change.set.keys() {
            next.vars.remove(name);
        }
        for (name, new) in &change.set {
            next.vars.set_config(name.clone(), new.value.as_slice())?;
            if new.secret {
                next.secret.insert(name.clone());
            }
            if new.build {
                if !name.enters_builds() {
                    return Err(EnvError::NotInBuilds(name.to_string()));
                }
                next.build.insert(name.clone());
            }
        }
        Ok(next)
    }

    /// What builds get of it.
    pub fn of_builds(&self) -> impl Iterator<Item = (&EnvName, &EnvValue)> {
        self.vars.iter().filter(|(name, _)| self.build.contains(name))
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &EnvName> {
        self.vars.iter().map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests;
