//! Why a request was not done, and whose fault that is.

use std::io;
use std::path::PathBuf;

use tolv_model::env::EnvName;
use tolv_model::id::{OperationId, RunId};
use tolv_model::ledger::Broken;
use tolv_model::name::{Deploy, DeployName, ProcessType, ScheduleName};
use tolv_model::operation::Outcome;
use tolv_model::release::ReleaseNumber;
use tolv_model::shortage::Shortage;

use tolv_run::{Culprit, Exit};

use tolv_store::KeyError;

use crate::codebase::CodebaseError;
use crate::home::HomeError;
use crate::listen::ListenError;
use crate::repo::{BodyError, RepoError};
use crate::watch::WatchError;

/// What somebody else can make of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for makes no sense.
    Invalid,
    /// What was named is not there.
    NotFound,
    /// What was to be made is there.
    Exists,
    /// It was changed meanwhile.
    Conflict,
    /// It makes sense and will not be done as things are.
    Refused,
    /// The database is away; try again.
    Unavailable,
    /// The disk is as full as it may be, or takes nothing for another reason.
    Full,
    /// The machine has no process, descriptor or memory left for it.
    Exhausted,
    /// What was sent did not arrive in time.
    Timeout,
    /// Ours.
    Internal,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The folder is the other kind's.
    #[error("the state folder `{path}` is that of a `tolv {owner}`")]
    OtherHome {
        /// Which folder.
        path: PathBuf,
        /// `up` or `serve`.
        owner: &'static str,
    },
    /// No platform has its state there.
    #[error("there is no state of a `tolv serve` at `{path}`")]
    NoState {
        /// Which folder or file is missing.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database is not the one that the state folder was used with.
    #[error(
        "this state folder belongs to another database: `{path}` has {}, and {found}",
        count_of_deploys(*.deploys)
    )]
    OtherDatabase {
        /// Which folder.
        path: PathBuf,
        /// How many deploys it has.
        deploys: usize,
        /// What is there instead.
        found: &'static str,
    },
    /// Somebody else's.
    #[error("the state folder `{path}` belongs to the user {owner}, and this is the user {user}")]
    NotOwner {
        /// Which folder.
        path: PathBuf,
        /// The uid of its owner.
        owner: u32,
        /// The uid of this process.
        user: u32,
    },
    /// The codebase of `up`, or its config.
    #[error(transparent)]
    Codebase(#[from] CodebaseError),
    /// A change of the codebase goes unseen.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The machine does not give what was asked for.
    #[error(transparent)]
    Sandbox(#[from] tolv_sandbox::Error),
    /// The router has nowhere to listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The engine.
    #[error(transparent)]
    Run(#[from] tolv_run::Error),
    /// The database, or what is in it.
    #[error(transparent)]
    Store(#[from] tolv_store::Error),
    /// The key.
    #[error(transparent)]
    Key(#[from] tolv_store::KeyError),
    /// The git repositories.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// No slug, or not the one that was released.
    #[error(transparent)]
    Build(#[from] tolv_build::Error),
    /// A folder or file of the platform's own.
    #[error("cannot {what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A deploy that is what `up` makes of it and nothing else.
    #[error("{deploy} is what `tolv up` runs: {why}")]
    IsLocal {
        /// Which.
        deploy: Deploy,
        /// What is not to be had with it.
        why: &'static str,
        /// What to do instead.
        instead: String,
    },
    /// A name that is kept.
    #[error("`local` is the deploy that `tolv up` runs, and no other may be called so")]
    LocalName,
    /// No such commit.
    #[error("`{rev}` is not a commit that {deploy} has")]
    NoCommit {
        /// What was asked for.
        rev: String,
        /// Whose repository.
        deploy: Deploy,
    },
    /// Nothing of it runs yet.
    #[error("{0} has no release yet")]
    NoRelease(Deploy),
    /// There is none before.
    #[error("{deploy} has no release before {current} that succeeded")]
    NothingBefore {
        /// Which deploy.
        deploy: Deploy,
        /// What runs.
        current: ReleaseNumber,
    },
    /// A release that did not come up is nothing to go back to.
    #[error("release {number} of {deploy} did not succeed")]
    FailedRelease {
        /// Which deploy.
        deploy: Deploy,
        /// Which release.
        number: ReleaseNumber,
    },
    /// The slug was collected.
    #[error("the slug of release {number} is not kept any more")]
    SlugGone {
        /// Which release.
        number: ReleaseNumber,
        /// What it was built from; nothing where that was a folder.
        commit: Option<String>,
    },
    /// Another app's.
    #[error("{from} and {to} are deploys of different apps")]
    OtherApp {
        /// Promoted from.
        from: Deploy,
        /// Promoted to.
        to: Deploy,
    },
    /// There is nothing to try again.
    #[error("release {number} of {deploy} did not fail, it {outcome}")]
    NotFailed {
        /// Whose.
        deploy: Deploy,
        /// Which.
        number: ReleaseNumber,
        /// How it turned out.
        outcome: Outcome,
    },
    /// No schedule of this name.
    #[error("{deploy} has no schedule `{name}`{}", also(.known))]
    NoSchedule {
        /// Whose.
        deploy: Deploy,
        /// As given.
        name: ScheduleName,
        /// Those that it has.
        known: Vec<ScheduleName>,
    },
    /// Two runs of it must not go on at once.
    #[error("a run of `{0}` goes on, and its concurrency_policy is forbid")]
    ScheduleRuns(ScheduleName),
    /// To itself.
    #[error("{0} cannot be promoted to itself")]
    Itself(Deploy),
    /// Another codebase.
    #[error("this is another codebase than that of {app}: no root commit in common")]
    OtherCodebase {
        /// The app's name.
        app: String,
    },
    /// An unknown process type.
    #[error("`{unknown}` is not a process type of {deploy}; it has {known}")]
    UnknownType {
        /// As given.
        unknown: ProcessType,
        /// Whose.
        deploy: Deploy,
        /// Those that exist.
        known: String,
    },
    /// No drain.
    #[error("lines cannot be sent to {url}: {why}")]
    Drain {
        /// Where to, without secrets.
        url: String,
        /// Why not.
        why: String,
    },
    /// No process to restart.
    #[error("{deploy} has no process `{process}`")]
    NoProcess {
        /// Whose.
        deploy: Deploy,
        /// As given.
        process: String,
    },
    /// Config that the codebase requires.
    #[error("app.json requires config variables that are not set: {}", list(.names))]
    MissingConfig {
        /// Which.
        names: Vec<EnvName>,
        /// The file that they belong into, where that is the deploy's config.
        file: Option<PathBuf>,
    },
    /// Nothing of it is to run.
    #[error("{0} is stopped")]
    Stopped(Deploy),
    /// The name was not repeated.
    #[error("to destroy `{0}`, confirm with exactly this name")]
    Unconfirmed(String),
    /// It is over.
    #[error("operation {0} is over already")]
    Over(OperationId),
    /// The ledger does not hold.
    #[error("the ledger of {deploy} is broken")]
    Ledger {
        /// Whose.
        deploy: Deploy,
        /// Where.
        source: Broken,
    },
    /// More runs than a deploy may have at once.
    #[error("{deploy} has {most} runs under way, as many as it may have")]
    ManyRuns {
        /// Whose.
        deploy: Deploy,
        /// At once.
        most: usize,
    },
    /// Input was left out.
    #[error("the input begins at byte {at}, and only {taken} were taken so far")]
    InputGap {
        /// Bytes that were taken.
        taken: u64,
        /// Where the piece begins.
        at: u64,
    },
    /// Another one reads it now.
    #[error("somebody else is attached to {0} now")]
    AttachedElsewhere(RunId),
    /// It was not asked for.
    #[error("no output of {0} is kept")]
    NotRecorded(RunId),
    /// A name that the platform made.
    #[error(transparent)]
    Name(tolv_model::name::NameError),
    /// More than an app may ask for.
    #[error("{0}")]
    TooLarge(String),
    /// More than the processes of a deploy may take together.
    #[error("the processes of {deploy} may take {asked} {what} together: at most {most} here")]
    OverQuota {
        /// Whose.
        deploy: Deploy,
        /// Of what.
        what: &'static str,
        /// How much they would take.
        asked: String,
        /// How much they may take.
        most: String,
    },
    /// Nothing runs under this name.
    #[error("{deploy} has no process type `{unknown}` to limit")]
    NoSuchType {
        /// The name.
        unknown: ProcessType,
        /// Whose.
        deploy: Deploy,
        /// The names that there are.
        known: String,
    },
    /// The disk.
    #[error("the disk of the platform is full ({free} MiB free, {min} MiB are kept free)")]
    DiskFull {
        /// Free now.
        free: u64,
        /// Kept free.
        min: u64,
        /// What to free.
        advice: String,
    },
    /// The disk has bytes left and no room for another file.
    #[error(
        "the disk of the platform is full: it has no room for another file (all {files} inodes are in \
         use; {free} MiB are free)"
    )]
    NoFiles {
        /// How many files there may be.
        files: u64,
        /// Free now.
        free: u64,
    },
    /// The disk takes nothing.
    #[error("{0}")]
    DiskFault(Shortage),
    /// The disk of the database takes nothing.
    #[error(
        "the disk of the platform is read-only, and its database is on it: this cannot be recorded, and \
         what is not recorded is not done, for the next start would undo it"
    )]
    NotRecordable,
    /// A text in the database that this version cannot read.
    #[error("the record of slug {0} cannot be read")]
    Unreadable(String),
    /// The release phase ended with a failure.
    #[error("the release phase failed with {exit}: `{command}`")]
    ReleasePhase {
        /// How it ended.
        exit: Exit,
        /// The command of the `release` process type.
        command: String,
    },
    /// Given up because somebody asked for it.
    #[error("cancelled")]
    Cancelled,
    /// The platform ends.
    #[error("the platform is stopping")]
    Stopping,
}

fn count_of_deploys(count: usize) -> String {
    format!("{count} {}", if count == 1 { "deploy" } else { "deploys" })
}

fn also(known: &[ScheduleName]) -> String {
    let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("; it has {}", names.join(", ")),
    }
}

fn list(names: &[EnvName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self.own_kind() {
            Kind::Internal if self.disk_fault().is_some() => Kind::Full,
            kind @ (Kind::Internal | Kind::Refused) => match self.shortage() {
                Some(Shortage::Spawner) => Kind::Unavailable,
                Some(shortage) if shortage.is_disk() => Kind::Full,
                Some(_) => Kind::Exhausted,
                None => kind,
            },
            kind => kind,
        }
    }

    fn own_kind(&self) -> Kind {
        match self {
            Self::Store(error) if error.disk_fault().is_some() => Kind::Full,
            Self::Store(error) if error.is_unavailable() => Kind::Unavailable,
            Self::Store(tolv_store::Error::Exists { .. }) => Kind::Exists,
            Self::Store(tolv_store::Error::NotFound { .. }) => Kind::NotFound,
            Self::Store(tolv_store::Error::Conflict { .. }) => Kind::Conflict,
            Self::Store(tolv_store::Error::Env(_)) => Kind::Invalid,
            Self::Store(
                tolv_store::Error::TooMany { .. }
                | tolv_store::Error::LastAdmin(_)
                | tolv_store::Error::Forged { .. }
                | tolv_store::Error::Ledger(_),
            ) => Kind::Refused,
            Self::Store(tolv_store::Error::Key(_)) => Kind::Internal,
            Self::NoCommit { .. }
            | Self::NoProcess { .. }
            | Self::NoSchedule { .. }
            | Self::NotRecorded(_) => Kind::NotFound,
            Self::OtherApp { .. }
            | Self::Itself(_)
            | Self::UnknownType { .. }
            | Self::TooLarge(_)
            | Self::OverQuota { .. }
            | Self::NoSuchType { .. }
            | Self::Drain { .. } => Kind::Invalid,
            Self::NoRelease(_)
            | Self::Stopped(_)
            | Self::NothingBefore { .. }
            | Self::FailedRelease { .. }
            | Self::NotFailed { .. }
            | Self::ScheduleRuns(_)
            | Self::SlugGone { .. }
            | Self::OtherCodebase { .. }
            | Self::MissingConfig { .. }
            | Self::IsLocal { .. }
            | Self::LocalName
            | Self::Unconfirmed(_)
            | Self::Over(_)
            | Self::ManyRuns { .. }
            | Self::InputGap { .. }
            | Self::AttachedElsewhere(_)
            | Self::Ledger { .. }
            | Self::ReleasePhase { .. }
            | Self::Cancelled
            | Self::Run(_) => Kind::Refused,
            Self::DiskFull { .. }
            | Self::NoFiles { .. }
            | Self::DiskFault(_)
            | Self::NotRecordable
            | Self::Repo(RepoError::Body(BodyError::DiskFull { .. })) => Kind::Full,
            Self::Repo(RepoError::Body(BodyError::TooSlow)) => Kind::Timeout,
            Self::Repo(
                RepoError::Body(_)
                | RepoError::BadRef(_)
                | RepoError::Moved(_)
                | RepoError::TooManyRoots
                | RepoError::Tangled,
            ) => Kind::Invalid,
            Self::Stopping | Self::Repo(RepoError::Busy) => Kind::Unavailable,
            Self::Home(_)
            | Self::OtherHome { .. }
            | Self::OtherDatabase { .. }
            | Self::NoState { .. }
            | Self::NotOwner { .. }
            | Self::Codebase(_)
            | Self::Watch(_)
            | Self::Key(_)
            | Self::Sandbox(_)
            | Self::Listen(_)
            | Self::Store(_)
            | Self::Repo(_)
            | Self::Build(_)
            | Self::System { .. }
            | Self::Name(_)
            | Self::Unreadable(_) => Kind::Internal,
        }
    }

    /// The error and all its sources on one line. Of a full disk no more than that: where it is full
    /// is the operator's, and no folder of the platform's is anybody else's to know.
    pub fn chain(&self) -> String {
        match self {
            // Of a process it is said which.
            Self::Run(_) => chain(self),
            // A connection to the database may need a thread, too.
            _ if matches!(self.kind(), Kind::Exhausted | Kind::Unavailable)
                && self.shortage().is_some() =>
            {
                self.shortage().map_or_else(|| chain(self), |shortage| shortage.to_string())
            }
            Self::DiskFull { .. } | Self::NoFiles { .. } | Self::NotRecordable | Self::Repo(_) => {
                chain(self)
            }
            _ => self.disk_fault().map_or_else(|| chain(self), |fault| fault.to_string()),
        }
    }
}

impl Error {
    /// The exit status that `up` gives for it: that of the process that failed first, where one
    /// did; 1 for everything else, a missing command among them.
    pub fn exit_status(&self) -> u8 {
        let exit = match self {
            Self::ReleasePhase { exit: Exit::Code(126 | 127), .. } => None,
            Self::ReleasePhase { exit, .. } => Some(*exit),
            Self::Run(tolv_run::Error::Rollout { culprit, .. }) => match culprit.reason {
                tolv_run::Reason::CommandNotFound(_) => None,
                _ => culprit.exit(),
            },
            _ => None,
        };
        exit.and_then(|exit| u8::try_from(exit.status()).ok())
            .filter(|&status| status != 0)
            .unwrap_or(1)
    }

    /// The process that made a rollout fail, with its last lines.
    pub fn culprit(&self) -> Option<&Culprit> {
        match self {
            Self::Run(tolv_run::Error::Rollout { culprit, .. }) => Some(culprit),
            _ => None,
        }
    }
}

/// An error and all its sources on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

mod hint;
mod shortage;
#[cfg(test)]
mod tests;
