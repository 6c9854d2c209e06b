//! What a sandboxed process is given: its mounts, its limits, its identity.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids;
use crate::level::Level;
use crate::network::Network;

/// First of the uids given to apps; each is also the gid.
pub const FIRST_UID: u32 = 2_000_000;
/// How many uids apps share.
pub const UIDS: u32 = 1_000_000;

/// Everything about a sandbox but the program that runs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// How strongly the process is shut in.
    pub level: Level,
    /// Names the app; equal identities get equal uids.
    pub identity: String,
    /// Folders of the host whose `usr`, `etc` and `var` the process finds below its mounts, lowest
    /// first. Without one it finds the machine's own, as it does at levels without a root of their own.
    #[serde(with = "raw_paths")]
    pub stack: Vec<PathBuf>,
    /// What the process sees beside the stack, in any order.
    pub mounts: Vec<Mount>,
    /// Upper bounds.
    pub limits: Limits,
    /// Which network it is in.
    pub network: Network,
    /// Which bits the modes of new files never have.
    pub umask: u32,
    /// Host name inside (strict and user).
    pub hostname: String,
    /// Home directory in the made `/etc/passwd`; exists inside even where nothing is mounted.
    #[serde(with = "raw_path")]
    pub home: PathBuf,
}

/// A path is bytes; JSON's strings are not.
mod raw_path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(Vec::deserialize(from)?).into())
    }
}

/// As [`raw_path`], of several.
mod raw_paths {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::PathBuf;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.iter().map(|path| path.as_os_str().as_bytes()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        let paths = Vec::<Vec<u8>>::deserialize(from)?;
        Ok(paths.into_iter().map(|path| OsString::from_vec(path).into()).collect())
    }
}

impl Spec {
    /// A sandbox without mounts, with the default limits and a network of its own.
    pub fn new(level: Level, identity: &str) -> Self {
        Self {
            level,
            identity: identity.to_owned(),
            stack: Vec::new(),
            mounts: Vec::new(),
            limits: Limits::default(),
            network: Network::own(),
            umask: 0o022,
            hostname: "app".to_owned(),
            home: PathBuf::from("/app"),
        }
    }

    /// The uid (and gid) that the app gets where it gets one of its own: in strict, and in user
    /// where the platform can give it. Asked outside the sandbox.
    pub fn app_uid(&self) -> Option<u32> {
        let own = match self.level {
            Level::Strict => true,
            Level::User => ids::gives_uids(),
            Level::Landlock | Level::None => false,
        };
        own.then(|| uid_of(&self.identity))
    }

    /// The path a process of this sandbox sees for a target; see [`view`].
    pub fn view(&self, target: &Path) -> PathBuf {
        view(self.level, &self.mounts, target)
    }
}

/// One file or directory of the host, shown inside.
///
/// Where the app has a uid of its own ([`Spec::app_uid`]), a [`Access::ReadWrite`] source becomes the property of
/// the app's uid, with all below it, unless it is so already: give only what the platform made
/// for this app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is on the host; must exist.
    #[serde(with = "raw_path")]
    pub source: PathBuf,
    /// Where it is shown: absolute, without `..`.
    #[serde(with = "raw_path")]
    pub target: PathBuf,
    /// What may be done with it.
    pub access: Access,
}

impl Mount {
    /// A mount that cannot be written to.
    pub fn read_only(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), target: target.into(), access: Access::ReadOnly }
    }

    /// A mount above which the app has a layer of its own to write to.
    pub fn private(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), target: target.into(), access: Access::Private }
    }

    /// A mount the app may change.
    pub fn read_write(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), target: target.into(), access: Access::ReadWrite }
    }
}

/// What may be done with a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Read and execute.
    ReadOnly,
    /// Everything, in a layer above the source that no other sandbox sees and that is gone with this
    /// one; the source stays as it is. Where no layer can be had ([`Machine`](crate::Machine)), as
    /// [`Access::ReadOnly`].
    Private,
    /// Everything.
    ReadWrite,
}

/// Upper bounds; `None` leaves the machine's own.
///
/// | field | unit | enforced by |
/// |---|---|---|
/// | `memory` | bytes | cgroup |
/// | `processes` | processes and threads of the app | cgroup, else `RLIMIT_NPROC` in user |
/// | `open_files` | descriptors | `RLIMIT_NOFILE`, at most the hard limit |
/// | `cpu_percent` | 100 is one core | cgroup |
/// | `cpu_weight` | share of the CPU where others want it too; 100 without it | cgroup |
/// | `tmp` | bytes of `/tmp` and of private layers together, with an inode for every 4 KiB | tmpfs (strict and user) |
/// | `shm` | bytes of `/dev/shm`, likewise | tmpfs (strict and user) |
///
/// Pages of these are memory of whoever writes them: the cgroup counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the table above documents them")]
pub struct Limits {
    pub memory: Option<u64>,
    pub processes: Option<u64>,
    pub open_files: Option<u64>,
    pub cpu_percent: Option<u32>,
    pub cpu_weight: Option<u32>,
    pub tmp: u64,
    pub shm: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: None,
            processes: None,
            open_files: None,
            cpu_percent: None,
            cpu_weight: None,
            tmp: 1024 * 1024 * 1024,
            shm: 1024 * 1024 * 1024,
        }
    }
}

/// The uid (and gid) of an app in strict, and in user under root.
///
/// FNV-1a over the identity: stable across versions and machines.
pub fn uid_of(identity: &str) -> u32 {
    let hash = identity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let offset = (hash ^ (hash >> 32)) % u64::from(UIDS);
    FIRST_UID + u32::try_from(offset).unwrap_or(0)
}

/// The path a process sees for a target.
///
/// In strict and user it is the target itself. In landlock and none there is no mount namespace:
/// the deepest mount that holds the target gives the path below its source. A target outside
/// every mount stays as it is.
pub fn view(level: Level, mounts: &[Mount], target: &Path) -> PathBuf {
    if level.has_own_root() {
        return target.to_path_buf();
    }
    mounts
        .iter()
        .filter_map(|mount| Some((mount, target.strip_prefix(&mount.target).ok()?)))
        .max_by_key(|(mount, _)| mount.target.components().count())
        .map_or_else(
            || target.to_path_buf(),
            |(mount, rest)| {
                if rest.as_os_str().is_empty() {
                    mount.source.clone()
                } else {
                    mount.source.join(rest)
                }
            },
        )
}

/// Whether a target is absolute, not the root, and free of `.` and `..`.
pub(crate) fn is_plain_target(target: &Path) -> bool {
    let mut parts = target.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests;
