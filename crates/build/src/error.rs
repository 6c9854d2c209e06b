//! Why a build failed: one enum for the crate. Each text says what and where, lower case; the
//! ones that a person can act on end with the command to run.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use tolv_model::slug::{Digest, SlugId, short};

/// A build that did not become a slug.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The codebase is not usable as given; the text is complete, with the way out in it.
    #[error("{0}")]
    Source(String),
    /// Nothing in the codebase tells what it is.
    #[error("{problem}")]
    Undetected {
        /// What was looked for and where, lower case.
        problem: String,
        /// What to add, as a sentence.
        help: String,
    },
    /// A builder cannot plan this codebase.
    #[error("{builder}: {problem}")]
    Plan {
        /// The builder's name.
        builder: &'static str,
        /// What is wrong and where, lower case.
        problem: String,
        /// What to do about it, as a sentence or a command.
        help: String,
    },
    /// A program that the build needs is not there and cannot be fetched.
    #[error("{what} is needed and not available: {why}")]
    Toolchain {
        /// `Python 3.13`, `go`.
        what: String,
        /// Why not.
        why: String,
        /// How to get it.
        help: String,
    },
    /// A folder of toolchains or stacks that others could fill: what is in it runs with the rights of
    /// whoever builds.
    #[error("the folder `{}` is not used: {why}", path.display())]
    ForeignFolder {
        /// Which.
        path: PathBuf,
        /// Whose it is, or who may write to it.
        why: String,
    },
    /// A file or folder could not be used.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// `read`, `write`, `create`.
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A command of the plan did not end with success.
    #[error("`{command}` {how}{}", tail(last))]
    Step {
        /// The command as words.
        command: String,
        /// `exited with status 1`, `was killed by signal 9`.
        how: String,
        /// The lines of its output that tell why, or else the last ones.
        last: Vec<String>,
        /// What to do, where the builder knows this failure.
        help: Option<String>,
    },
    /// A limit was passed; the build was stopped and removed.
    #[error("{what} is over the limit of {limit}")]
    Limit {
        /// What grew or took too long.
        what: String,
        /// The limit, in words.
        limit: String,
    },
    /// The codebase's Procfile or app.json has a mistake; the source knows file, line and column.
    #[error("what the codebase declares does not parse")]
    Manifest(#[source] Box<tolv_model::source::SourceError>),
    /// The sandbox could not be made or was lost.
    #[error("the build's sandbox failed")]
    Sandbox(#[source] tolv_sandbox::Error),
    /// A slug is not what its id says.
    #[error("slug {} {what}", short(&id.0))]
    Slug {
        /// Which slug.
        id: SlugId,
        /// What is wrong with it.
        what: String,
    },
    /// A layer is not what the slug says.
    #[error("dependency layer {} {what}", short(key))]
    Layer {
        /// Which.
        key: Digest,
        /// What is wrong with it.
        what: String,
    },
    /// A stack cannot be made or is not what its digest says.
    #[error("{problem}")]
    Stack {
        /// What is wrong, lower case.
        problem: String,
        /// What to do about it.
        help: String,
    },
    /// The machine's packages were changed while a stack was made of them.
    #[error("the machine's packages are being changed")]
    PackagesChange,
    /// It was told to stop.
    #[error("the build was cancelled")]
    Cancelled,
}

/// What a step said about its failure.
pub(crate) fn tail(last: &[String]) -> String {
    match last {
        [] => return String::new(),
        [line] => return format!(": {line}"),
        _ => {}
    }
    format!(":\n{}", last.join("\n"))
}

impl Error {
    /// For `map_err`: an I/O error with what was done to which path. The error number ECANCELED,
    /// which no file gives, is [`Error::Cancelled`].
    pub fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match Errno::from_io_error(&source) {
            Some(Errno::CANCELED) => Self::Cancelled,
            _ => Self::Io { doing, path, source },
        }
    }

    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Undetected { help, .. }
            | Self::Plan { help, .. }
            | Self::Toolchain { help, .. }
            | Self::Stack { help, .. } => Some(help),
            Self::Step { help, .. } => help.as_deref(),
            Self::PackagesChange => Some(
                "wait until the package manager has finished; if none runs, an installation was \
                 interrupted: dpkg --configure -a",
            ),
            Self::ForeignFolder { .. } => Some(
                "programs in it run with your rights: name a folder of your own that nobody else may \
                 write to (TOLV_TOOLCHAINS, TOLV_STACKS)",
            ),
            Self::Slug { .. } | Self::Layer { .. } => {
                Some("build its commit again: tolv releases repair")
            }
            Self::Source(_)
            | Self::Io { .. }
            | Self::Limit { .. }
            | Self::Manifest(_)
            | Self::Sandbox(_)
            | Self::Cancelled => None,
        }
    }
}
