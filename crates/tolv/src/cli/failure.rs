//! Why a command did not do what was asked, and what to do about it.

use std::io;
use std::process::ExitCode;

use tolv_api::client::Error;
use tolv_api::{Code, Problem, local};

use crate::output::{self, UNREAD};

/// One error, as a person reads it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Nothing is said where it is empty.
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
    /// The command's exit status.
    pub(crate) status: u8,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, status: 1 }
    }

    /// Standard output takes no more. Where nobody reads it, as behind `| head`, that is no news.
    pub(crate) fn unwritten(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new("").status(UNREAD),
            _ => Self::new(format!("standard output: {error}")),
        }
    }

    /// Says it; the exit status.
    pub(crate) fn report(self) -> ExitCode {
        if !self.text.is_empty() {
            output::fail_text(&self.text, self.hint.as_deref());
        }
        ExitCode::from(self.status)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Problem(problem) => {
                let Problem { code, detail, hint, .. } = *problem;
                let own = (code == Code::Unauthorized)
                    .then(|| "log in: tolv login URL --token tolv_…".to_owned());
                let hint = hint.map(|hint| harmless(&hint)).or(own);
                Self { hint, ..Self::new(harmless(&detail)) }
            }
            Error::Unreachable { url, .. } | Error::Broken { url, .. } if url == local::URL => {
                Self::new("`tolv up` has ended meanwhile").hint("start it: tolv up")
            }
            Error::Unreachable { url, source } => {
                Self::new(format!("nobody answers at {url}: {source}"))
                    .hint("is `tolv serve` running there?")
            }
            Error::Broken { url, source } => {
                Self::new(format!("the connection to {url} broke: {source}"))
            }
            Error::Odd { .. } => Self::new(error.to_string()),
        }
    }
}

/// Text from elsewhere without what moves a cursor or starts an escape sequence.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|&c| !c.is_control() || c == '\t' || c == '\n').collect()
}
