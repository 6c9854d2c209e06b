//! A deploy's log, for those who read it and for those who listen to one process of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use tolv_logs::Line;
use tolv_logs::store::{Item, Reader};
use tolv_model::id::DeployId;
use tolv_model::name::{Deploy as DeployPath, ProcessName};
use tolv_run::{Log, Written};

use super::controller::Controller;
use super::error::Error;
use super::platform::{Platform, blocking};

/// The log of a deploy.
#[derive(Debug)]
pub struct Logged {
    /// To read.
    pub log: Log,
    /// Process, or type of one-offs → what was written since the platform began.
    pub written: BTreeMap<Arc<str>, Written>,
    /// Most bytes of it.
    pub limit: u64,
    /// Lines for whoever follows it, while it takes none.
    pub unstored: broadcast::Receiver<Line>,
}

impl Platform {
    /// The log of a deploy.
    ///
    /// # Errors
    ///
    /// There is no such deploy.
    pub async fn log(&self, path: &DeployPath) -> Result<Logged, Error> {
        let controller = self.controller(path).await?;
        let (engine, unstored) = (&controller.engine, controller.unstored.subscribe());
        let written = engine.written().await;
        Ok(Logged { log: engine.log(), written, limit: engine.logs_bytes(), unstored })
    }

    /// Where the log of a deploy is.
    pub(super) fn log_folder(&self, deploy: &DeployId) -> PathBuf {
        self.0.home.join("logs").join(deploy.as_str())
    }
}

/// Listens to what is said by and about one process from its beginning on.
///
/// It reads the log as any reader does: neither the process nor the platform's own output is
/// waited for.
pub(super) struct Listener {
    reader: Option<Reader>,
    process: String,
    stored: watch::Receiver<u64>,
}

impl Listener {
    /// Before the process begins.
    pub(super) async fn begin(
        controller: &Controller,
        process: &ProcessName,
    ) -> Result<Self, Error> {
        let log = controller.engine.log();
        let stored = log.stored();
        let reader = blocking(move || Reader::at_end(log.folder()).map_err(unreadable)).await?;
        Ok(Self { reader: Some(reader), process: process.to_string(), stored })
    }

    /// Gives `hear` each line until `process` is over, and then those that are left.
    pub(super) async fn until<T>(
        mut self,
        process: impl Future<Output = T>,
        hear: impl Fn(&Line),
    ) -> T {
        tokio::pin!(process);
        loop {
            tokio::select! {
                over = &mut process => {
                    self.read(&hear).await;
                    return over;
                }
                // The log's own hand lives as long as the engine.
                Ok(()) = self.stored.changed() => {
                    self.read(&hear).await;
                }
            }
        }
    }

    async fn read(&mut self, hear: &impl Fn(&Line)) {
        self.stored.borrow_and_update();
        while let Some(mut reader) = self.reader.take() {
            let read = tokio::task::spawn_blocking(move || {
                let mut items = Vec::new();
                let more = reader.read(&mut items);
                (reader, items, more)
            });
            // A log that cannot be read is said by those who read all of it.
            let Ok((reader, items, more)) = read.await else { return };
            self.reader = Some(reader);
            for item in items {
                match item {
                    Item::Line(line) if *line.process == *self.process => hear(&line),
                    Item::Missed { process, lines, .. } if *process == *self.process => {
                        hear(&Line::dropped(process, Some(lines)));
                    }
                    Item::Line(_) | Item::Missed { .. } | Item::Gap => {}
                }
            }
            if !more.unwrap_or(false) {
                return;
            }
        }
    }
}

fn unreadable(source: std::io::Error) -> Error {
    Error::System { what: "read a deploy's log", source }
}
