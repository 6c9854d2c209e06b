//! Why `up` ended by itself: what to say, which exit status to give, what to do about it.

use std::io;
use std::path::PathBuf;

use tolv_model::env::EnvError;
use tolv_model::name::ProcessType;
use tolv_model::source::SourceError;
use tolv_run::{Culprit, Exit};

use crate::home::HomeError;
use crate::listen::ListenError;
use crate::watch::WatchError;

/// Why `up` ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// DIR is missing, or not a folder.
    #[error("`{path}` is not a folder that can be read")]
    Dir {
        /// What was given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The state folder is held or cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The file of config variables cannot be read.
    #[error("the config file `{path}` cannot be read")]
    EnvFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file of config variables does not parse.
    #[error("the config file does not parse")]
    EnvSyntax(#[source] Box<SourceError>),
    /// A config variable is refused.
    #[error("the config file cannot be used")]
    Config(#[source] EnvError),
    /// The machine does not give what was asked for.
    #[error(transparent)]
    Sandbox(#[from] tolv_sandbox::Error),
    /// The system refused a descriptor.
    #[error("the system is out of what a build needs")]
    System(#[source] io::Error),
    /// The router has nowhere to listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// `--watch` cannot watch.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// No slug.
    #[error(transparent)]
    Build(#[from] tolv_build::Error),
    /// `--formation` names a type that the codebase does not have.
    #[error("`{unknown}` in the formation is not a process type of this codebase; it has {known}")]
    UnknownType {
        /// The name given.
        unknown: ProcessType,
        /// Those that exist, in words.
        known: String,
    },
    /// The release phase ended with a failure.
    #[error("the release phase failed with {exit}: `{command}`; nothing was started")]
    ReleasePhase {
        /// How it ended.
        exit: Exit,
        /// The command of the `release` process type.
        command: String,
    },
    /// The processes could not be brought up.
    #[error(transparent)]
    Run(#[from] tolv_run::Error),
}

impl Error {
    /// The exit status that a program shows for it: that of the process that failed first, where
    /// one did; 1 for everything else, a missing command among them.
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

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Build(error) => error.help().map(str::to_owned),
            Self::Home(HomeError::Held { .. }) => {
                Some("stop that one first, or give this one a TOLV_HOME of its own".to_owned())
            }
            Self::Listen(ListenError::Asked { .. }) => {
                Some("`--listen 127.0.0.1:0` takes any free port".to_owned())
            }
            Self::Run(tolv_run::Error::Rollout { culprit, .. }) => match culprit.reason {
                tolv_run::Reason::BootTimeout(_) => Some(
                    "a web process must answer HTTP on the port in its PORT variable".to_owned(),
                ),
                tolv_run::Reason::CommandNotFound(_) => Some(format!(
                    "check the line of `{}` in the Procfile, and that its program is a declared \
                     dependency",
                    culprit.process.process_type
                )),
                _ => None,
            },
            _ => None,
        }
    }

    /// The process that made a rollout fail, with its last lines.
    pub fn culprit(&self) -> Option<&Culprit> {
        match self {
            Self::Run(tolv_run::Error::Rollout { culprit, .. }) => Some(culprit),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
