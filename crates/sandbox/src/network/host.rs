//! The machine's side: the table of packet rules, forwarding, and one pair a namespace.
//!
//! All of it is made at the first launch that wants it and removed at the spawner's end. What a
//! spawner that was killed has left is the next one's: its rules are watched while there are apps
//! behind them, and removed then.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use self::orphans::Orphans;
pub(super) use self::table::Table;
use self::table::{Forwarding, delete, is_forwarding_wanted, load};
use super::link::{ADDRESSES, Link};
use super::netlink::Netlink;
use super::nft::Watch;
use super::rules_state::{are_in_force, tables};
use super::{NetworkChoice, home};
use crate::level::Reason;
use crate::named_lock::{NamedLock, sweep_locks};
use crate::reap::Ended;

mod gate;
mod orphans;
mod reload;
mod table;
mod trial;

use self::reload::Reload;

/// Numbers that are taken by others before a free one is found.
const TRIES: usize = 64;
/// At the start, for rules of spawners that are gone to be loaded.
const START_WAIT: Duration = Duration::from_secs(5);
/// For rules that are lost right between the begin of a launch and its network, when everybody else
/// waits too.
const LAUNCH_WAIT: Duration = Duration::from_millis(200);
/// Where spawners take turns: in a folder that the machine's start clears, by files of these names
/// with the network's number.
const LOCKS: &str = "/run";
const LOCK: &str = "tolv-network-";
/// For the turn, which others have for some milliseconds.
const TURN: Duration = Duration::from_secs(3);
const RETRY_DELAY: Duration = Duration::from_millis(5);
const FORWARD_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const DEFAULT_MTU: u32 = 1500;

/// What a spawner has of the machine's network.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    id: u32,
    /// Forwarding that this spawner, or one before that is not gone yet, has switched on.
    forwarding: Forwarding,
    netlink: Netlink,
    watch: Watch,
    /// By its name others see that this spawner lives, in whatever process namespace.
    _alive: UnixDatagram,
    v6: bool,
    mtu: u32,
    /// Settings of interfaces that were changed for IPv6.
    advertisements: Vec<PathBuf>,
    orphans: Orphans,
    reload: Reload,
}

/// Takes the name that says that a spawner lives, among the abstract sockets of this network, which
/// the kernel gives back with its holder's end. A stranger who takes it keeps a table of nobody's.
fn alive(id: u32) -> io::Result<UnixDatagram> {
    let name = UnixAddress::from_abstract_name(format!("tolv-network-{id:06x}"))?;
    UnixDatagram::bind_addr(&name)
}

/// How the names of a spawner's interfaces begin.
fn interfaces(id: u32) -> String {
    format!("tv{id:06x}-")
}

impl HostNetwork {
    /// Makes the table, switches forwarding on, and sends a packet through.
    ///
    /// # Errors
    ///
    /// What this machine lacks; nothing is left then.
    pub(crate) fn set_up() -> Result<Self, Reason> {
        let io = |stage: &'static str| move |error: io::Error| Reason::io(stage, &error);
        home().map_err(io("open /proc/self/ns/net"))?;
        sweep_turns();
        let (netlink, watch) = (Netlink::open(), Watch::open());
        let (netlink, watch) = (netlink.map_err(io("netlink"))?, watch.map_err(io("nfnetlink"))?);
        let id = random() & 0x00ff_ffff;
        let alive = alive(id).map_err(io("take a name"))?;
        let has_v6 = has_default_route("/proc/net/ipv6_route", is_default_v6);
        let mut network = Self {
            id,
            forwarding: Forwarding::default(),
            netlink,
            watch,
            _alive: alive,
            v6: has_v6,
            mtu: mtu(),
            advertisements: Vec::new(),
            orphans: Orphans::default(),
            reload: Reload::default(),
        };
        let ready = network.begin();
        if ready.is_err() {
            network.orphans = Orphans::default();
            network.shut_what_nobody_guards();
            network.take_down();
        }
        ready.map(|()| network)
    }

    fn begin(&mut self) -> Result<(), Reason> {
        let others = {
            let _turn = turn();
            let tables = tables().map_err(|error| Reason::io("list packet rules", &error))?;
            let flagged = |v6: bool| {
                tables.iter().any(|it| if v6 { it.forwarding.v6 } else { it.forwarding.v4 })
            };
            self.forwarding = Forwarding {
                v4: is_off(FORWARD_V4) || flagged(false),
                v6: self.v6 && (is_off(FORWARD_V6) || flagged(true)),
            };
            // Nothing has been launched yet.
            load(&[self.table()])?.wait()?;
            self.forward()?;
            tables
        };
        // That the table was made is no news.
        self.lost();
        if !are_in_force(self.id) {
            return Err(Reason::new("packet rules were loaded and are not there", 0));
        }
        let adopted = self.orphans.adopt(&others);
        self.reload.adopt(adopted);
        self.trial()
    }

    /// Where this spawner cannot look after what others have left: it has no way out without rules.
    fn shut_what_nobody_guards(&self) {
        let unguarded = |id: &u32| *id != self.id && orphans::is_nobodys(*id) && !are_in_force(*id);
        for id in orphans::ids_in_use().into_iter().flatten().filter(unguarded) {
            say(&match gate::shut(&self.netlink, id) {
                Ok(()) => "apps of a spawner that is gone are cut off from every network: their \
                           packet rules are lost"
                    .to_owned(),
                Err(reason) => format!("apps are without packet rules: {reason}"),
            });
        }
    }

    /// Readable when something of the machine's tables has changed, or nft has printed something.
    pub(crate) fn changes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.watch.fd()).chain(self.reload.output())
    }

    /// The tables that this spawner looks after: its own, and those of spawners that are gone.
    fn watched(&self) -> impl Iterator<Item = Table> {
        std::iter::once(self.table()).chain(self.orphans.tables())
    }

    /// Of which of them something was changed, since this was asked before.
    fn lost(&mut self) -> Vec<Table> {
        let watched: Vec<_> = self.watched().collect();
        let names: Vec<_> = watched.iter().map(|table| table.name()).collect();
        let (lost, heard) = self.watch.lost(&names);
        if let Err(error) = heard {
            // All of them are loaded anew, whatever has been missed.
            self.failed(Reason::io("hear what is changed of packet rules", &error));
            match Watch::open() {
                Ok(watch) => self.watch = watch,
                // The old one may work again.
                Err(error) => self.failed(Reason::io("hear what is changed", &error)),
            }
        }
        watched.into_iter().zip(lost).filter_map(|(table, lost)| lost.then_some(table)).collect()
    }

    /// Takes on what spawners that are gone have left, and removes it once no app is in it any more.
    /// Whether there are other spawners' networks, which may become this one's.
    pub(crate) fn sweep(&mut self) -> bool {
        let mut others = match orphans::ids_in_use() {
            Ok(others) => others,
            Err(error) => {
                self.orphans.complain(&format!("which networks are in use is not known: {error}"));
                return true;
            }
        };
        self.orphans.remove_unused(&others);
        others.remove(&self.id);
        let known: Vec<_> = self.orphans.tables().map(|table| table.id).collect();
        let mut unknown = others.iter().filter(|id| !known.contains(id));
        if unknown.any(|&id| orphans::is_nobodys(id)) {
            match tables() {
                Ok(tables) => {
                    let adopted = self.orphans.adopt(&tables);
                    self.reload.adopt(adopted);
                }
                Err(error) => {
                    self.orphans.complain(&format!("packet rules cannot be listed: {error}"));
                }
            }
        }
        !others.is_empty() || self.orphans.tables().next().is_some()
    }

    /// Switches on what this spawner needs of forwarding, where it is off.
    fn forward(&mut self) -> Result<(), Reason> {
        switch(FORWARD_V4, "1")?;
        if self.v6 && is_off(FORWARD_V6) {
            self.advertisements.extend(keep_router_advertisements());
            switch(FORWARD_V6, "1")?;
        }
        Ok(())
    }

    fn table(&self) -> Table {
        Table { id: self.id, pid: std::process::id(), forwarding: self.forwarding }
    }

    /// Removes everything that [`HostNetwork::set_up`] made. What another spawner, or another program
    /// that forwards, still needs stays.
    pub(crate) fn take_down(&mut self) {
        // An nft that runs is ended with it.
        self.reload = Reload::default();
        self.sweep();
        let own = self.table();
        if self.forwarding != Forwarding::default() {
            let _turn = turn();
            // What cannot be told may be so.
            let others = tables().map(|all| all.iter().any(|table| table.id != own.id));
            if !others.unwrap_or(true) && !is_forwarding_wanted().unwrap_or(true) {
                // Where it cannot be switched off, it was on before.
                if self.forwarding.v4 {
                    switch(FORWARD_V4, "0").ok();
                }
                if self.forwarding.v6 {
                    switch(FORWARD_V6, "0").ok();
                    for setting in &self.advertisements {
                        fs::write(setting, "1").ok();
                    }
                }
            }
        }
        if let Err(error) = delete(own) {
            say(&format!("the packet rules {} cannot be removed: {error}", own.name()));
        }
    }

    /// Connects a namespace with the machine; the other half is [`Link::enter`].
    pub(crate) fn connect(&mut self, namespace: impl AsFd) -> Result<Link, Reason> {
        // Whoever switched it off meanwhile knew nothing of this spawner.
        self.forward()?;
        self.mend();
        if self.reload.is_promising() {
            // They have been lost in the time since the launch was begun.
            self.settle(LAUNCH_WAIT);
        }
        if let Some(reason) = self.reload.refusal(self.id) {
            return Err(reason);
        }
        let mut last = None;
        for _ in 0..TRIES {
            let link = Link { number: random() % ADDRESSES, v6: self.v6, mtu: self.mtu };
            match link.make(&self.netlink, &self.name(link), namespace.as_fd()) {
                Ok(()) => return Ok(link),
                Err(reason) if reason.errno == libc::EEXIST => last = Some(reason),
                Err(reason) => return Err(reason),
            }
        }
        Err(last.unwrap_or_else(|| Reason::new("find a free address", libc::EADDRNOTAVAIL)))
    }

    fn name(&self, link: Link) -> String {
        format!("{}{:05x}", interfaces(self.id), link.number)
    }
}

/// Standard error is the platform's; nobody may be there to read it.
fn say(text: &str) {
    rustix::io::write(rustix::stdio::stderr(), format!("tolv: {text}\n").as_bytes()).ok();
}

/// The turn of one spawner among all of this machine: what one removes, another may be adding.
fn turn() -> Option<NamedLock> {
    // The networks of others are others' turns.
    let network = home().and_then(fs::File::metadata).ok()?.ino();
    let path = Path::new(LOCKS).join(format!("{LOCK}{network}"));
    let until = Instant::now() + TURN;
    while Instant::now() < until {
        match NamedLock::try_take(&path) {
            Ok(None) => std::thread::sleep(RETRY_DELAY),
            taken => return taken.ok().flatten(),
        }
    }
    // Without it they may meet, and the next launch mends what matters.
    None
}

/// Removes the turns of spawners that were killed in them, of networks that are gone too.
fn sweep_turns() {
    sweep_locks(Path::new(LOCKS), |name| {
        name.strip_prefix(LOCK).is_some_and(|inode| inode.parse::<u64>().is_ok())
    });
}

fn is_off(setting: &str) -> bool {
    fs::read_to_string(setting).is_ok_and(|text| text.trim() == "0")
}

fn switch(setting: &str, value: &str) -> Result<(), Reason> {
    if fs::read_to_string(setting).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    fs::write(setting, value).map_err(|error| Reason::io(format!("write {setting}"), &error))
}

/// A machine that forwards does not listen to routers any more, unless it is told to. Gives the
/// settings that were changed.
fn keep_router_advertisements() -> Vec<PathBuf> {
    let all = fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    let settings = all.map(|entry| entry.path().join("accept_ra"));
    let is_on = |setting: &PathBuf| {
        fs::read_to_string(setting).is_ok_and(|text| text.trim() == "1")
            // Of an interface that is gone meanwhile nothing is to be kept.
            && fs::write(setting, "2").is_ok()
    };
    settings.filter(is_on).collect()
}

fn has_default_route(table: &str, is_default: impl Fn(&str) -> bool) -> bool {
    fs::read_to_string(table).is_ok_and(|text| text.lines().any(is_default))
}

/// A line of `/proc/net/ipv6_route`: destination, its length, …, interface.
fn is_default_v6(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let destination = words.next().is_some_and(|text| text.bytes().all(|byte| byte == b'0'));
    destination && words.next() == Some("00") && words.last().is_some_and(|name| name != "lo")
}

/// The largest packet of the interface that the default route leads to.
fn mtu() -> u32 {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?;
        (words.next()? == "00000000").then(|| name.to_owned())
    });
    let read = |name: String| fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok();
    let mtu = default.and_then(read).and_then(|text| text.trim().parse().ok());
    mtu.unwrap_or(DEFAULT_MTU)
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if got != Ok(bytes.len()) {
        bytes = std::process::id().to_ne_bytes();
    }
    u32::from_ne_bytes(bytes)
}

/// The networks of a spawner's launches: whether they have their own, and what that takes.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    choice: NetworkChoice,
    /// Nothing until it is wanted.
    host: Option<Result<HostNetwork, Reason>>,
}

impl Networks {
    /// From here on launches are as the operator chose; why not, where they cannot be.
    pub(crate) fn choose(&mut self, choice: NetworkChoice) -> Option<String> {
        self.choice = choice;
        if choice == NetworkChoice::Machine {
            return Some("TOLV_NETWORK=machine".to_owned());
        }
        match self.host() {
            Ok(_) => None,
            Err(reason) => Some(reason.to_string()),
        }
    }

    /// Whether launches have networks of their own.
    pub(crate) fn are_own(&mut self) -> bool {
        self.choice != NetworkChoice::Machine && self.host().is_ok()
    }

    fn host(&mut self) -> Result<&mut HostNetwork, &Reason> {
        self.host.get_or_insert_with(HostNetwork::set_up).as_mut().map_err(|reason| &*reason)
    }

    fn ready(&mut self) -> Option<&mut HostNetwork> {
        self.host.as_mut()?.as_mut().ok()
    }

    /// Readable when [`Networks::mend`] has something to look at.
    pub(crate) fn changes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.host.iter().flatten().flat_map(HostNetwork::changes)
    }

    /// See [`HostNetwork::mend`].
    pub(crate) fn mend(&mut self) {
        if let Some(host) = self.ready() {
            host.mend();
        }
    }

    /// How long to wait at most until [`Networks::mend`] has something to do.
    pub(crate) fn next_mend(&self) -> Option<Duration> {
        self.host.as_ref()?.as_ref().ok()?.reload.next()
    }

    /// Whether rules are on their way, so that a launch had better wait for them a little.
    pub(crate) fn are_loading(&self) -> bool {
        matches!(&self.host, Some(Ok(host)) if host.reload.is_promising())
    }

    /// The process that loads rules.
    pub(crate) fn loader(&self) -> Option<Pid> {
        self.host.as_ref()?.as_ref().ok()?.reload.loader()
    }

    /// That process was collected.
    pub(crate) fn loader_ended(&mut self, ended: Ended) {
        if let Some(host) = self.ready() {
            host.reload.loader_ended(ended);
        }
    }

    /// See [`HostNetwork::connect`].
    pub(crate) fn connect(&mut self, namespace: impl AsFd) -> Result<Link, Reason> {
        self.host().map_err(Clone::clone)?.connect(namespace)
    }

    /// See [`HostNetwork::sweep`]; whether something is left for the next time.
    pub(crate) fn sweep(&mut self) -> bool {
        self.ready().is_some_and(HostNetwork::sweep)
    }

    /// Leaves nothing.
    pub(crate) fn take_down(&mut self) {
        if let Some(Ok(host)) = &mut self.host {
            host.take_down();
        }
    }
}

#[cfg(test)]
mod tests;
