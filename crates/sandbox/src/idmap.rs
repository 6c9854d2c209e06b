//! How files of the platform's user are shown to an app as its own: an id-mapped mount takes its map
//! from a user namespace. Such namespaces are made once for each app and kept.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::sys::{self, Fork};

/// Most namespaces that are kept; each is a descriptor.
const MAX_KEPT: usize = 128;
/// The first version of Linux whose overlayfs takes id-mapped mounts.
const OVERLAID: (u32, u32) = (5, 19);

/// Namespaces by uid, the last one that was asked for at the end.
#[derive(Default)]
pub(crate) struct IdMaps(Vec<(u32, OwnedFd)>);

impl IdMaps {
    /// The namespace that shows this process's uid and gid as the app's. Nothing where the kernel makes
    /// none, or could not use it.
    pub(crate) fn of(&mut self, uid: u32) -> Option<OwnedFd> {
        if let Some(at) = self.0.iter().position(|(kept, _)| *kept == uid) {
            let kept = self.0.remove(at);
            self.0.push(kept);
        } else {
            if !is_overlaid() {
                return None;
            }
            let made = make(uid).ok()?;
            if self.0.len() >= MAX_KEPT {
                self.0.remove(0);
            }
            self.0.push((uid, made));
        }
        self.0.last()?.1.try_clone().ok()
    }
}

fn is_overlaid() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|sign: char| !sign.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OVERLAID,
        _ => false,
    }
}

/// A child holds the namespace until its maps are written.
fn make(uid: u32) -> std::io::Result<OwnedFd> {
    let (wait, end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (pid, _pidfd) = match sys::clone_process(libc::CLONE_NEWUSER, None)? {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop(end);
            rustix::io::read(&wait, &mut [0]).ok();
            sys::exit_now(0)
        }
    };
    let made = write_maps(pid, uid);
    drop(end);
    if let Some(pid) = Pid::from_raw(pid) {
        waitpid(Some(pid), WaitOptions::empty())?;
    }
    made
}

fn write_maps(pid: i32, uid: u32) -> std::io::Result<OwnedFd> {
    let own = [
        ("uid_map", rustix::process::geteuid().as_raw()),
        ("gid_map", rustix::process::getegid().as_raw()),
    ];
    for (name, own) in own {
        fs::write(format!("/proc/{pid}/{name}"), format!("{own} {uid} 1"))?;
    }
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}
