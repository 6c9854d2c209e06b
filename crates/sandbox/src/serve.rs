//! The spawner's own side: a single-threaded loop that forks on request and collects what ended.
//!
//! It never waits for a launch: the child answers for itself on the request's own socket. It
//! lives until its handle is gone and its last child has ended.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process};

use crate::cgroup::{Group, Inside, Trees};
use crate::enter::{Birth, live};
use crate::idmap::IdMaps;
use crate::init::EXEC_BODY;
use crate::level::{Level, Reason};
use crate::network::host::Networks;
use crate::network::names;
use crate::network::relay::Relay;
use crate::network::{Network, visit};
use crate::reap::{self, SignalFd};
use crate::spawner::Body;
use crate::spec::{Access, Spec, uid_of};
use crate::sys::{self, Fork};
use crate::wire::{self, Answer, Request};
use crate::{ids, init, rules};

/// Between two tries to remove a cgroup whose processes are still dying.
const RETRY: Duration = Duration::from_millis(10);
/// Between two looks at what spawners that were killed have left, while there is something of it.
const SWEEP_DELAY: Duration = Duration::from_secs(3);
/// Until a relay is forked again that has ended at once, doubled each time.
const FIRST_RELAY_DELAY: Duration = Duration::from_millis(10);
const LONGEST_RELAY_DELAY: Duration = Duration::from_millis(250);
/// A relay that has lived so long is no such one.
const RELAY_LIFE: Duration = Duration::from_secs(1);
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
    networks: Networks,
    idmaps: IdMaps,
    children: BTreeMap<i32, Child>,
    /// Relays that have ended before their sandboxes, until they are forked again. Their listeners
    /// hold clients back meanwhile.
    resting: Vec<(Instant, Relayed)>,
    /// Launches that wait for packet rules which are on their way.
    waiting: Vec<(String, Given)>,
    /// Cgroups of children that have ended.
    leaving: Vec<Group>,
    /// Whether a spawner that was killed has left something that is in use.
    has_left: bool,
    swept: Instant,
}

struct Child {
    group: Group,
    level: Level,
    /// Of a relay.
    relay: Option<Relayed>,
}

/// A relay, for as long as its sandbox is there.
struct Relayed {
    relay: Relay,
    /// Readable once the sandbox has ended.
    sandbox: OwnedFd,
    /// The groups of the app.
    inside: Inside,
    /// When it was forked, or that was tried, the last time.
    forked: Instant,
    /// Until it is forked again, where it does not live.
    delay: Duration,
}

impl Relayed {
    fn is_over(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.sandbox, PollFlags::IN)];
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }
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
            networks: Networks::default(),
            idmaps: IdMaps::default(),
            children: BTreeMap::new(),
            resting: Vec::new(),
            waiting: Vec::new(),
            leaving: Vec::new(),
            has_left: true,
            swept: Instant::now(),
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
            self.networks.mend();
            self.sweep();
            self.fork_relays();
            self.launch_waiting();
            if readable {
                self.hear();
            }
        }
        self.trees.remove();
        self.networks.take_down();
        0
    }

    /// Sleeps until something happens; says whether the socket has something.
    fn wait(&self) -> bool {
        let timeout = match (self.leaving.is_empty(), self.has_left) {
            (false, _) => Some(RETRY),
            (true, true) => Some(SWEEP_DELAY),
            (true, false) => None,
        };
        let relay = self.resting.iter().map(|(at, _)| *at).min();
        let relay = relay.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.into_iter().chain(self.networks.next_mend()).chain(relay).min();
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.socket.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        let changes = self.networks.changes();
        fds.extend(changes.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        poll(&mut fds, timeout.as_ref()).is_ok()
            && self.socket.is_some()
            && fds.get(1).is_some_and(|socket| !socket.revents().is_empty())
    }

    /// Removes what spawners that were killed have left, once the apps in it have ended. They are
    /// nobody's children here, so that nothing says when they do.
    fn sweep(&mut self) {
        if self.swept.elapsed() >= SWEEP_DELAY {
            self.swept = Instant::now();
            let (groups, networks) = (self.trees.remove_stale(), self.networks.sweep());
            self.has_left = groups || networks;
        }
    }

    /// Ends what a dead child left and removes its cgroup.
    fn collect(&mut self) {
        self.signals.drain();
        let children = &self.children;
        let ended = reap::reap_all_and(&mut |pid| {
            // Nobody has a use for a relay that stands still: its app waits for answers.
            let child = children.get(&pid.as_raw_nonzero().get());
            if child.is_some_and(|child| child.relay.is_some()) {
                kill_process(pid, Signal::CONT).ok();
            }
        });
        let loader = self.networks.loader();
        for (pid, how) in ended {
            if loader == Some(pid) {
                self.networks.loader_ended(how);
            }
            if let Some(child) = self.children.remove(&pid.as_raw_nonzero().get()) {
                if let Some(relayed) = child.relay {
                    self.rest(relayed);
                    continue;
                }
                // Behind a pid namespace the kernel has killed them already.
                if !child.level.has_own_root() {
                    child.group.kill();
                }
                self.leaving.push(child.group);
            }
        }
        let strangers = reap::children_of(rustix::process::getpid());
        for pid in strangers {
            if !self.children.contains_key(&pid.as_raw_nonzero().get()) && loader != Some(pid) {
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
            Ok(Request::Ping) => {
                let Some(answer) = fds.next() else { return };
                wire::send(answer.as_fd(), &Answer::Alive, &[]).ok();
            }
            Ok(Request::Network(choice)) => {
                let Some(answer) = fds.next() else { return };
                let reason = self.networks.choose(choice);
                wire::send(answer.as_fd(), &Answer::Network(reason), &[]).ok();
            }
            Ok(Request::Bound(budget)) => {
                let Some(answer) = fds.next() else { return };
                let answered = Answer::Bound(self.trees.bound(&budget));
                wire::send(answer.as_fd(), &answered, &[]).ok();
            }
            Ok(Request::Launch { body, spec_bytes, hidden, joins_network }) => {
                let hidden = hidden.map(|bytes| OsString::from_vec(bytes).into());
                let (Some(memory), Some(answer)) = (fds.next(), fds.next()) else { return };
                let network = if joins_network { fds.next() } else { None };
                let given =
                    Given { memory, spec_bytes, hidden, answer, network, fds: fds.collect() };
                self.launch_or_refuse(body, given);
            }
            Err(_) => {}
        }
    }

    fn launch_or_refuse(&mut self, body: String, given: Given) {
        let told = given.answer.try_clone();
        if let (Err(refusal), Ok(answer)) = (self.launch(body, given), told) {
            wire::send(answer.as_fd(), &refusal, &[]).ok();
        }
    }

    /// Launches what has waited for packet rules, once they are there or cannot be loaded.
    fn launch_waiting(&mut self) {
        if !self.networks.are_loading() {
            for (body, given) in std::mem::take(&mut self.waiting) {
                self.launch_or_refuse(body, given);
            }
        }
    }

    fn launch(&mut self, body_name: String, given: Given) -> Result<(), Answer> {
        let Given { memory, spec_bytes, hidden, answer, network, fds } = given;
        let body = match body_name.as_str() {
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
        let (app_uid, identity) = (spec.app_uid(), spec.identity.clone());
        if level == Level::User {
            ids::check_user_namespace(app_uid).map_err(Answer::Failed)?;
        }
        let services = match &spec.network {
            Network::Own { services } if level == Level::Strict && self.networks.are_own() => {
                Some(services.clone())
            }
            _ => None,
        };
        if services.is_some() {
            // Whatever is known of them has just come.
            self.networks.mend();
            if self.networks.are_loading() {
                let given = Given { memory, spec_bytes, hidden, answer, network, fds };
                self.waiting.push((body_name, given));
                return Ok(());
            }
        }
        let has_layers = spec.mounts.iter().any(|mount| mount.access == Access::Private);
        let idmap = match (level, app_uid) {
            (Level::Strict, Some(uid)) if has_layers => self.idmaps.of(uid),
            _ => None,
        };
        let resolv_conf = (services.is_some() || network.is_some()).then(names::resolv_conf);
        let group = self.trees.make(level, &spec.limits).map_err(Answer::Failed)?;
        let io = |what: &'static str| {
            move |error: rustix::io::Errno| Answer::Failed(Reason::new(what, error.raw_os_error()))
        };
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (go, say_go) = rustix::pipe::pipe_with(flags).map_err(io("make a pipe"))?;
        let (pid, pidfd, joined) = match fork(&spec, services.is_some(), &group) {
            Ok(Forked::Parent { pid, pidfd, joined }) => (pid, pidfd, joined),
            Ok(Forked::Child) => {
                let cgroup_counts = self.trees.limits_processes();
                // Another copy of this end would keep the child waiting for ever.
                drop(say_go);
                live(Birth {
                    body,
                    spec,
                    hidden,
                    app_uid,
                    memory,
                    spec_bytes,
                    fds,
                    network,
                    idmap,
                    resolv_conf,
                    answer,
                    go,
                    group,
                    cgroup_counts,
                })
            }
            Err(error) => {
                group.remove();
                return Err(Answer::Failed(Reason::io(clone_name(level), &error)));
            }
        };
        let ready = if joined { Ok(()) } else { group.take_in(pid) };
        let ready = ready.and_then(|()| map_ids(level, pid, app_uid, &identity));
        let (group, inside) = group.apart();
        self.children.insert(pid, Child { group, level, relay: None });
        let ready = ready.and_then(|()| match &services {
            Some(services) => self.connect((pid, &pidfd), services, inside),
            None => Ok(()),
        });
        let ready = ready.and_then(|()| {
            wire::send(answer.as_fd(), &Answer::Launched { pid }, &[pidfd.as_fd()])
                .map_err(|error| Reason::io("answer", &error))
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

/// What comes with a launch.
struct Given {
    /// The spec, this many bytes, and the payload.
    memory: OwnedFd,
    spec_bytes: usize,
    /// The folder that no sandbox shows.
    hidden: Option<PathBuf>,
    answer: OwnedFd,
    network: Option<OwnedFd>,
    fds: Vec<OwnedFd>,
}

impl Server<'_> {
    /// Leads a way out of a child's own network, and one to name servers and the services it is given.
    fn connect(
        &mut self,
        (pid, pidfd): (i32, &OwnedFd),
        services: &[SocketAddr],
        inside: Inside,
    ) -> Result<(), Reason> {
        let io = |stage: &'static str| move |error: std::io::Error| Reason::io(stage, &error);
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net"));
        let namespace = namespace.map_err(io("open a network namespace"))?;
        let link = self.networks.connect(&namespace)?;
        visit(&namespace, || Ok(link.enter())).map_err(io("enter a network namespace"))??;
        let relay = Relay::listen(&namespace, services)?;
        let sandbox = pidfd.try_clone().map_err(io("keep a pidfd"))?;
        let (forked, delay) = (Instant::now(), FIRST_RELAY_DELAY);
        let relayed = Relayed { relay, sandbox, inside, forked, delay };
        self.relay(relayed).map_err(|failed| io("fork")(failed.0))
    }

    fn relay(&mut self, mut relayed: Relayed) -> Result<(), Box<(std::io::Error, Relayed)>> {
        relayed.forked = Instant::now();
        match sys::clone_process(0, None) {
            Err(error) => Err(Box::new((error, relayed))),
            Ok(Fork::Child) => relayed.relay.live(&relayed.sandbox, &relayed.inside),
            Ok(Fork::Parent((pid, _))) => {
                // There is nothing below it.
                let (group, level) = (Group::default(), Level::Strict);
                self.children.insert(pid, Child { group, level, relay: Some(relayed) });
                Ok(())
            }
        }
    }

    /// One that has ended before its sandbox was killed, by the kernel for want of memory, say, or
    /// could not be forked. However often that happens, it is there again as soon as it can be.
    fn rest(&mut self, mut relayed: Relayed) {
        if relayed.is_over() {
            return;
        }
        let mut at = Instant::now();
        if relayed.forked.elapsed() < RELAY_LIFE {
            at += relayed.delay;
            relayed.delay = (relayed.delay * 2).min(LONGEST_RELAY_DELAY);
        } else {
            relayed.delay = FIRST_RELAY_DELAY;
        }
        self.resting.push((at, relayed));
    }

    /// Forks the relays whose time has come.
    fn fork_relays(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.resting.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, relayed) in due {
            if !relayed.is_over()
                && let Err(failed) = self.relay(relayed)
            {
                self.rest(failed.1);
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

fn fork(spec: &Spec, own_network: bool, group: &Group) -> std::io::Result<Forked> {
    let own = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let namespaces = match spec.level {
        Level::Strict if own_network => own | libc::CLONE_NEWNET,
        Level::Strict => own,
        Level::User => own | libc::CLONE_NEWUSER,
        Level::Landlock | Level::None => 0,
    };
    if spec.network == Network::Nowhere && spec.level.has_own_root() {
        // A kernel without network namespaces gives the machine's.
        let forked = clone(namespaces | libc::CLONE_NEWNET, group);
        if forked.is_ok() {
            return forked;
        }
    }
    clone(namespaces, group)
}

fn clone(namespaces: i32, group: &Group) -> std::io::Result<Forked> {
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

/// A user namespace with one uid, never the host's root: the app's, or the caller's own. To an app
/// that one is not called 0 either: programs ask whether they are root.
fn map_ids(level: Level, pid: i32, app_uid: Option<u32>, identity: &str) -> Result<(), Reason> {
    if level != Level::User {
        return Ok(());
    }
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (uid, gid) = app_uid.map_or(own, |uid| (uid, uid));
    let inside = |id: u32| if id == 0 { uid_of(identity) } else { id };
    let texts = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{} {uid} 1", inside(uid))),
        ("gid_map", format!("{} {gid} 1", inside(gid))),
    ];
    for (name, text) in texts {
        let path = format!("/proc/{pid}/{name}");
        fs::write(&path, text).map_err(|error| Reason::io(format!("write {name}"), &error))?;
    }
    Ok(())
}
