//! The system calls that neither std nor rustix wraps. Every unsafe line of process creation is
//! here or in [`crate::reap`]; callers see plain results.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `struct sched_attr` of sched_setattr(2), its first version.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// Which side of a fork this is.
pub(crate) enum Fork<T> {
    Parent(T),
    Child,
}

/// Forks with namespaces; the parent gets pid and pidfd.
///
/// The caller is single-threaded: both sides go on with a whole address space.
pub(crate) fn clone_process(
    namespaces: i32,
    into_cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Fork<(i32, OwnedFd)>> {
    let mut pidfd: libc::c_int = -1;
    let flags = i64::from(namespaces | libc::CLONE_PIDFD).cast_unsigned() & 0xffff_ffff;
    let mut args = CloneArgs {
        flags,
        pidfd: ptr::from_mut(&mut pidfd).addr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(fd) = into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    ptr::from_mut(&mut pidfd).expose_provenance();
    #[expect(unsafe_code, reason = "clone3 has no safe wrapper")]
    // SAFETY: no stack is given and no memory is shared, so that this is a fork; the process
    // has one thread; `args` and `pidfd` live across the call.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of::<CloneArgs>()) };
    let pid = i32::try_from(pid).unwrap_or(-1);
    // A container may refuse the call whatever it asks for, since filters cannot look into it.
    let is_refused = pid < 0
        && matches!(errno(&io::Error::last_os_error()), libc::ENOSYS | libc::EPERM)
        && into_cgroup.is_none();
    if !is_refused {
        return finish_fork(pid, &|| pidfd);
    }
    let flags = libc::c_long::from(namespaces | libc::CLONE_PIDFD | libc::SIGCHLD);
    #[expect(unsafe_code, reason = "a clone without a stack has no safe wrapper")]
    // SAFETY: as above; with `CLONE_PIDFD` the third argument is where the pidfd goes.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    finish_fork(i32::try_from(pid).unwrap_or(-1), &|| pidfd)
}

fn finish_fork(pid: i32, pidfd: &dyn Fn() -> i32) -> io::Result<Fork<(i32, OwnedFd)>> {
    match pid {
        0 => Ok(Fork::Child),
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => {
            #[expect(unsafe_code, reason = "a descriptor made by the kernel")]
            // SAFETY: the kernel has just made it for this process.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd()) };
            Ok(Fork::Parent((pid, pidfd)))
        }
    }
}

/// Sends a signal to every other process that this one, pid 1 of its namespace, can see. In one
/// step: what is being forked meanwhile gets it too.
pub(crate) fn signal_all(signal: i32) {
    #[expect(unsafe_code, reason = "rustix has no kill(-1)")]
    // SAFETY: it takes no pointers; nobody left is fine.
    unsafe {
        libc::kill(-1, signal)
    };
}

/// Ends the process at once, without the parent's exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    #[expect(unsafe_code, reason = "_exit has no safe wrapper")]
    // SAFETY: it takes any code and never returns.
    unsafe {
        libc::_exit(code)
    }
}

/// Leaves the cgroup namespace of the parent.
pub(crate) fn unshare_cgroup() -> io::Result<()> {
    #[expect(unsafe_code, reason = "unshare has no safe wrapper")]
    // SAFETY: it takes plain flags.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })
}

/// Sets attributes of the mount (or detached tree) that a descriptor names.
pub(crate) fn mount_set(fd: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    set_attributes(fd, set, 0, recursive)
}

/// Shows the owners of a detached mount's files as a user namespace maps them.
pub(crate) fn mount_idmap(fd: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(fd, MOUNT_ATTR_IDMAP, map.as_raw_fd() as u64, false)
}

fn set_attributes(fd: BorrowedFd<'_>, set: u64, userns_fd: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    #[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
    // SAFETY: the path is an empty C string, and `attr` lives across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(&attr),
            size_of::<MountAttr>(),
        )
    };
    check(i32::try_from(result).unwrap_or(-1))
}

/// Sets the time slice of the calling thread in nanoseconds (ordinary policy; before Linux 6.12 it
/// changes nothing).
pub(crate) fn set_slice(nanoseconds: u64, nice: i32) -> io::Result<()> {
    let attr = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).unwrap_or(u32::MAX),
        policy: libc::SCHED_OTHER.cast_unsigned(),
        nice,
        runtime: nanoseconds,
        ..SchedAttr::default()
    };
    #[expect(unsafe_code, reason = "sched_setattr has no safe wrapper")]
    // SAFETY: `attr` lives across the call, and says its own size.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, ptr::from_ref(&attr), 0) };
    check(i32::try_from(result).unwrap_or(-1))
}

/// The time slice of the calling thread in nanoseconds.
#[cfg(test)]
pub(crate) fn slice_of_this_thread() -> io::Result<u64> {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>();
    #[expect(unsafe_code, reason = "sched_getattr has no safe wrapper")]
    // SAFETY: the kernel writes at most as many bytes as `attr` has.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, ptr::from_mut(&mut attr), size, 0) };
    check(i32::try_from(result).unwrap_or(-1))?;
    Ok(attr.runtime)
}

/// Replaces this process; returns only what went wrong.
pub(crate) fn execve(program: &CString, argv: &[CString], envp: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    #[expect(unsafe_code, reason = "execve has no safe wrapper")]
    // SAFETY: both lists end with a null pointer and point to strings that live.
    unsafe {
        libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
    }
    io::Error::last_os_error()
}

/// Blocks every signal.
pub(crate) fn block_all_signals() {
    set_mask(true);
}

/// Gives every signal its default meaning back and unblocks all.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        #[expect(unsafe_code, reason = "signal has no safe wrapper")]
        // SAFETY: the default disposition runs no code of ours. The C library refuses its own
        // two, and KILL and STOP, which have nothing to reset.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    set_mask(false);
}

fn set_mask(full: bool) {
    #[expect(unsafe_code, reason = "sigprocmask has no safe wrapper")]
    // SAFETY: the set is zeroed, then filled or emptied by the C library, before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        if full {
            libc::sigfillset(&raw mut set);
        } else {
            libc::sigemptyset(&raw mut set);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Marks every descriptor from 3 on close-on-exec.
pub(crate) fn cloexec_all() -> io::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from 3 on that is not in the list.
///
/// For the child of a fork that will never touch the values that own them.
pub(crate) fn close_all_but(keep: &[i32]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    keep.sort_unstable();
    let mut next = 3;
    for fd in keep {
        if fd > next {
            close_range(next, fd - 1, 0)?;
        }
        next = next.max(fd + 1);
    }
    close_range(next, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "close_range has no safe wrapper")]
    // SAFETY: callers close only what nobody will use again, or merely set a flag.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    match check(i32::try_from(result).unwrap_or(-1)) {
        // An old kernel, or a container that refuses what it does not know.
        Err(error) if matches!(errno(&error), libc::ENOSYS | libc::EPERM) => {
            close_each(first, last, flags)
        }
        done => done,
    }
}

/// As [`close_range`], one by one.
fn close_each(first: u32, last: u32, flags: u32) -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| u32::try_from(*fd).is_ok_and(|fd| (first..=last).contains(&fd)))
        .collect();
    for fd in open {
        #[expect(unsafe_code, reason = "descriptors by number have no owner")]
        // SAFETY: as in `close_range`. That of the folder itself is closed already.
        unsafe {
            if flags == 0 {
                libc::close(fd);
            } else {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    Ok(())
}

/// Puts a descriptor at a fixed number, without close-on-exec.
pub(crate) fn dup_to(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "dup2 onto a number nobody owns as a value")]
    // SAFETY: used for 0, 1 and 2 in a child about to exec, and for 0 at the spawner's start:
    // whatever was there is not used again.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    check(if result < 0 { -1 } else { 0 })
}

/// Takes a descriptor that was inherited by number.
pub(crate) fn inherited(number: i32) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
    // SAFETY: it is probed first, and the one caller takes it once, at its start.
    unsafe {
        if libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Takes one capability out of what an exec can give.
pub(crate) fn drop_bounding(capability: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix knows the capabilities by name only")]
    // SAFETY: it takes a plain number.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) })
}

/// The Landlock version of the kernel; 0 if it has none or it is off.
pub(crate) fn landlock_abi() -> (i32, i32) {
    #[expect(unsafe_code, reason = "landlock's version query has no safe wrapper")]
    // SAFETY: with this flag the kernel takes a null pointer and the size 0.
    let abi = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0_usize, 1_u32)
    };
    match i32::try_from(abi) {
        Ok(abi) if abi > 0 => (abi, 0),
        _ => (0, errno(&io::Error::last_os_error())),
    }
}

/// The number in an error.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
