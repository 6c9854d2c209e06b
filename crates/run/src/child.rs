//! The launch of one shim.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use tolv_model::shortage::Shortage;
use tolv_sandbox::{Launch, Launched, Level, Spawner, Spec, errno_text};

use crate::control::pair;
use crate::journal::open_folder;
use crate::orphan::Door;
use crate::protocol::Orders;
use crate::shim::SHIM;
use crate::streams::{Ends, Wiring};
use crate::target::{Exit, Reason, StartFailure};

/// Everything that a launch needs.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) orders: Orders,
    pub(crate) spec: Spec,
    /// The folder of the deploy's log.
    pub(crate) folder: PathBuf,
    /// The folders for its door, of which the first that takes it has it; none where the orders have no
    /// identity for one.
    pub(crate) doors: Vec<PathBuf>,
}

/// A shim that was launched.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) launched: Launched,
    pub(crate) control: OwnedFd,
    /// Where the next platform finds it.
    pub(crate) door: Option<Door>,
    /// Its streams, where they do not go to the log.
    pub(crate) ends: Option<Ends>,
}

/// Launches a shim. Blocks for some milliseconds.
///
/// # Errors
///
/// What failed.
pub(crate) fn launch(spawner: &Spawner, start: Start) -> Result<Started, StartFailure> {
    let Start { orders, spec, folder, doors } = start;
    let log = open_log(&folder, &spec).map_err(|error| {
        StartFailure::of_file(format_args!("the log folder `{}`", folder.display()), &error)
    })?;
    let payload = orders.to_bytes().map_err(|error| error.to_string())?;
    let (control, other) = pair().map_err(|error| StartFailure::of("a socket pair", &error))?;
    let mut wiring =
        Wiring::new(orders.head.io).map_err(|error| StartFailure::of("its streams", &error))?;
    let mut fds = vec![other, log];
    let (door, listener) = open_door(&doors, orders.head.writer)?.unzip();
    fds.extend(listener);
    fds.append(&mut wiring.theirs);
    let launch = Launch { body: SHIM.0, payload, fds, spec };
    let launched = spawner.launch(launch).map_err(|error| {
        door.iter().for_each(Door::remove);
        StartFailure { why: error.to_string(), shortage: error.shortage() }
    })?;
    let ends = wiring.take().map_err(|error| StartFailure::of("its terminal", &error))?;
    Ok(Started { launched, control, door, ends })
}

/// In the first folder whose disk takes it.
fn open_door(folders: &[PathBuf], writer: u64) -> Result<Option<(Door, OwnedFd)>, StartFailure> {
    let mut failed = None;
    for folder in folders {
        match Door::open(folder, writer) {
            Ok(door) => return Ok(Some(door)),
            Err(error) => {
                let is_disk = Shortage::of_disk(&error).is_some();
                let what = format_args!("a socket in `{}`", folder.display());
                let failure = failed.get_or_insert(StartFailure::of_file(what, &error));
                if !is_disk {
                    return Err(failure.clone());
                }
            }
        }
    }
    failed.map_or(Ok(None), Err)
}

fn open_log(folder: &Path, spec: &Spec) -> io::Result<OwnedFd> {
    fs::create_dir_all(folder)?;
    if let (Level::User, Some(uid)) = (spec.level, spec.app_uid())
        && fs::metadata(folder)?.uid() != uid
    {
        // In its user namespace the shim is not root. The folder first: who makes a segment
        // gives it to the folder's owner.
        chown(folder, Some(uid), Some(uid))?;
        for entry in fs::read_dir(folder)? {
            chown(entry?.path(), Some(uid), Some(uid))?;
        }
    }
    open_folder(folder)
}

/// What a failed exec means to the one who wrote the Procfile.
pub(crate) fn exec_failure(errno: i32, what: &str) -> Reason {
    let mut shortage = None;
    match errno {
        // The shim's first process: an app's own limit is never that low.
        libc::EAGAIN => shortage = Some(Shortage::Processes),
        _ if !what.starts_with("exec") => {}
        libc::ENOENT => return Reason::CommandNotFound(Exit::Code(127)),
        libc::EACCES | libc::ENOEXEC => return Reason::CommandNotFound(Exit::Code(126)),
        _ => {}
    }
    Reason::NotStarted(StartFailure { why: format!("{what}: {}", errno_text(errno)), shortage })
}

#[cfg(test)]
mod tests;
