//! What was missing, where that is the cause of an error.

use std::io;

use tolv_model::shortage::Shortage;

use super::Error;
use crate::repo::RepoError;

impl Error {
    /// What was missing for it, where that is the cause.
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            // These are not among their own sources: what they say is passed on as it is.
            Self::Run(error) => error.shortage(),
            Self::Sandbox(error) => error.shortage(),
            Self::Repo(RepoError::Git { said, .. }) => said_by_git(said),
            _ => shortage(self),
        }
    }

    /// What is wrong with the disk of the platform, where that is the cause.
    pub fn disk_fault(&self) -> Option<Shortage> {
        match self {
            Self::Store(error) if error.disk_fault().is_some() => error.disk_fault(),
            Self::DiskFault(fault) => Some(*fault),
            Self::NotRecordable => Some(Shortage::WritableDisk),
            Self::DiskFull { .. } | Self::NoFiles { .. } => Some(Shortage::DiskSpace),
            // It has the disk from a place of its own.
            Self::Run(error) => error.shortage().filter(|shortage| shortage.is_disk()),
            _ => disk_fault(self),
        }
    }
}

fn disk_fault(error: &(dyn std::error::Error + 'static)) -> Option<Shortage> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| Shortage::of_disk(error.downcast_ref::<io::Error>()?))
}

/// The first shortage among an error and its sources.
fn shortage(error: &(dyn std::error::Error + 'static)) -> Option<Shortage> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
        if let Some(error) = error.downcast_ref::<tolv_sandbox::Error>() {
            return error.shortage();
        }
        Shortage::of_errno(error.downcast_ref::<io::Error>()?.raw_os_error()?)
    })
}

/// git itself could not go on: it says so in the system's words.
fn said_by_git(said: &str) -> Option<Shortage> {
    [
        ("Resource temporarily unavailable", Shortage::Processes),
        ("Too many open files", Shortage::Descriptors),
        ("Cannot allocate memory", Shortage::Memory),
    ]
    .into_iter()
    .find_map(|(words, shortage)| said.contains(words).then_some(shortage))
}
