//! The stack: what a process finds below its own mounts. Either the folders of a spec, or, where it
//! names none, the machine's own programs, libraries and certificates.
//!
//! One folder is shown by plain bind mounts. Several lie on each other: a name that one of them has is
//! a bind mount of it, a folder that several have is a read-only overlay of these, and of a file that
//! several have the highest one is shown.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;

use super::{Content, Link, Tree, attributes, copy, open};
use crate::level::Reason;
use crate::spec::Access;

/// Parts of a stack that are links on a merged-/usr system, and folders on other machines.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What programs of the machine need of `/etc`; the rest of it is the machine's own business.
const ETC: [&str; 22] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "fonts",
    "gai.conf",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "perl",
    "pki",
    "protocols",
    "services",
    "shells",
    "ssl",
    "timezone",
];
/// Files of `/etc` that are made for each sandbox.
const MADE: [&str; 6] = ["group", "hostname", "hosts", "mtab", "passwd", "resolv.conf"];
/// Parts of `/var` that are each sandbox's own.
const OWN_VAR: [&str; 4] = ["lock", "run", "spool", "tmp"];
/// How many processors there are: the C library and every runtime ask there.
const SYSTEM: &str = "sys/devices/system";
/// How names resolve where the sandbox is in the machine's network.
const RESOLV_CONF: &str = "etc/resolv.conf";

/// What is shown below the mounts of a spec.
#[derive(Default)]
pub(super) struct Stack {
    pub(super) links: Vec<Link>,
    pub(super) trees: Vec<Tree>,
}

/// Opens everything; `layers` are the folders of the spec, lowest first.
pub(super) fn stack(layers: &[OwnedFd], own_names: bool) -> Result<Stack, Reason> {
    let mut stack = if layers.is_empty() { machine()? } else { layered(layers)? };
    let names = (!own_names).then_some(RESOLV_CONF);
    for target in names.into_iter().chain([SYSTEM]).map(Path::new) {
        let path = Path::new("/").join(target);
        if path.exists() {
            stack.trees.push(open(&path, target, attributes(Access::ReadOnly))?);
        }
    }
    Ok(stack)
}

/// The machine's own.
fn machine() -> Result<Stack, Reason> {
    let mut stack = Stack::default();
    let read_only = attributes(Access::ReadOnly);
    for name in ["usr"].into_iter().chain(MERGED) {
        let path = Path::new("/").join(name);
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_symlink() {
            let to = std::fs::read_link(&path)
                .map_err(|error| Reason::io(format!("read /{name}"), &error))?;
            stack.links.push((to, name.into()));
        } else {
            stack.trees.push(open(&path, Path::new(name), read_only)?);
        }
    }
    for target in ETC.iter().map(|name| Path::new("etc").join(name)) {
        let path = Path::new("/").join(&target);
        if path.exists() {
            stack.trees.push(open(&path, &target, read_only)?);
        }
    }
    Ok(stack)
}

fn layered(layers: &[OwnedFd]) -> Result<Stack, Reason> {
    let mut stack = Stack::default();
    merge(layers, "", &|name| name == "usr", &mut stack)?;
    if stack.trees.is_empty() {
        return Err(Reason::new("find usr in the stack", libc::ENOENT));
    }
    for name in MERGED {
        let path = Path::new("usr").join(name);
        let has = |layer: &OwnedFd| statat(layer, &path, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if layers.iter().any(has) {
            stack.links.push((path, name.into()));
        }
    }
    merge(layers, "etc", &|name| !MADE.contains(&name), &mut stack)?;
    merge(layers, "var", &|name| !OWN_VAR.contains(&name), &mut stack)?;
    Ok(stack)
}

/// Shows each name that a folder has in any layer.
fn merge(
    layers: &[OwnedFd],
    folder: &str,
    wanted: &dyn Fn(&str) -> bool,
    stack: &mut Stack,
) -> Result<(), Reason> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // What has a name, highest first.
    let mut found: BTreeMap<PathBuf, Vec<(OwnedFd, FileType)>> = BTreeMap::new();
    for layer in layers.iter().rev() {
        let within = if folder.is_empty() { "." } else { folder };
        let folder = match openat(layer, within, flags | OFlags::RDONLY, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(bad(within, error)),
        };
        for entry in Dir::read_from(&folder).map_err(|error| bad(within, error))? {
            let entry = entry.map_err(|error| bad(within, error))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || !name.to_str().is_none_or(wanted) {
                continue;
            }
            let here = openat(
                &folder,
                name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| bad(within, error))?;
            let kind = rustix::fs::fstat(&here).map_err(|error| bad(within, error))?.st_mode;
            found.entry(name.into()).or_default().push((here, FileType::from_raw_mode(kind)));
        }
    }
    for (name, places) in found {
        let target = Path::new(folder).join(name);
        let is_folder = |kind: FileType| kind == FileType::Directory;
        let folders = places.iter().take_while(|(_, kind)| is_folder(*kind)).count();
        let mut places = places.into_iter();
        let Some((highest, kind)) = places.next() else { continue };
        match (kind, folders) {
            (FileType::Symlink, _) => {
                let to = readlinkat(&highest, "", Vec::new())
                    .map_err(|error| bad(&target.to_string_lossy(), error))?;
                stack.links.push((OsStr::from_bytes(to.to_bytes()).into(), target));
            }
            (FileType::Directory, 2..) => {
                let lower =
                    std::iter::once(highest).chain(places.take(folders - 1).map(|(fd, _)| fd));
                let content = Content::Overlay(lower.collect());
                stack.trees.push(Tree { content, is_folder: true, target, is_private: false });
            }
            (FileType::Directory | FileType::RegularFile, _) => {
                let shown = format!("/{} of the stack", target.display());
                let read_only = attributes(Access::ReadOnly);
                stack.trees.push(copy(highest.as_fd(), Path::new(""), &shown, &target, read_only)?);
            }
            _ => {}
        }
    }
    Ok(())
}

fn bad(what: &str, error: Errno) -> Reason {
    Reason::new(format!("read /{what} of the stack"), error.raw_os_error())
}
