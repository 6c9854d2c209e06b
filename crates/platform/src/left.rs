//! Processes that a killed platform has left running, which the next one goes on with.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use tolv_model::id::DeployId;

use super::error::Error;
use super::platform::{Platform, blocking};

/// In the state folder: a folder for each deploy, with a socket for each of its processes.
const DOORS: &str = "processes";

impl Platform {
    /// Processes that a killed platform has left running, of deploys that are not there any more.
    pub(super) async fn kill_strangers(&self) -> Result<(), Error> {
        let failed = |source| Error::System { what: "look for processes left running", source };
        let known: HashSet<String> =
            self.controllers().keys().map(|id| id.as_str().to_owned()).collect();
        let folders = [Some(&self.0.home), self.0.aside.as_ref()];
        let folders: Vec<_> = folders.into_iter().flatten().map(|home| home.join(DOORS)).collect();
        blocking(move || {
            for folder in folders {
                let entries = match fs::read_dir(folder) {
                    Ok(entries) => entries,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(error)),
                };
                for entry in entries {
                    let entry = entry.map_err(failed)?;
                    let is_known =
                        entry.file_name().to_str().is_some_and(|name| known.contains(name));
                    if !is_known {
                        tolv_run::kill_left(&entry.path()).map_err(failed)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Where the processes of a deploy are found by the next platform, where this one is killed.
    pub(super) fn doors_of(&self, deploy: &DeployId) -> PathBuf {
        self.0.home.join(DOORS).join(deploy.as_str())
    }

    /// The same of processes that were started while the disk took no socket.
    pub(super) fn doors_aside_of(&self, deploy: &DeployId) -> Option<PathBuf> {
        Some(self.0.aside.as_ref()?.join(DOORS).join(deploy.as_str()))
    }

    /// Removes the folder aside, once nothing runs any more.
    pub(super) fn remove_aside(&self) {
        if let Some(aside) = &self.0.aside {
            // Mostly there is none.
            fs::remove_dir_all(aside).ok();
        }
    }
}
