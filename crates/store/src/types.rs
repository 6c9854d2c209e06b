//! What the store holds, as values.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tolv_model::access::Grant;
use tolv_model::buildpack::Buildpack;
use tolv_model::formation::Formation;
use tolv_model::id::{AppId, AuditId, DeployId, DrainId, OperationId, TokenId};
use tolv_model::ledger::{Reason, Row};
use tolv_model::name::{AppName, Deploy as DeployPath, ProcessType};
use tolv_model::operation::{Outcome, Request, State};
use tolv_model::release::ReleaseNumber;
use tolv_model::root_folder::RootFolder;
use tolv_model::size::Sizes;
use tolv_model::slug::{Digest, SlugId};

/// One codebase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// For as long as it lives.
    pub id: AppId,
    /// Its name now.
    pub name: AppName,
    /// The root commits that it was pushed with; none before the first push.
    pub roots: Vec<String>,
    /// The folder of the repository that is its codebase; the whole of it without one.
    pub root: Option<RootFolder>,
    /// What builds it, where the operator says so; else each codebase does.
    pub buildpacks: Vec<Buildpack>,
    /// When it was made.
    pub created: Timestamp,
}

/// One running instance of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// For as long as it lives.
    pub id: DeployId,
    /// Whose.
    pub app: AppId,
    /// Its path: `shop/production`.
    pub name: DeployPath,
    /// The host that it answers under.
    pub host: String,
    /// The branch that is built; not fixed before the first push.
    pub branch: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// The newest version of its config; 0 is the empty one.
    pub config_version: u32,
    /// The last release that succeeded: what runs.
    pub current: Option<ReleaseNumber>,
    /// The commit of that release.
    pub commit: Option<String>,
    /// What the operator asked for.
    pub formation: Formation,
    /// What the operator asked for of the size of each process type.
    pub sizes: Sizes,
    /// The version of a stack that its builds use, as `set_stack` recorded it; nothing where app.json
    /// and the operator's setting choose.
    pub stack: Option<String>,
    /// Whether nothing of it is to run.
    pub stopped: bool,
}

/// What is in the place of an app or a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored<T> {
    /// A row that this platform wrote.
    Valid(T),
    /// A row that was written or changed outside of the platform, or cannot be read: nothing is done
    /// with it.
    Forged(ForgedRow),
}

impl<T> Stored<T> {
    /// What the row is of; nothing where it was changed.
    pub fn valid(self) -> Option<T> {
        match self {
            Self::Valid(found) => Some(found),
            Self::Forged(_) => None,
        }
    }

    /// The row, where it was changed.
    pub fn forged(self) -> Option<ForgedRow> {
        match self {
            Self::Valid(_) => None,
            Self::Forged(row) => Some(row),
        }
    }
}

/// A row of an app or a deploy that was written or changed outside of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgedRow {
    /// `app` or `deploy`.
    pub what: &'static str,
    /// Its id, as it is stored: any text.
    pub id: String,
    /// Its name or path, as it is stored.
    pub name: String,
    /// What is wrong with it, in a sentence that names it.
    pub why: String,
}

/// Where a new deploy's formation and config come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFrom {
    /// Which deploy.
    pub deploy: DeployId,
    /// Whether config values are copied.
    pub values: bool,
}

/// Something that is done to a deploy, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which.
    pub id: OperationId,
    /// To which deploy.
    pub deploy: DeployId,
    /// Its path.
    pub deploy_name: DeployPath,
    /// What.
    pub request: Request,
    /// Who asked for it.
    pub actor: String,
    /// Where it is.
    pub state: State,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// The slug that it built.
    pub slug: Option<SlugId>,
    /// The release that it made.
    pub release: Option<ReleaseNumber>,
    /// Why it failed.
    pub error: Option<String>,
}

/// That a change of the config is to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Releasing<'a> {
    /// Who asks for it.
    pub actor: &'a str,
    /// Whether the release phase is left out.
    pub no_release_phase: bool,
}

/// A release that is to be appended.
#[derive(Clone, Debug)]
pub struct NewRelease {
    /// The operation that makes it.
    pub operation: OperationId,
    /// Whose it is.
    pub deploy: DeployId,
    /// What runs.
    pub slug: SlugId,
    /// What that was built from.
    pub commit: Option<String>,
    /// With which config.
    pub config_version: u32,
    /// Process type → command line.
    pub process_types: BTreeMap<ProcessType, String>,
    /// Process type → what was asked for of its size.
    pub sizes: Sizes,
    /// Why.
    pub reason: Reason,
    /// Who.
    pub actor: String,
    /// When.
    pub now: Timestamp,
}

/// A row of the ledger and how it turned out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What was recorded before it ran.
    pub row: Row,
    /// The hash that was stored with it.
    pub hash: Digest,
    /// How it turned out.
    pub outcome: Outcome,
    /// When that was known.
    pub ended: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A build's output, as far as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slug {
    /// Which.
    pub id: SlugId,
    /// The app that built it first.
    pub app: AppId,
    /// From which commit.
    pub commit: Option<String>,
    /// When.
    pub built: Timestamp,
    /// Its size, layers not counted.
    pub bytes: u64,
}

/// What proves who asks. The secret itself is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Which.
    pub id: TokenId,
    /// As it was named.
    pub name: String,
    /// What it allows.
    pub grant: Grant,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends to be one.
    pub expires: Option<Timestamp>,
}

/// What is in the place of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredToken {
    /// A token that this platform wrote.
    Valid(Token),
    /// A row that was written or changed outside of the platform: it allows nothing.
    Forged(ForgedToken),
}

impl StoredToken {
    /// The token; nothing where it is none.
    pub fn valid(self) -> Option<Token> {
        match self {
            Self::Valid(token) => Some(token),
            Self::Forged(_) => None,
        }
    }

    /// Its id, as it is stored.
    pub fn id(&self) -> &str {
        match self {
            Self::Valid(token) => token.id.as_str(),
            Self::Forged(forged) => &forged.id,
        }
    }
}

/// A row of tokens that was written or changed outside of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgedToken {
    /// Its id, as it is stored: any text.
    pub id: String,
    /// Its name, as it is stored; empty where it has none.
    pub name: String,
    /// When it claims to have been made.
    pub created: Timestamp,
    /// Whether it was revoked, and put back.
    pub was_revoked: bool,
}

/// Who did what to what, when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Which.
    pub id: AuditId,
    /// When.
    pub at: Timestamp,
    /// Who: a token's name.
    pub actor: String,
    /// What, in a word: `config.read`.
    pub action: String,
    /// The app's name, where it was about one.
    pub app: Option<String>,
    /// The deploy's name, where it was about one.
    pub deploy: Option<String>,
    /// More of it; never a value.
    pub detail: String,
    /// What became of it: `done`, `accepted`, `refused: conflict`; nothing where the platform did
    /// not see the end of it.
    pub outcome: Option<String>,
}

/// What became of a request that may be sent twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idempotent {
    /// It is the first: do it.
    Fresh,
    /// It was answered like this.
    Done {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: String,
    },
    /// The first is not done yet.
    Running,
    /// The key was used for another request.
    Mismatch,
}

/// Where the lines of a deploy's log go besides. `Debug` does not show the URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Drain {
    /// Which.
    pub id: DrainId,
    /// Whose.
    pub deploy: DeployId,
    /// Where to, secrets too.
    pub url: String,
    /// Whether a platform admin added it, who may send lines to the machine itself.
    pub by_operator: bool,
    /// When it was made.
    pub created: Timestamp,
    /// How far it has come.
    pub progress: DrainProgress,
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Drain({} {:?})", self.id, self.progress)
    }
}

/// How far a drain has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// The place in the log: a text of the platform's own.
    pub place: String,
    /// Lines that were sent.
    pub sent: u64,
    /// Lines that were sent more than once.
    pub retried: u64,
    /// Lines that could not be sent any more.
    pub dropped: u64,
    /// The last error, and when it was.
    pub error: Option<(String, Timestamp)>,
}
