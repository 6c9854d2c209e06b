//! Who may do what: roles, what each allows, and to which app.
//!
//! | act | view | deploy | config | run | admin |
//! |---|---|---|---|---|---|
//! | [`Act::View`]: apps, deploys, releases, processes, logs, output of operations and schedules, names of config variables | ✓ | ✓ | ✓ | ✓ | ✓ |
//! | [`Act::Deploy`]: push, deploy, promote, roll back, retry | | ✓ | | | ✓ |
//! | [`Act::Config`]: read config values, set and unset them | | | ✓ | | ✓ |
//! | [`Act::Run`]: scale, restart, stop, start, run one-offs and schedules, read a one-off's output | | ✓ | | ✓ | ✓ |
//! | [`Act::Manage`]: create and destroy deploys and drains | | | | | ✓ |
//!
//! A one-off has the config in its environment, as every process has: who may run one can read it.
//!
//! A grant is for some apps or for all. [`Act::Own`] (create and destroy apps, tokens, the audit
//! log) needs `admin` for all.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::AppName;

/// What a token's bearer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May look.
    View,
    /// May bring code live.
    Deploy,
    /// May read and change config.
    Config,
    /// May start and stop processes.
    Run,
    /// May do everything.
    Admin,
}

/// Not a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: view, deploy, config, run or admin")]
pub struct RoleError(String);

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::View, Self::Deploy, Self::Config, Self::Run, Self::Admin];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Deploy => "deploy",
            Self::Config => "config",
            Self::Run => "run",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| RoleError(text.chars().take(60).collect()))
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Look at an app.
    View,
    /// Bring code live.
    Deploy,
    /// Read or change config values.
    Config,
    /// Start and stop processes.
    Run,
    /// Create and destroy deploys and drains of an app.
    Manage,
    /// What concerns the whole platform.
    Own,
}

impl Act {
    /// What it is, for `this token may not …`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "look at this app",
            Self::Deploy => "deploy this app",
            Self::Config => "read or change the config of this app",
            Self::Run => "start or stop processes of this app",
            Self::Manage => "create or destroy deploys or drains of this app",
            Self::Own => "manage apps, tokens or the audit log",
        }
    }
}

/// Which apps a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantedApps {
    /// All, those of the future too.
    All,
    /// These and no others.
    Only(BTreeSet<AppName>),
}

impl GrantedApps {
    /// Whether this app is one of them.
    pub fn contains(&self, app: &AppName) -> bool {
        match self {
            Self::All => true,
            Self::Only(apps) => apps.contains(app),
        }
    }

    /// Their names; nothing where it is all of them.
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Only(apps) => Some(apps.iter().map(ToString::to_string).collect()),
        }
    }
}

impl From<AppName> for GrantedApps {
    fn from(app: AppName) -> Self {
        Self::Only(BTreeSet::from([app]))
    }
}

/// `all apps`, or the names.
impl fmt::Display for GrantedApps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names() {
            None => f.write_str("all apps"),
            Some(names) => f.write_str(&names.join(", ")),
        }
    }
}

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// As what.
    pub role: Role,
    /// For which apps.
    pub apps: GrantedApps,
}

impl Grant {
    /// Everything, for all apps: what administrates a platform.
    pub const PLATFORM_ADMIN: Self = Self { role: Role::Admin, apps: GrantedApps::All };

    /// Whether the act is allowed to the app; `None` asks for all apps.
    pub fn allows(&self, act: Act, app: Option<&AppName>) -> bool {
        let here = match app {
            Some(app) => self.apps.contains(app),
            None => self.apps == GrantedApps::All,
        };
        here && match (self.role, act) {
            (_, Act::View) | (Role::Deploy, Act::Deploy | Act::Run) => true,
            (Role::Config, Act::Config) | (Role::Run, Act::Run) => true,
            (Role::Admin, Act::Own) => self.apps == GrantedApps::All,
            (Role::Admin, _) => true,
            (Role::View | Role::Deploy | Role::Config | Role::Run, _) => false,
        }
    }
}

#[cfg(test)]
mod tests;
