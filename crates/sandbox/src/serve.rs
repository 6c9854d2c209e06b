//! The spawner's own side: a single-threaded loop that forks on request and collects what ended.
//!
//! It never waits for a launch: the child answers for itself on the request's own socket. It
//! lives until its handle is gone and its last child has ended.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process};

use crate::cgroup::{Group, Trees};
use crate::enter::{Birth, live};
use crate::init::EXEC_BODY;
use crate::level::{Level, Reason};
use crate::reap::{self, SignalFd};
use crate::spawner::Body;
use crate::spec::Spec;
use crate::sys::{self, Fork};
use crate::wire::{self, Answer, Request};
use crate::{init, rules};

/// Between two tries to remove a cgroup whose processes are still dying.
const RETRY: Duration = Duration::from_millis(10);
/// After the end of everything, for such cgroups.
const LAST_TRIES: Duration = Duration::from_secs(1);

/// The life of the helper process: serves launches on the socket at its stdin until the handle
/// is dropped and its children are gone.
pub fn spawner_main(bodies: &[(&'static str, Body)]) -> ! {
    let code = match Server::start(bodies) {
        Ok(server) => server.run(),
        Err(_) => 1,
    };
    sys::exit_now(code)
}

struct Server<'a> {
    bodies: &'a [(&'static str, Body)],
    /// Nothing once the handle is gone.
    socket: Option<OwnedFd>,
    signals: SignalFd,
    trees: Trees,
    children: BTreeMap<i32, Child>,
    /// Cgroups of children that have ended.
    leaving: Vec<Group>,
}

struct Child {
    group: Group,
    level: Level,
}

impl<'a> Server<'a> {
    fn start(bodies: &'a [(&'static str, Body)]) -> std::io::Result<Self> {
        sys::block_all_signals();
        // What a sandbox must see gets its mode by name.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let given = sys::inherited(0)?;
        let socket = rustix::io::fcntl_dupfd_cloexec(&given, 3)?;
        let null = fs::File::open("/dev/null")?;
        sys::dup_to(null.as_fd(), 0)?;
        // The number 0 is the null device's now, for as long as this process lives.
        let _zero = given.into_raw_fd();
        rules::filters().ok();
        Ok(Self {
            bodies,
            socket: Some(socket),
            signals: SignalFd::new(&[libc::SIGCHLD])?,
            trees: Trees::detect(),
            children: BTreeMap::new(),
            leaving: Vec::new(),
        })
    }

    fn run(mut self) -> i32 {
        let mut last_tries = None;
        loop {
            if self.socket.is_none() && self.children.is_empty() {
                let until = *last_tries.get_or_insert_with(|| Instant::now() + LAST_TRIES);
                if self.leaving.is_empty() || Instant::now() >= until {
                    break;
                }
            }
            let readable = self.wait();
            self.collect();
            if readable {
                self.hear();
            }
        }
        self.trees.remove();
        0
    }

    /// Sleeps until something happens; says whether the socket has something.
    fn wait(&self) -> bool {
        let timeout = (!self.leaving.is_empty()).then_some(RETRY);
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.socket.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        poll(&mut fds, timeout.as_ref()).is_ok()
            && fds.get(1).is_some_and(|socket| !socket.revents().is_empty())
    }

    /// Ends what a dead child left and removes its cgroup.
    fn collect(&mut self) {
        self.signals.drain();
        for (pid, _) in reap::reap_all() {
            if let Some(child) = self.children.remove(&pid.as_raw_nonzero().get()) {
                // Behind a pid namespace the kernel has killed them already.
                if !child.level.has_own_root() {
                    child.group.kill();
                }
                self.leaving.push(child.group);
            }
        }
        let strangers = reap::children_of(rustix::process::getpid());
        for pid in strangers {
            if !self.children.contains_key(&pid.as_raw_nonzero().get()) {
                // Its body has died and it was handed up: nobody looks after it any more.
                kill_process(pid, Signal::KILL).ok();
            }
        }
        self.leaving.retain(|group| !group.remove());
    }

    fn hear(&mut self) {
        let Some(socket) = &self.socket else { return };
        match wire::receive(socket.as_fd()) {
            Ok(Some((bytes, fds))) => self.serve(&bytes, fds),
            Ok(None) => self.hang_up(),
            // A packet that cannot be taken in; the asker sees its answer socket close.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {}
            Err(_) => self.hang_up(),
        }
    }

    /// The handle is gone. Whoever waits for the end of its output does not wait for that of the
    /// children too.
    fn hang_up(&mut self) {
        self.socket = None;
        if let Ok(null) = fs::File::options().write(true).open("/dev/null") {
            sys::dup_to(null.as_fd(), 2).ok();
        }
    }

    fn serve(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        match serde_json::from_slice(bytes) {
            Ok(Request::Cgroups) => {
                let Some(answer) = fds.next() else { return };
                wire::send(answer.as_fd(), &Answer::Cgroups(self.trees.facts()), &[]).ok();
            }
            Ok(Request::Launch { body, spec_bytes }) => {
                let (Some(memory), Some(answer)) = (fds.next(), fds.next()) else { return };
                let told = answer.try_clone();
                let launched = self.launch(&body, spec_bytes, memory, answer, fds.collect());
                if let (Err(refusal), Ok(answer)) = (launched, told) {
                    wire::send(answer.as_fd(), &refusal, &[]).ok();
                }
            }
            Err(_) => {}
        }
    }

    fn launch(
        &mut self,
        body: &str,
        spec_bytes: usize,
        memory: OwnedFd,
        answer: OwnedFd,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Answer> {
        let body = match body {
            EXEC_BODY => init::body,
            other => {
                let known = self.bodies.iter().find(|(name, _)| *name == other);
                known
                    .map(|(_, body)| *body)
                    .ok_or_else(|| Answer::Bad(format!("no body {other}")))?
            }
        };
        let spec = wire::read_at(memory.as_fd(), 0, Some(spec_bytes))
            .map_err(|error| Answer::Bad(error.to_string()))?;
        let spec: Spec =
            serde_json::from_slice(&spec).map_err(|error| Answer::Bad(error.to_string()))?;
        let level = spec.level;
        let app_uid = spec.app_uid();
        let group = self.trees.make(level, &spec.limits).map_err(Answer::Failed)?;
        let io = |what: &'static str| {
            move |error: rustix::io::Errno| Answer::Failed(Reason::new(what, error.raw_os_error()))
        };
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (go, say_go) = rustix::pipe::pipe_with(flags).map_err(io("make a pipe"))?;
        let (pid, pidfd, joined) = match fork(level, &group) {
            Ok(Forked::Parent { pid, pidfd, joined }) => (pid, pidfd, joined),
            Ok(Forked::Child) => {
                let cgroup_counts = self.trees.limits_processes();
                // Another copy of this end would keep the child waiting for ever.
                drop(say_go);
                live(Birth {
                    body,
                    spec,
                    app_uid,
                    memory,
                    spec_bytes,
                    fds,
                    answer,
                    go,
                    group,
                    cgroup_counts,
                })
            }
            Err(error) => {
                group.remove();
                return Err(Answer::Failed(Reason::new(clone_name(level), sys::errno(&error))));
            }
        };
        let ready = if joined { Ok(()) } else { group.take_in(pid) };
        let ready = ready.and_then(|()| map_ids(level, pid, app_uid));
        self.children.insert(pid, Child { group: group.without_inside(), level });
        let ready = ready.and_then(|()| {
            wire::send(answer.as_fd(), &Answer::Launched { pid }, &[pidfd.as_fd()])
                .map_err(|error| Reason::new("answer", sys::errno(&error)))
        });
        match ready {
            Ok(()) => {
                rustix::io::write(&say_go, b"g").ok();
                Ok(())
            }
            Err(reason) => {
                rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).ok();
                Err(Answer::Failed(reason))
            }
        }
    }
}

enum Forked {
    Parent {
        pid: i32,
        pidfd: OwnedFd,
        /// Whether it was born in its v2 cgroup.
        joined: bool,
    },
    Child,
}

fn fork(level: Level, group: &Group) -> std::io::Result<Forked> {
    let own = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let namespaces = match level {
        Level::Strict => own,
        Level::User => own | libc::CLONE_NEWUSER,
        Level::Landlock | Level::None => 0,
    };
    let done = |side, joined| match side {
        Fork::Parent((pid, pidfd)) => Forked::Parent { pid, pidfd, joined },
        Fork::Child => Forked::Child,
    };
    match sys::clone_process(namespaces, group.birthplace()) {
        Ok(side) => Ok(done(side, true)),
        // A kernel or tree that cannot give birth there; the child is moved instead.
        Err(_) if group.birthplace().is_some() => {
            Ok(done(sys::clone_process(namespaces, None)?, false))
        }
        Err(error) => Err(error),
    }
}

fn clone_name(level: Level) -> &'static str {
    match level {
        Level::Strict => "clone with mount, pid, ipc and uts namespaces",
        Level::User => "clone with a user namespace",
        Level::Landlock | Level::None => "fork",
    }
}

/// A user namespace with one uid, never the host's root: the app's, or the caller's own.
fn map_ids(level: Level, pid: i32, app_uid: Option<u32>) -> Result<(), Reason> {
    if level != Level::User {
        return Ok(());
    }
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (uid, gid) = app_uid.map_or(own, |uid| (uid, uid));
    let texts = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{uid} {uid} 1")),
        ("gid_map", format!("{gid} {gid} 1")),
    ];
    for (name, text) in texts {
        let path = format!("/proc/{pid}/{name}");
        fs::write(&path, text)
            .map_err(|error| Reason::new(format!("write {name}"), sys::errno(&error)))?;
    }
    Ok(())
}
