//! The forked child, from its first instruction to its body.
//!
//! The order matters: the cgroup before anything is forked, the uid map before the uid, the root
//! file system before the body, and `Entered` before the body may do anything.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use rustix::process::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::app::Entered;
use crate::cgroup::{Group, Inside};
use crate::level::{Level, Reason};
use crate::root::at;
use crate::spawner::Body;
use crate::spec::Spec;
use crate::wire::{self, Answer};
use crate::{reap, root, sys};

/// What the child has of its launch.
pub(crate) struct Birth {
    pub(crate) body: Body,
    pub(crate) spec: Spec,
    /// The folder that no sandbox shows.
    pub(crate) hidden: Option<PathBuf>,
    /// From [`Spec::app_uid`], which cannot be asked in a new user namespace.
    pub(crate) app_uid: Option<u32>,
    /// The spec in JSON, this many bytes, then the payload.
    pub(crate) memory: OwnedFd,
    pub(crate) spec_bytes: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// The network namespace to join.
    pub(crate) network: Option<OwnedFd>,
    /// By which a mount shows files of the platform as the app's own.
    pub(crate) idmap: Option<OwnedFd>,
    /// How names resolve in a network that is not the machine's.
    pub(crate) resolv_conf: Option<String>,
    pub(crate) answer: OwnedFd,
    /// Says one byte when the maps are written; at its end the launch has failed.
    pub(crate) go: OwnedFd,
    pub(crate) group: Group,
    /// Whether a cgroup counts processes here.
    pub(crate) cgroup_counts: bool,
}

/// The rest of the child's life.
pub(crate) fn live(birth: Birth) -> ! {
    let code = catch_unwind(AssertUnwindSafe(|| be_born(birth))).unwrap_or(101);
    sys::exit_now(code)
}

fn be_born(birth: Birth) -> i32 {
    let Birth { body, spec, hidden, app_uid, memory, spec_bytes, fds, answer, go, .. } = birth;
    let Birth { group, network, resolv_conf, cgroup_counts, idmap, .. } = birth;
    let shown = group.shown().to_vec();
    let (joined, inside) = match group.enter() {
        Ok(inside) => (Ok(()), inside),
        Err(reason) => (Err(reason), Inside::default()),
    };
    let mut keep = vec![memory.as_raw_fd(), answer.as_raw_fd(), go.as_raw_fd()];
    keep.extend(fds.iter().map(|fd| fd.as_raw_fd()));
    keep.extend(inside.raw_fds());
    keep.extend(network.iter().chain(&idmap).map(|fd| fd.as_raw_fd()));
    let entered = joined
        .and_then(|()| sys::close_all_but(&keep).map_err(|error| Reason::io("close_range", &error)))
        .and_then(|()| enter(&spec, (app_uid, idmap), &go, &shown, (network, resolv_conf)))
        .and_then(|()| {
            wire::read_at(memory.as_fd(), spec_bytes, None)
                .map_err(|error| Reason::io("read the payload", &error))
        });
    let payload = match entered {
        Ok(payload) => payload,
        Err(reason) => {
            // The handle sees the end of the socket too.
            wire::send(answer.as_fd(), &Answer::Failed(reason), &[]).ok();
            return 1;
        }
    };
    drop((memory, go));
    let nice = reap::go_first();
    if wire::send(answer.as_fd(), &Answer::Entered, &[]).is_err() {
        // Whoever asked is gone.
        return 1;
    }
    drop(answer);
    body(Entered { payload, fds, spec, hidden, app_uid, nice, inside, cgroup_counts })
}

fn enter(
    spec: &Spec,
    (app_uid, idmap): (Option<u32>, Option<OwnedFd>),
    go: &OwnedFd,
    cgroups: &[(PathBuf, PathBuf)],
    (network, resolv_conf): (Option<OwnedFd>, Option<String>),
) -> Result<(), Reason> {
    // The body's own group and session: no signal of a terminal reaches it.
    at("setsid", rustix::process::setsid)?;
    let mut byte = [0];
    loop {
        match rustix::io::read(go, &mut byte) {
            Ok(0) => return Err(Reason::new("wait for the spawner", 0)),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Reason::new("wait for the spawner", error.raw_os_error())),
        }
    }
    if let Some(network) = network {
        at("join a network", || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        })?;
    }
    match spec.level {
        Level::Strict | Level::User => {
            let (uid, gid) = match app_uid {
                Some(uid) => (uid, uid),
                None => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            };
            let sources = root::Sources::open(spec, idmap)?;
            if spec.level == Level::User {
                become_user(uid, gid)?;
            }
            root::enter(spec, sources, cgroups, (uid, gid), resolv_conf.as_deref())
        }
        Level::Landlock | Level::None => at("become a child subreaper", || {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        }),
    }
}

/// Inside the user namespace the mapped uid is the only one there is.
fn become_user(uid: u32, gid: u32) -> Result<(), Reason> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    at("setresgid", || rustix::thread::set_thread_res_gid(gid, gid, gid))?;
    at("setresuid", || rustix::thread::set_thread_res_uid(uid, uid, uid))
}
