//! Which ids an app gets, found out by doing: root is not always the machine's root, nor does it
//! always have root's powers.
//!
//! | who | has | at strict | at user |
//! |---|---|---|---|
//! | root of a machine | everything | a uid per app | a uid per app |
//! | root in a container, without powers | the machine's root, and no other id | – | – |
//! | root in a user namespace of one id | an ordinary user's, called 0 | – | that one, under another number |
//! | an ordinary user | its own id | – | that one |

use std::sync::OnceLock;

use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{CapabilitySet, capabilities};

use crate::level::Reason;
use crate::spec::FIRST_UID;

/// A file of every kernel that belongs to the machine's root, whatever that is called here.
const ROOTS_FILE: &str = "/proc/sys/kernel/ostype";

/// Whether this process can give things to the uids of apps, and become one of them.
pub(crate) fn gives_uids() -> bool {
    static GIVES: OnceLock<bool> = OnceLock::new();
    *GIVES.get_or_init(|| {
        rustix::process::geteuid().is_root() && can_set_ids() && give_a_pipe().is_ok()
    })
}

fn can_set_ids() -> bool {
    let wanted = CapabilitySet::SETUID | CapabilitySet::SETGID;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(wanted))
}

fn give_a_pipe() -> rustix::io::Result<()> {
    let (read, _write) = pipe_with(PipeFlags::CLOEXEC)?;
    fchown(&read, Some(Uid::from_raw(FIRST_UID)), Some(Gid::from_raw(FIRST_UID)))
}

/// Whether the only id that there is for an app is that of the machine's root: files of the machine
/// and of its kernel are root's, whatever powers that has lost.
pub(crate) fn is_machine_root() -> bool {
    rustix::process::geteuid().is_root()
        // Unknown is taken as the worse.
        && rustix::fs::stat(ROOTS_FILE).map_or(true, |stat| stat.st_uid == 0)
}

/// Refuses a user namespace in which an app would be the machine's root.
pub(crate) fn check_user_namespace(app_uid: Option<u32>) -> Result<(), Reason> {
    match app_uid.is_none() && is_machine_root() {
        true => Err(Reason::new(
            "map a user: the only id here is that of the machine's root",
            libc::EPERM,
        )),
        false => Ok(()),
    }
}
