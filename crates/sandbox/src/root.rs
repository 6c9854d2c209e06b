//! The root file system of a sandbox: a read-only tmpfs with the stack, a private `/tmp`, what the
//! spec mounts, and writable layers above some of that.
//!
//! Every source is opened as a detached tree before anything is covered, so that sources below
//! `/tmp` work; every file system is mounted before what goes below it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, symlinkat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};

use self::room::Room;
use self::stack::{Stack, stack};
use crate::level::Reason;
use crate::network::names;
use crate::spec::{Access, Spec};
use crate::sys::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

mod room;
mod stack;

/// Where the new root is put together; every machine has it.
const STAGE: &str = "/tmp";
/// Of memory, on every machine this runs on, or a part of one.
const PAGE: u64 = 4096;
/// Of a small `/tmp`.
const FEWEST_INODES: u64 = 64;
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A symbolic link: where it points, and its name relative to the new root.
type Link = (PathBuf, PathBuf);

/// What is mounted.
enum Content {
    /// A detached mount.
    Mount(OwnedFd),
    /// Folders that lie on each other, highest first, read-only.
    Overlay(Vec<OwnedFd>),
}

/// A mount and where it goes.
struct Tree {
    content: Content,
    is_folder: bool,
    /// Relative to the new root.
    target: PathBuf,
    /// Whether a writable layer goes above it.
    is_private: bool,
}

/// The sources of a sandbox's mounts, opened while this process may still reach them: they lie in
/// folders that only the platform may enter, and an app's uid is another.
pub(crate) struct Sources {
    stack: Vec<OwnedFd>,
    mounts: Vec<OwnedFd>,
    /// By which a mount shows files of the platform as the app's own.
    idmap: Option<OwnedFd>,
}

impl Sources {
    /// Opens them; the caller has a mount namespace of its own, and the platform's uid.
    pub(crate) fn open(spec: &Spec, idmap: Option<OwnedFd>) -> Result<Self, Reason> {
        let open = |source: &Path| {
            at(&format!("open {}", source.display()), || {
                openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            })
        };
        let stack: Result<_, _> = spec.stack.iter().map(|layer| open(layer)).collect();
        let mounts: Result<_, _> = spec.mounts.iter().map(|mount| open(&mount.source)).collect();
        Ok(Self { stack: stack?, mounts: mounts?, idmap })
    }
}

/// Replaces the root file system of this process; the caller has its own mount and pid namespaces.
/// Everything in it gets its mode by name, whatever the umask is.
pub(crate) fn enter(
    spec: &Spec,
    sources: Sources,
    cgroups: &[(PathBuf, PathBuf)],
    ids: (u32, u32),
    resolv_conf: Option<&str>,
) -> Result<(), Reason> {
    let umask = rustix::process::umask(Mode::empty());
    let entered = replace(spec, sources, cgroups, ids, resolv_conf);
    rustix::process::umask(umask);
    entered
}

fn replace(
    spec: &Spec,
    sources: Sources,
    cgroups: &[(PathBuf, PathBuf)],
    ids: (u32, u32),
    resolv_conf: Option<&str>,
) -> Result<(), Reason> {
    at("make / private", || {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
    })?;
    let Stack { links, trees: stack } = stack(&sources.stack, resolv_conf.is_some())?;
    let devices = devices()?;
    let mut mounts = Vec::new();
    for (wanted, source) in spec.mounts.iter().zip(&sources.mounts) {
        let target = wanted.target.strip_prefix("/").unwrap_or(&wanted.target);
        let shown = wanted.source.display().to_string();
        let mut tree = copy(source, Path::new(""), &shown, target, attributes(wanted.access))?;
        tree.is_private = tree.is_folder && wanted.access == Access::Private;
        if let (true, Content::Mount(mount), Some(map)) =
            (tree.is_private, &tree.content, &sources.idmap)
        {
            // A file system that cannot do that shows its files as they are.
            sys::mount_idmap(mount.as_fd(), map.as_fd()).ok();
        }
        mounts.push(tree);
    }
    // A process reads its own limits where every runtime looks for them. Without the tree it looks
    // in vain, as on a machine that has none.
    let limits = attributes(Access::ReadOnly);
    mounts.extend(cgroups.iter().filter_map(|(group, target)| open(group, target, limits).ok()));
    mounts.sort_by_key(|mount| mount.target.components().count());
    let hosts = std::fs::read("/etc/hosts").unwrap_or_default();
    let hosts = if resolv_conf.is_some() { names::hosts(&hosts) } else { hosts };

    fs("tmpfs", STAGE, "mode=0755,size=16m,nr_inodes=64k")?;
    let root = at("open the new root", || {
        openat(CWD, STAGE, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    })?;
    for folder in ["tmp", "proc", "dev", "etc", "run", "var"] {
        folders(&root, Path::new(folder))?;
    }
    let mut room = None;
    if mounts.iter().any(|mount| mount.is_private) {
        room = Some(Room::make(&root, spec.level, ids, spec.limits.tmp)?);
    } else {
        fs("tmpfs", "/tmp/tmp", &room_options("1777", spec.limits.tmp))?;
    }
    fs("proc", "/tmp/proc", "")?;
    fs("tmpfs", "/tmp/dev", "mode=0755,size=64k")?;
    for folder in ["dev/pts", "dev/shm"] {
        folders(&root, Path::new(folder))?;
    }
    fs("devpts", "/tmp/dev/pts", "newinstance,ptmxmode=0666,mode=0620")?;
    fs("tmpfs", "/tmp/dev/shm", &room_options("1777", spec.limits.shm))?;
    let home = spec.home.strip_prefix("/").unwrap_or(&spec.home);
    if !mounts.iter().any(|mount| home.starts_with(&mount.target)) {
        folders(&root, home)?;
    }
    for tree in stack.iter().chain(&devices).chain(&mounts) {
        put(&root, tree)?;
        if let (true, Some(room)) = (tree.is_private, &mut room) {
            room.cover(&root, &tree.target)?;
        }
    }
    let fixed = [
        ("/tmp", "var/tmp"),
        ("/run", "var/run"),
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
        ("pts/ptmx", "dev/ptmx"),
        ("/proc/self/mounts", "etc/mtab"),
    ];
    let fixed = fixed.map(|(to, name)| (PathBuf::from(to), PathBuf::from(name)));
    for (to, name) in links.into_iter().chain(fixed) {
        folders(&root, name.parent().unwrap_or(Path::new("")))?;
        at(&format!("link /{}", name.display()), || symlinkat(&to, &root, &name))?;
    }
    write_etc(&root, spec, ids, &hosts, resolv_conf)?;
    at("sethostname", || rustix::system::sethostname(spec.hostname.as_bytes()))?;
    pivot(&root)
}

/// Options of a file system in memory that the app may fill: its bytes, and its files, for an empty
/// file takes memory too. To tmpfs 0 would mean no limit.
fn room_options(mode: &str, bytes: u64) -> String {
    let pages = bytes.div_ceil(PAGE).max(1);
    format!("mode={mode},size={},nr_inodes={}", pages * PAGE, pages.max(FEWEST_INODES))
}

fn attributes(access: Access) -> u64 {
    let safe = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    match access {
        Access::ReadOnly | Access::Private => safe | MOUNT_ATTR_RDONLY,
        Access::ReadWrite => safe,
    }
}

fn devices() -> Result<Vec<Tree>, Reason> {
    let there = DEVICES.iter().map(|name| Path::new("dev").join(name)).filter(|target| {
        let path = Path::new("/").join(target);
        path.metadata().is_ok_and(|meta| meta.file_type().is_char_device())
    });
    there.map(|target| open(&Path::new("/").join(&target), &target, MOUNT_ATTR_NOSUID)).collect()
}

/// Copies the mounts at a path into a detached tree with these attributes.
fn open(source: &Path, target: &Path, attributes: u64) -> Result<Tree, Reason> {
    copy(CWD, source, &source.display().to_string(), target, attributes)
}

/// As [`open`], of a path below a folder, or of the folder itself where the path is empty.
fn copy(
    folder: impl std::os::fd::AsFd,
    path: &Path,
    shown: &str,
    target: &Path,
    attributes: u64,
) -> Result<Tree, Reason> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = at(&format!("open_tree {shown}"), || open_tree(folder, path, flags))?;
    sys::mount_set(tree.as_fd(), attributes, true)
        .map_err(|error| Reason::io(format!("mount_setattr {shown}"), &error))?;
    let kind = at(&format!("stat {shown}"), || fstat(&tree))?.st_mode;
    let is_folder = FileType::from_raw_mode(kind) == FileType::Directory;
    let content = Content::Mount(tree);
    Ok(Tree { content, is_folder, target: target.to_path_buf(), is_private: false })
}

/// Mounts a new file system of a kind on an absolute path.
fn fs(kind: &str, target: &str, options: &str) -> Result<(), Reason> {
    let flags = match kind {
        "proc" => MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        "devpts" => MountFlags::NOSUID | MountFlags::NOEXEC,
        _ => MountFlags::NOSUID | MountFlags::NODEV,
    };
    let options = std::ffi::CString::new(options).unwrap_or_default();
    at(&format!("mount {kind}"), || mount(kind, target, kind, flags, options.as_c_str()))
}

/// Attaches a detached tree below the new root.
fn put(root: &OwnedFd, tree: &Tree) -> Result<(), Reason> {
    let target = &tree.target;
    if tree.is_folder {
        folders(root, target)?;
    } else {
        folders(root, target.parent().unwrap_or(Path::new("")))?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(root, target, flags, Mode::from_raw_mode(0o644)) {
            // What an outer mount has there already will do.
            Ok(_) | Err(rustix::io::Errno::ROFS | rustix::io::Errno::ACCESS) => {}
            Err(error) => {
                return Err(Reason::new(
                    format!("create /{}", target.display()),
                    error.raw_os_error(),
                ));
            }
        }
    }
    at(&format!("mount /{}", target.display()), || match &tree.content {
        Content::Mount(mount) => {
            move_mount(mount, "", root, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        }
        Content::Overlay(layers) => overlay(layers, &Path::new(STAGE).join(target)),
    })
}

/// Mounts folders that lie on each other, highest first, read-only.
fn overlay(layers: &[OwnedFd], target: &Path) -> rustix::io::Result<()> {
    // By descriptor: a path would need its colons and commas escaped.
    let layers: Vec<_> =
        layers.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd())).collect();
    let options = format!("lowerdir={}", layers.join(":"));
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let options = std::ffi::CString::new(options).unwrap_or_default();
    mount("overlay", target, "overlay", flags, options.as_c_str())
}

/// Makes a folder below the new root, with its parents.
fn folders(root: &OwnedFd, path: &Path) -> Result<(), Reason> {
    let mut made = PathBuf::new();
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        made.push(name);
        match mkdirat(root, &made, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            // Below a read-only mount the folder may be there all the same.
            Err(rustix::io::Errno::ROFS)
                if rustix::fs::statat(root, &made, rustix::fs::AtFlags::empty()).is_ok() => {}
            Err(error) => {
                return Err(Reason::new(
                    format!("mkdir /{}", made.display()),
                    error.raw_os_error(),
                ));
            }
        }
    }
    Ok(())
}

fn write_etc(
    root: &OwnedFd,
    spec: &Spec,
    (uid, gid): (u32, u32),
    hosts: &[u8],
    resolv_conf: Option<&str>,
) -> Result<(), Reason> {
    let (host, home) = (&spec.hostname, spec.home.display());
    let passwd = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\napp:x:{uid}:{gid}:app:{home}:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    let group = format!("root:x:0:\napp:x:{gid}:\nnogroup:x:65534:\n");
    // First: the C library also gives the names of ::1 to 127.0.0.1.
    let mut names = format!("127.0.0.1 localhost {host}\n").into_bytes();
    names.extend_from_slice(hosts);
    let texts = [
        ("etc/passwd", passwd.into_bytes()),
        ("etc/group", group.into_bytes()),
        ("etc/hosts", names),
        ("etc/hostname", format!("{host}\n").into_bytes()),
    ];
    let resolv_conf = resolv_conf.map(|text| ("etc/resolv.conf", text.as_bytes().to_vec()));
    for (path, text) in texts.into_iter().chain(resolv_conf) {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::EXCL | OFlags::CLOEXEC;
        let file = at(&format!("create /{path}"), || {
            openat(root, path, flags, Mode::from_raw_mode(0o644))
        })?;
        File::from(file)
            .write_all(&text)
            .map_err(|error| Reason::io(format!("write /{path}"), &error))?;
    }
    Ok(())
}

fn pivot(root: &OwnedFd) -> Result<(), Reason> {
    at("chdir to the new root", || rustix::process::fchdir(root))?;
    at("pivot_root", || rustix::process::pivot_root(".", "."))?;
    // The old root lies on top of the new one now.
    at("umount the old root", || unmount(".", UnmountFlags::DETACH))?;
    at("chdir /", || rustix::process::chdir("/"))?;
    let top = at("open /", || {
        openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    })?;
    read_only(top.as_fd())
}

fn read_only(top: BorrowedFd<'_>) -> Result<(), Reason> {
    let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    sys::mount_set(top, attributes, false).map_err(|error| Reason::io("make / read-only", &error))
}

/// Does one step and names it where it fails.
pub(crate) fn at<T>(
    stage: &str,
    step: impl FnOnce() -> rustix::io::Result<T>,
) -> Result<T, Reason> {
    step().map_err(|error| Reason::new(stage, error.raw_os_error()))
}
