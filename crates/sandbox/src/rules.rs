//! The rules a process cannot get rid of: Landlock, seccomp, capabilities, resource limits.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::level::{Level, Reason};
use crate::spec::{Access, Spec};
use crate::sys;

/// What a process of level landlock may read beside its mounts.
const STACK: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/sys/devices/system",
    "/run/systemd/resolve",
];

/// What it may also write.
const WRITABLE: [&str; 11] = [
    "/tmp",
    "/dev/full",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
    "/proc",
];
/// Of these everything, where there is a root of its own: then they are too.
const OWN: [&str; 3] = ["/tmp", "/dev", "/proc"];
/// Where a platform is root without powers its apps are root too, who may write files of the kernel
/// and read those of the machine that are for root alone: of these folders less is shown then.
const ROOTS: [&str; 2] = ["/etc", "/proc"];
/// What is shown of `/etc` to such apps.
const ETC: [&str; 29] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "fonts",
    "gai.conf",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "perl",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "resolv.conf",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];
/// Most entries of a folder that are shown one by one.
const MAX_BESIDE: usize = 1000;

/// Shuts this process and all its children in: by path, and, where the kernel can (Landlock's
/// version 6), so that they can neither signal nor connect by an abstract name to what is outside.
///
/// Behind a root of its own this is a second lock, and a kernel without Landlock is no error.
pub(crate) fn landlock(spec: &Spec, hidden: Option<&Path>) -> Result<(), Reason> {
    let own_root = spec.level.has_own_root();
    let shown =
        |mount: &crate::Mount| if own_root { mount.target.clone() } else { mount.source.clone() };
    let (mut read, mut write): (Vec<PathBuf>, Vec<PathBuf>) = (vec![], vec![]);
    if own_root {
        read.push("/".into());
        write.extend(OWN.map(PathBuf::from));
    } else {
        let is_root = rustix::process::geteuid().is_root();
        let shown = |folder: &&str| !is_root || !ROOTS.contains(folder);
        for folder in STACK.iter().copied().filter(shown) {
            show_beside(Path::new(folder), hidden, &mut read);
        }
        for folder in WRITABLE.iter().copied().filter(shown) {
            show_beside(Path::new(folder), hidden, &mut write);
        }
        if is_root {
            read.push("/proc".into());
            read.extend(ETC.map(|name| Path::new("/etc").join(name)));
        }
    }
    for mount in &spec.mounts {
        match mount.access {
            Access::Private if own_root => write.push(shown(mount)),
            Access::ReadOnly | Access::Private => read.push(shown(mount)),
            Access::ReadWrite => write.push(shown(mount)),
        }
    }
    for list in [&mut read, &mut write] {
        list.retain(|path| path.exists());
    }
    let abi = ABI::V5;
    let apply = || {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rules(path_beneath_rules(&read, AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(&write, AccessFs::from_all(abi)))?;
        ruleset.restrict_self()
    };
    let status = apply().map_err(|error: landlock::RulesetError| {
        Reason::new(format!("landlock: {error}"), sys::landlock_abi().1)
    })?;
    if status.ruleset == RulesetStatus::NotEnforced && spec.level == Level::Landlock {
        return Err(Reason::new("landlock", sys::landlock_abi().1));
    }
    Ok(())
}

/// The folder, where the hidden one does not lie in it; else what is in it beside the way there.
/// Landlock's rules only give, and what they give they give with everything below.
fn show_beside(folder: &Path, hidden: Option<&Path>, shown: &mut Vec<PathBuf>) {
    let Ok(real) = folder.canonicalize() else { return };
    let Some(hidden) = hidden.filter(|hidden| hidden.starts_with(&real)) else {
        shown.push(folder.to_owned());
        return;
    };
    if *hidden == real {
        return;
    }
    // A folder that cannot be listed shows nothing of itself.
    let entries = std::fs::read_dir(&real).into_iter().flatten().flatten().take(MAX_BESIDE);
    for entry in entries {
        // A link may lead to what is hidden; by its own path its target is shown or not.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            show_beside(&entry.path(), Some(hidden), shown);
        }
    }
}

/// Filters: one whose calls are refused, one whose calls do not exist, and the same two again for a
/// process that has neither a process table nor kernel objects of its own.
pub(crate) struct Filters {
    refused: BpfProgram,
    absent: BpfProgram,
    refused_beside: BpfProgram,
    absent_beside: BpfProgram,
}

/// Compiled once, in the spawner, and inherited by every fork.
pub(crate) fn filters() -> Result<&'static Filters, Reason> {
    static FILTERS: OnceLock<Result<Filters, Reason>> = OnceLock::new();
    FILTERS.get_or_init(compile).as_ref().map_err(Clone::clone)
}

/// Calls that reach beyond a process: mounts, namespaces, kernel code, keys, time, raw devices.
const REFUSED: [libc::c_long; 38] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Calls that every runtime can do without: it falls back when they are not there. The flags of
/// `clone3` cannot be looked into; io_uring goes around these filters.
const ABSENT: [libc::c_long; 4] = [
    libc::SYS_clone3,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
];

/// Kernel objects that processes of one user share by number, and that outlive them: without a namespace
/// of its own (`ipc_namespaces(7)`) an app would find those of others. What is named in `/dev/shm` works.
const SHARED_OBJECTS: [libc::c_long; 13] = [
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_msgctl,
    libc::SYS_msgget,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_semctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmget,
];

/// Calls that change another process, and which argument says whose: 0 is the caller itself.
const OF_OTHERS: [(libc::c_long, u8); 7] = [
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_migrate_pages, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
];
/// `which` of `ioprio_set`: all processes of a user.
const IOPRIO_WHO_USER: u64 = 3;

/// Families of sockets that apps have: the others are refused.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// `ioctl`s that type into a terminal or its console.
const TIOCLINUX: u64 = 0x541c;

fn compile() -> Result<Filters, Reason> {
    let text = |error: &dyn std::fmt::Display| Reason::new(format!("compile seccomp: {error}"), 0);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| text(&error))?;
    // Families that are not of this machine's inside or of the internet: a virtual machine's host
    // (vsock), radio, the kernel's own services. They know no network namespaces.
    let other_family = FAMILIES.map(|family| {
        let family = u64::from(family.cast_unsigned());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    });
    let other_family: Result<Vec<_>, _> = other_family.into_iter().collect();
    let other_family = other_family.and_then(SeccompRule::new).map_err(|error| text(&error))?;
    let condition = |at, length, how, value| {
        SeccompCondition::new(at, length, how, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(|error| text(&error))
    };
    let user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    let short = SeccompCmpArgLen::Dword;
    let new_user = condition(0, short.clone(), SeccompCmpOp::MaskedEq(user), user)?;
    let type_in = condition(1, short.clone(), SeccompCmpOp::Eq, libc::TIOCSTI)?;
    let console = condition(1, short.clone(), SeccompCmpOp::Eq, TIOCLINUX)?;
    let mut refused: std::collections::BTreeMap<_, _> =
        REFUSED.into_iter().chain(ports()).map(|number| (number, Vec::new())).collect();
    refused.insert(libc::SYS_socket, vec![other_family]);
    refused.insert(libc::SYS_clone, vec![new_user]);
    refused.insert(libc::SYS_ioctl, vec![type_in, console]);
    let absent = ABSENT.into_iter().map(|number| (number, Vec::new())).collect();
    // A filter cannot know which processes are the app's: it changes nobody but the caller.
    let mut beside = std::collections::BTreeMap::new();
    for (number, at) in OF_OTHERS {
        beside.insert(number, vec![condition(at, short.clone(), SeccompCmpOp::Ne, 0)?]);
    }
    let mut all_of_a_user = |number, which| {
        let rule = condition(0, short.clone(), SeccompCmpOp::Eq, which)?;
        beside.entry(number).or_default().push(rule);
        Ok::<_, Reason>(())
    };
    all_of_a_user(libc::SYS_setpriority, u64::from(libc::PRIO_USER))?;
    all_of_a_user(libc::SYS_ioprio_set, IOPRIO_WHO_USER)?;
    let others = SeccompCondition::new(0, short, SeccompCmpOp::Ne, 0);
    let changed = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);
    let limits = others
        .and_then(|others| SeccompRule::new(vec![others, changed?]))
        .map_err(|error| text(&error))?;
    beside.insert(libc::SYS_prlimit64, vec![limits]);
    let shared = SHARED_OBJECTS.into_iter().map(|number| (number, Vec::new())).collect();
    let build = |rules, errno: i32| {
        let refuse = SeccompAction::Errno(errno.cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
        filter.and_then(BpfProgram::try_from).map_err(|error| text(&error))
    };
    let mut absent_filter = guard();
    absent_filter.extend(build(absent, libc::ENOSYS)?);
    Ok(Filters {
        refused: build(refused, libc::EPERM)?,
        absent: absent_filter,
        refused_beside: build(beside, libc::EPERM)?,
        absent_beside: build(shared, libc::ENOSYS)?,
    })
}

#[cfg(target_arch = "x86_64")]
fn ports() -> Vec<libc::c_long> {
    vec![libc::SYS_iopl, libc::SYS_ioperm]
}

#[cfg(not(target_arch = "x86_64"))]
fn ports() -> Vec<libc::c_long> {
    Vec::new()
}

/// The x32 calls of an x86-64 kernel have other numbers, which the rules would let through.
#[cfg(target_arch = "x86_64")]
fn guard() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_GE: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let refuse = 0x0005_0000 | libc::ENOSYS.cast_unsigned();
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_GE, jt: 0, jf: 1, k: 0x4000_0000 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: refuse },
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn guard() -> BpfProgram {
    Vec::new()
}

/// Takes the calls away from this process and all its children.
pub(crate) fn seccomp(level: Level) -> Result<(), Reason> {
    let filters = filters()?;
    let everywhere = [&filters.absent, &filters.refused];
    let beside = [&filters.absent_beside, &filters.refused_beside];
    let beside = if level.has_own_root() { &[][..] } else { &beside[..] };
    for &program in everywhere.iter().chain(beside) {
        seccompiler::apply_filter(program).map_err(|error| {
            Reason::new(format!("seccomp: {error}"), sys::errno(&std::io::Error::last_os_error()))
        })?;
    }
    Ok(())
}

/// Descriptors, core dumps and, where no cgroup counts them, processes.
pub(crate) fn limits(spec: &Spec, cgroup_counts: bool) -> Result<(), Reason> {
    let set = |resource, name: &str, most: u64| {
        // Raising a hard limit takes a capability that even root may lack.
        let hard = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        crate::root::at(name, || {
            setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })
        })
    };
    if let Some(files) = spec.limits.open_files {
        set(Resource::Nofile, "RLIMIT_NOFILE", files)?;
    }
    if let (Level::User, false, Some(count)) = (spec.level, cgroup_counts, spec.limits.processes) {
        // The body counts too.
        set(Resource::Nproc, "RLIMIT_NPROC", count.saturating_add(1))?;
    }
    set(Resource::Core, "RLIMIT_CORE", 0)
}

/// Where the whole machine runs out of memory, apps and builds end before the platform does. Raising
/// it takes no privilege; where `/proc` is not there the cgroup is enough.
pub(crate) fn be_killed_first() {
    std::fs::write("/proc/self/oom_score_adj", "500").ok();
}

/// Where a kernel shows the highest capability that it knows.
const LAST_CAPABILITY: &str = "/proc/sys/kernel/cap_last_cap";

/// What a later exec could give back goes first; the rest in [`drop_capabilities`].
pub(crate) fn drop_bounding_set() -> Result<(), Reason> {
    let last = std::fs::read_to_string(Path::new(LAST_CAPABILITY)).unwrap_or_default();
    let last: u32 = last.trim().parse().unwrap_or(40);
    for capability in 0..=last {
        match sys::drop_bounding(capability) {
            Ok(()) => {}
            // Without the power to do so there is nothing that no-new-privileges lets an exec give.
            Err(error) if sys::errno(&error) == libc::EPERM => break,
            Err(error) => return Err(Reason::io("drop the bounding set", &error)),
        }
    }
    Ok(())
}

/// Every capability gone, for good with no-new-privileges.
pub(crate) fn drop_capabilities() -> Result<(), Reason> {
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    crate::root::at("drop capabilities", || rustix::thread::set_capabilities(None, none))
}
