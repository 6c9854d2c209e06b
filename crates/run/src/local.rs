//! The engine: see the crate's page.

use tokio::sync::{mpsc, watch};
use tolv_logs::Line;

use crate::target::{Endpoints, Error, Exit, OneOff, Outcome, Settings, Target};

/// The engine of one deploy on this machine. Clones are the same engine; it ends with the last.
#[derive(Clone)]
pub struct Local {
    endpoints: watch::Sender<Endpoints>,
}

impl Local {
    /// An engine without processes, and the lines of everything it will run. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Spool`].
    pub fn new(_settings: Settings) -> Result<(Self, mpsc::Receiver<Line>), Error> {
        Err(Error::Stopped)
    }

    /// Makes what runs equal to `target`; see the crate's page. A second call waits for the
    /// first. Dropping the future before the switch undoes it.
    ///
    /// # Errors
    ///
    /// Any of [`Error`]'s; what ran before then still runs.
    pub async fn converge(&self, _target: Target) -> Result<Outcome, Error> {
        Err(Error::Stopped)
    }

    /// Runs one process to its end, beside the others. Dropping the future stops it.
    ///
    /// # Errors
    ///
    /// [`Error::NotStarted`], [`Error::TooLong`], [`Error::Env`], [`Error::Spool`],
    /// [`Error::NoPort`], [`Error::Stopped`]. A status other than 0 is no error here.
    pub async fn run_once(&self, _one_off: OneOff) -> Result<Exit, Error> {
        Err(Error::Stopped)
    }

    /// What runs, now and at every change.
    pub fn endpoints(&self) -> watch::Receiver<Endpoints> {
        self.endpoints.subscribe()
    }

    /// Puts a line of the platform among those of the processes; lost where nobody reads.
    pub fn say(&self, _line: Line) {}

    /// Stops everything and waits until it is gone: SIGTERM, the grace period, SIGKILL. From
    /// here on nothing can be started, and the receiver of the lines ends after the last.
    pub async fn stop(&self) {}

    /// Kills everything now, without waiting.
    pub fn kill(&self) {}
}
