//! What goes over the wire.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tolv_model::operation::{Outcome, State};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The things.
    pub items: Vec<T>,
    /// What to ask the next page with; nothing on the last.
    pub next: Option<String>,
}

/// What answers here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct About {
    /// `tolv`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Who the token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// The token's name.
    pub name: String,
    /// Its role: view, deploy, config, run or admin.
    pub role: String,
    /// The apps that it is for; all where there is no list.
    pub apps: Option<Vec<String>>,
    /// When it ends to be one.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}

/// One codebase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// Its name.
    pub name: String,
    /// The root commits that it is known by.
    pub roots: Vec<String>,
    /// The folder of its repository that is its codebase; the whole repository without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Its deploys' names.
    pub deploys: Vec<String>,
    /// Whether its row was written or changed outside of the platform: then its name alone is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed_outside: bool,
}

/// What builds an app; an empty list leaves it to each codebase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Buildpacks {
    /// In order: an https URL of a git repository with an optional `#ref`, a folder of the codebase, or
    /// a name of Heroku's.
    pub buildpacks: Vec<String>,
}

/// An app to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApp {
    /// Its name: a-z, 0-9 and `-`, a letter first, at most 30.
    pub name: String,
    /// Its first deploy's name; `production` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<String>,
    /// The folder of its repository that is its codebase, as in `services/api`; the whole repository
    /// without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

/// One running instance of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deploy {
    /// Its path: `shop/production`.
    pub name: String,
    /// Where it answers.
    pub url: String,
    /// Where it is pushed to; empty for what `tolv up` runs, which is not.
    pub git: String,
    /// The branch that is built.
    pub branch: Option<String>,
    /// The release that runs.
    pub release: Option<u32>,
    /// The commit of that release.
    pub commit: Option<String>,
    /// The first line of that commit's message.
    pub subject: Option<String>,
    /// Commits that it has and the app's first deploy has not.
    pub ahead: u32,
    /// Commits that the app's first deploy has and it has not.
    pub behind: u32,
    /// What the operator wants of each process type.
    pub formation: BTreeMap<String, u16>,
    /// Whether nothing of it is to run.
    pub stopped: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Config variables of the deploy it was made from, which have no value here yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<String>,
    /// Whether its row was written or changed outside of the platform: then its name alone is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed_outside: bool,
}

/// A deploy to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDeploy {
    /// Its name.
    pub name: String,
    /// A deploy of the app whose formation it gets: `shop/production`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether it gets that one's config values too.
    #[serde(default)]
    pub values: bool,
}

/// A row of the ledger, and how it turned out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// Its number.
    pub number: u32,
    /// Why it was made, in words.
    pub reason: String,
    /// Who made it.
    pub actor: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// How it turned out: pending, succeeded or failed.
    #[schema(value_type = String)]
    pub outcome: Outcome,
    /// Why it failed.
    pub error: Option<String>,
    /// What runs: `sha256:…`.
    pub slug: String,
    /// What that was built from.
    pub commit: Option<String>,
    /// The stack below its processes, with its digest; on a single release alone, and nothing where
    /// they find the machine's own programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The version of the config.
    pub config_version: u32,
    /// Process type → command line.
    pub process_types: BTreeMap<String, String>,
    /// Process type → what was asked for of its size.
    #[serde(default)]
    pub sizes: BTreeMap<String, String>,
    /// The row's hash.
    pub hash: String,
    /// The hash of the row before.
    pub prev: String,
    /// Name → fingerprint of each config variable; on a single release alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, String>>,
}

/// Whether a ledger holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ledger {
    /// Whether every row holds.
    pub holds: bool,
    /// How many releases hold, up to the first that does not.
    pub rows: usize,
    /// What does not hold, in words.
    pub broken: Option<String>,
    /// What does not hold and was accepted as it is.
    #[serde(default)]
    pub accepted: Vec<String>,
}

/// Something to be done to a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum NewOperation {
    /// Build, release and run a commit that was pushed.
    Deploy {
        /// A branch, tag or commit id.
        commit: String,
        /// Whether another codebase is meant.
        #[serde(default)]
        new_root: bool,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Release what another deploy of the app runs.
    Promote {
        /// Its path.
        from: String,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Make a release equal to an earlier one.
    Rollback {
        /// Which; the last one before the current that succeeded without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u32>,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Release the slug of a release that failed again, with the config as it is now.
    Retry {
        /// Which; the newest without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<u32>,
        /// Whether the release phase is left out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_release_phase: bool,
    },
    /// Change quantities.
    Scale {
        /// Process type → quantity; those that are not named keep theirs.
        formation: BTreeMap<String, u16>,
        /// Process type → size, as in `limits`; a change is a release.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        sizes: BTreeMap<String, String>,
    },
    /// Change how much of the machine the processes of a type may take: a release.
    Limits {
        /// Process type → size: `1G`, `standard-2x` or `memory=1G,cpu=2,cpu-weight=200,processes=256,
        /// files=4096,tmp=256M,shm=64M`; parts that are not named stay.
        #[serde(default)]
        sizes: BTreeMap<String, String>,
        /// Process types that get the defaults again, before that.
        #[serde(default)]
        reset: Vec<String>,
    },
    /// Replace processes by new ones of the same release.
    Restart {
        /// A process type or a process; all without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        processes: Option<String>,
    },
    /// Stop every process.
    Stop,
    /// Start what was stopped.
    Start,
}

/// Something that is done to a deploy, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Which.
    pub id: String,
    /// To which deploy.
    pub deploy: String,
    /// What, in a word.
    pub kind: String,
    /// Whether the release phase is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_release_phase: bool,
    /// Who asked for it.
    pub actor: String,
    /// Where it is: queued, running, succeeded, failed, cancelled or superseded.
    #[schema(value_type = String)]
    pub state: State,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started: Option<Timestamp>,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// The release that it made.
    pub release: Option<u32>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The values of a config variable: text, or any bytes in base 64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// UTF-8.
    Text(String),
    /// Bytes, in base 64.
    Base64(String),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("****")
    }
}

impl Value {
    /// Text where the bytes are UTF-8, base 64 otherwise.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    /// The bytes; nothing where it is no base 64.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Base64(text) => STANDARD.decode(text).ok(),
        }
    }
}

/// One config variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Variable {
    /// Whether its value is never to be read again.
    pub secret: bool,
    /// Whether builds get it too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub build: bool,
    /// Equal for equal values of this deploy, and of no use otherwise.
    pub fingerprint: String,
    /// Its value, where that was asked for and may be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// The config of a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// Its version: the `ETag`.
    pub version: u32,
    /// Name → variable.
    pub variables: BTreeMap<String, Variable>,
}

/// A config that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigChanged {
    /// The new version of the config.
    pub version: u32,
    /// The operation that releases it; nothing before the first release.
    pub operation: Option<Operation>,
}

/// Several changes that become one version and one release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigChange {
    /// Name → value.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// Names.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Whether the values set are never to be read again.
    #[serde(default)]
    pub secret: bool,
    /// Whether builds get them too, from the next one on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub build: bool,
    /// Whether the release phase is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_release_phase: bool,
}

/// One process of a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Process {
    /// `web.1`.
    pub name: String,
    /// starting, up, draining (up, and others get its requests), unresponsive (up, and no request is
    /// answered in time), crashed, complete (with `tolv up`: it ended with status 0), stopping or down.
    pub state: String,
    /// Of which release.
    pub release: u32,
    /// Its id on the machine.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How much of the machine it may take.
    pub limits: Limits,
}

/// How much of the machine a process may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// Bytes of memory; what is written to `/tmp` and `/dev/shm` counts.
    pub memory: Option<u64>,
    /// Share of the CPU where others want it too; 100 is an ordinary one.
    pub cpu_weight: Option<u32>,
    /// Most CPU time, in percent of one core; all there is without it.
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Open files of each of them.
    pub files: Option<u64>,
    /// Bytes of `/tmp`.
    pub tmp: u64,
    /// Bytes of `/dev/shm`.
    pub shm: u64,
}

/// The limits of one process type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TypeLimits {
    /// Which: `run` stands for one-off runs, `cron-NAME` for a schedule.
    pub process_type: String,
    /// What was asked for, by app.json or the operator; empty where nothing was.
    pub asked: String,
    /// What its processes get.
    pub limits: Limits,
}

/// What proves who asks; not the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Which.
    pub id: String,
    /// As it was named.
    pub name: String,
    /// Its role.
    pub role: String,
    /// The apps that it is for; all where there is no list.
    pub apps: Option<Vec<String>>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it ends to be one.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Whether it was written or changed outside of the platform: then it allows nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed_outside: bool,
}

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What to call it.
    pub name: String,
    /// view, deploy, config, run or admin.
    pub role: String,
    /// For these apps alone; for all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps: Option<Vec<String>>,
    /// Seconds from now that it is valid; for ever without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u32>,
}

/// A token that was made, with its secret: this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenMade {
    /// What is known of it.
    pub token: Token,
    /// `tolv_…`.
    pub secret: String,
}

/// Who did what to what, when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditLine {
    /// Which.
    pub id: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To which app.
    pub app: Option<String>,
    /// To which of its deploys.
    pub deploy: Option<String>,
    /// More of it.
    pub detail: String,
    /// What became of it: `done`; `accepted`, as an operation whose own state says more;
    /// `refused: CODE` or `failed: CODE`, as in the problem document. Null where that is not known.
    pub outcome: Option<String>,
}
