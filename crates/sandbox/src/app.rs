//! Inside the sandbox: what a body holds, and the start of the app below it.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fchown, fstat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::termios::isatty;

use crate::cgroup::{Inside, Memory, ProcessCount};
use crate::error::ExecError;
use crate::level::{Level, Reason};
use crate::reap;
use crate::root::at;
use crate::rules;
use crate::spec::Spec;
use crate::sys::{self, Fork};

/// What a body has in hand once its sandbox is entered.
#[derive(Debug)]
pub struct Entered {
    /// The bytes given to the launch.
    pub payload: Vec<u8>,
    /// The descriptors given to the launch, in order.
    pub fds: Vec<OwnedFd>,
    /// The sandbox.
    pub spec: Spec,
    /// The folder that it does not show, but for mounts in it.
    pub(crate) hidden: Option<PathBuf>,
    /// The uid that the app gets, if it gets one of its own.
    pub(crate) app_uid: Option<u32>,
    /// The nice value of the app.
    pub(crate) nice: i32,
    /// Its group.
    pub(crate) inside: Inside,
    /// Whether a cgroup counts processes here.
    pub(crate) cgroup_counts: bool,
}

impl Entered {
    /// Starts the app with every privilege gone: a session of its own, the stdio given, nothing
    /// else open, signals as a shell gives them. A terminal at its stdin is the session's.
    ///
    /// A program without a slash is searched in the `PATH` of `env`. Returns once the program
    /// runs.
    ///
    /// # Errors
    ///
    /// The step that failed in the child, with its error number: `exec bin/web`, `chdir /app`.
    pub fn exec(
        &self,
        argv: &[Vec<u8>],
        env: &[Vec<u8>],
        cwd: &Path,
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Pid, ExecError> {
        let bad = |what: &str, errno| ExecError { errno, what: what.to_owned() };
        let program = argv.first().ok_or_else(|| bad("exec", libc::EINVAL))?;
        let shown = format!("exec {}", String::from_utf8_lossy(program));
        let strings = |list: &[Vec<u8>]| -> Result<Vec<CString>, ExecError> {
            let made = list.iter().map(|text| CString::new(text.as_slice()));
            made.collect::<Result<_, _>>().map_err(|_| bad(&shown, libc::EINVAL))
        };
        let mut image = Image {
            programs: strings(&candidates(program, env))?,
            argv: strings(argv)?,
            env: strings(env)?,
            shown: &shown,
        };
        let hides_tmp = self.hidden.as_deref().is_some_and(|hidden| hidden.starts_with("/tmp"));
        if self.spec.level == Level::Landlock
            && hides_tmp
            && !env.iter().any(|pair| pair.starts_with(b"TMPDIR="))
        {
            // Nothing can be made in `/tmp` itself then.
            image.env.push(c"TMPDIR=/dev/shm".to_owned());
        }
        let (told, tell) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| bad("pipe", error.raw_os_error()))?;
        let parent = rustix::process::getpid();
        let child = match self.fork() {
            Ok((Fork::Parent((child, _)), _)) => child,
            Ok((Fork::Child, is_born_inside)) => {
                let reason = self.become_app(&image, cwd, stdio, (parent, is_born_inside));
                let text = format!("{}\n{}", reason.errno, reason.stage);
                File::from(tell).write_all(text.as_bytes()).ok();
                sys::exit_now(127)
            }
            Err(error) => return Err(bad("fork", sys::errno(&error))),
        };
        drop(tell);
        let mut text = String::new();
        let read = File::from(told).read_to_string(&mut text);
        let pid = Pid::from_raw(child).ok_or_else(|| bad("fork", libc::EINVAL))?;
        match (read, text.split_once('\n')) {
            (Ok(0), _) => Ok(pid),
            (_, Some((errno, what))) => {
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).ok();
                Err(bad(what, errno.parse().unwrap_or(0)))
            }
            _ => Err(bad(&shown, libc::EIO)),
        }
    }

    /// Forks; says too whether the child is in its v2 cgroup already. Birth there saves a move under
    /// the kernel's big lock, and is refused to a user who does not own the tree.
    fn fork(&self) -> std::io::Result<(Fork<(i32, OwnedFd)>, bool)> {
        if let Some(place) = self.inside.birthplace()
            && let Ok(side) = sys::clone_process(0, Some(place))
        {
            return Ok((side, true));
        }
        Ok((sys::clone_process(0, None)?, false))
    }

    /// The child's side; returns only what went wrong.
    fn become_app(
        &self,
        image: &Image<'_>,
        cwd: &Path,
        stdio: [BorrowedFd<'_>; 3],
        birth: (Pid, bool),
    ) -> Reason {
        match self.prepare(cwd, stdio, birth) {
            Ok(()) => image.exec(),
            Err(reason) => reason,
        }
    }

    fn prepare(
        &self,
        cwd: &Path,
        stdio: [BorrowedFd<'_>; 3],
        (parent, is_born_inside): (Pid, bool),
    ) -> Result<(), Reason> {
        let level = self.spec.level;
        let io = |what: &'static str| move |error: std::io::Error| Reason::io(what, &error);
        self.inside.enter(is_born_inside)?;
        if level.has_own_root() {
            // An old kernel has no cgroup namespaces; nothing here depends on them.
            sys::unshare_cgroup().ok();
        }
        at("setsid", rustix::process::setsid)?;
        for (number, fd) in (0..).zip(stdio) {
            sys::dup_to(fd, number).map_err(io("dup2"))?;
        }
        if isatty(stdio[0]) {
            at("take the terminal", || rustix::process::ioctl_tiocsctty(stdio[0]))?;
        }
        sys::cloexec_all().map_err(io("close_range"))?;
        rules::limits(&self.spec, self.cgroup_counts)?;
        rules::be_killed_first();
        reap::go_as_before(self.nice);
        let root = rustix::process::geteuid().is_root();
        if level != Level::None && (root || level.has_own_root()) {
            rules::drop_bounding_set()?;
        }
        if let (Level::Strict, Some(uid)) = (level, self.app_uid) {
            become_uid(uid, stdio)?;
        }
        if level != Level::None {
            rules::drop_capabilities()?;
            at("no-new-privileges", || rustix::thread::set_no_new_privs(true))?;
        }
        // After the uid has changed, which resets it. The shim's end takes the app along.
        at("set the death signal", || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        })?;
        if rustix::process::getppid() != Some(parent) {
            return Err(Reason::new("the shim is gone", libc::ESRCH));
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(self.spec.umask));
        at(&format!("chdir {}", cwd.display()), || rustix::process::chdir(cwd))?;
        if level != Level::None {
            rules::landlock(&self.spec, self.hidden.as_deref())?;
            rules::seccomp(level)?;
        }
        sys::reset_signals();
        Ok(())
    }

    /// How many processes of the sandbox were killed for want of memory; 0 without a cgroup.
    pub fn oom_kills(&self) -> u64 {
        self.inside.memory.as_ref().map_or(0, Memory::oom_kills)
    }

    /// The count of its processes; nothing without a cgroup that limits it.
    pub fn processes(&self) -> Option<&ProcessCount> {
        self.inside.processes.as_ref()
    }

    /// The memory of the sandbox; nothing without a cgroup that limits it.
    pub fn memory(&self) -> Option<&Memory> {
        self.inside.memory.as_ref()
    }
}

/// From root to the app's uid. Its pipes and its terminal become its own, so that `/dev/stdout`
/// and the terminal's own name can be opened.
fn become_uid(uid: u32, stdio: [BorrowedFd<'_>; 3]) -> Result<(), Reason> {
    let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    for fd in stdio {
        let kind = fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kind == Ok(FileType::Fifo) || isatty(fd) {
            at("fchown a pipe or terminal", || fchown(fd, Some(owner), Some(group)))?;
        }
    }
    at("setgroups", || rustix::thread::set_thread_groups(&[]))?;
    at("setresgid", || rustix::thread::set_thread_res_gid(group, group, group))?;
    at("setresuid", || rustix::thread::set_thread_res_uid(owner, owner, owner))
}

/// A program in the form that execve(2) takes.
struct Image<'a> {
    programs: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    shown: &'a str,
}

impl Image<'_> {
    /// As execvp(3): the first that is there; one that may not be executed is remembered.
    fn exec(&self) -> Reason {
        let mut errno = libc::ENOENT;
        for program in &self.programs {
            match sys::errno(&sys::execve(program, &self.argv, &self.env)) {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => errno = libc::EACCES,
                other => return Reason::new(self.shown, other),
            }
        }
        Reason::new(self.shown, errno)
    }
}

fn candidates(program: &[u8], env: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = env.iter().find_map(|pair| pair.strip_prefix(b"PATH="));
    path.unwrap_or(b"/usr/bin:/bin")
        .split(|&byte| byte == b':')
        .map(|folder| {
            let folder = if folder.is_empty() { b"." } else { folder };
            Path::new(std::ffi::OsStr::from_bytes(folder))
                .join(std::ffi::OsStr::from_bytes(program))
                .into_os_string()
                .as_bytes()
                .to_vec()
        })
        .collect()
}
