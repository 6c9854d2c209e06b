//! The machine's side: the table of packet rules, forwarding, and one pair a namespace.
//!
//! All of it is made at the first launch that wants it and removed at the spawner's end. What a
//! spawner that was killed has left is the next one's: its rules are watched while there are apps
//! behind them, and removed then.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use self::orphans::Orphans;
pub(super) use self::table::Table;
use self::table::{Forwarding, delete, is_forwarding_wanted, load, tables};
use super::link::{ADDRESSES, Link};
use super::netlink::Netlink;
use super::nft::Watch;
use super::rules_state::are_in_force;
use super::{NetworkChoice, home};
use crate::level::Reason;
use crate::sys::errno;

mod gate;
mod orphans;
mod table;
mod trial;

/// Until rules that could not be loaded are tried again.
const RELOAD_DELAY: Duration = Duration::from_millis(250);
/// Numbers that are taken by others before a free one is found.
const TRIES: usize = 64;
/// Where spawners take turns; the machine's start clears it.
const LOCK: &str = "/run/tolv-network";
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
    unloaded: Unloaded,
}

/// Tables that are to be loaded again: the ends of their networks are shut meanwhile.
#[derive(Debug, Default)]
struct Unloaded {
    tables: Vec<Table>,
    /// Networks whose ends were shut, and are not open yet.
    shut: BTreeSet<u32>,
    /// Why, and until the next try.
    reason: Option<Reason>,
    tried: Option<Instant>,
}

impl Unloaded {
    /// What is to be tried now.
    fn due(&self) -> &[Table] {
        match self.tried {
            Some(tried) if tried.elapsed() < RELOAD_DELAY => &[],
            _ => &self.tables,
        }
    }
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
        let io = |stage: &'static str| move |error: io::Error| Reason::new(stage, errno(&error));
        home().map_err(io("open /proc/self/ns/net"))?;
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
            unloaded: Unloaded::default(),
        };
        let ready = network.begin();
        if ready.is_err() {
            network.shut_what_nobody_guards();
            network.take_down();
        }
        ready.map(|()| network)
    }

    fn begin(&mut self) -> Result<(), Reason> {
        let others = {
            let _turn = turn();
            let tables = tables()?;
            let flagged = |v6: bool| {
                tables.iter().any(|it| if v6 { it.forwarding.v6 } else { it.forwarding.v4 })
            };
            self.forwarding = Forwarding {
                v4: is_off(FORWARD_V4) || flagged(false),
                v6: self.v6 && (is_off(FORWARD_V6) || flagged(true)),
            };
            load(self.table(), &mut || {})?;
            self.forward()?;
            tables
        };
        let adopted = self.orphans.adopt(&others);
        let mut lost = self.lost_after(&[self.table()]);
        lost.extend(adopted);
        self.put_back(lost, false);
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

    /// Readable when something of the machine's tables has changed.
    pub(crate) fn changes(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    /// Puts the rules back where somebody else has changed or removed them, as the machine's firewall
    /// does when it is loaded anew: without them nothing would be refused. Until when to wait at most
    /// to be called again.
    pub(crate) fn mend(&mut self) -> Option<Duration> {
        let mut lost = self.lost();
        lost.extend(self.unloaded.due());
        self.put_back(lost, true);
        (!self.unloaded.tables.is_empty()).then_some(RELOAD_DELAY)
    }

    /// Loads tables; those that cannot be loaded are tried again and again. It is told where they
    /// `were_there`.
    fn put_back(&mut self, mut lost: Vec<Table>, were_there: bool) {
        for _ in 0..TRIES {
            lost.sort_unstable_by_key(|table| table.id);
            lost.dedup();
            if lost.is_empty() {
                return;
            }
            let (mut loaded, mut failure) = (Vec::new(), None);
            for &table in &lost {
                self.unloaded.tables.retain(|it| *it != table);
                match self.restore(table, were_there) {
                    Ok(()) => loaded.push(table),
                    Err(reason) => {
                        self.unloaded.tables.push(table);
                        failure = Some(reason);
                    }
                }
            }
            match failure {
                None => {
                    if were_there || self.unloaded.reason.is_some() {
                        say("the rules of apps' networks were changed by somebody, and are back");
                    }
                    if self.unloaded.tables.is_empty() {
                        self.unloaded = Unloaded::default();
                    }
                }
                Some(reason) => {
                    if self.unloaded.reason.is_none() {
                        say(&format!(
                            "the rules of apps' networks are lost, and are tried again; until they are \
                             back apps are cut off from every network, and nothing starts: {reason}"
                        ));
                    }
                    self.unloaded.reason = Some(reason);
                    self.unloaded.tried = Some(Instant::now());
                }
            }
            lost = self.lost_after(&loaded);
        }
        self.unloaded.tables.extend(lost);
    }

    /// Loads a table, and opens the ends of its network where they may be shut. They are shut where
    /// that is late or fails: not while it takes some milliseconds.
    fn restore(&mut self, table: Table, were_there: bool) -> Result<(), Reason> {
        let Self { netlink, unloaded, .. } = self;
        let mut shut = || {
            unloaded.shut.insert(table.id);
            gate::shut(netlink, table.id)
        };
        let loaded = load(table, &mut || {
            // What fails now is tried once more below.
            if !are_in_force(table.id) {
                shut().ok();
            }
        });
        if let Err(Reason { stage, errno }) = loaded {
            return Err(match shut() {
                Ok(()) => Reason::new(stage, errno),
                Err(open) => Reason::new(format!("{stage}; apps are not cut off: {open}"), errno),
            });
        }
        // Those of a spawner that is gone may be shut since its time.
        if !were_there || self.unloaded.shut.contains(&table.id) {
            if table.id != self.id && !self.v6 {
                // Whether a network of another spawner has IPv6 is not known.
                gate::open(&self.netlink, table.id, true).ok();
            }
            gate::open(&self.netlink, table.id, self.v6)?;
            self.unloaded.shut.remove(&table.id);
        }
        Ok(())
    }

    /// The tables that this spawner looks after: its own, and those of spawners that are gone.
    fn watched(&self) -> impl Iterator<Item = Table> {
        std::iter::once(self.table()).chain(self.orphans.tables())
    }

    /// Of which of them something was changed, since this was asked before.
    fn lost(&self) -> Vec<Table> {
        let watched: Vec<_> = self.watched().collect();
        let names: Vec<_> = watched.iter().map(|table| table.name()).collect();
        let lost = self.watch.lost(&names);
        watched.into_iter().zip(lost).filter_map(|(table, lost)| lost.then_some(table)).collect()
    }

    /// As [`HostNetwork::lost`], right after this spawner itself has `loaded` some, which is no news:
    /// of those it is asked whether they are there.
    fn lost_after(&self, loaded: &[Table]) -> Vec<Table> {
        let news = self.lost();
        let is_lost = |table: &Table| match loaded.contains(table) {
            true => !are_in_force(table.id),
            false => news.contains(table),
        };
        self.watched().filter(is_lost).collect()
    }

    /// Takes on what spawners that are gone have left, and removes it once no app is in it any more.
    /// Whether there are other spawners' networks, which may become this one's.
    pub(crate) fn sweep(&mut self) -> bool {
        let Ok(mut others) = orphans::ids_in_use() else { return true };
        self.orphans.remove_unused(&others);
        others.remove(&self.id);
        let known: Vec<_> = self.orphans.tables().map(|table| table.id).collect();
        let mut unknown = others.iter().filter(|id| !known.contains(id));
        if unknown.any(|&id| orphans::is_nobodys(id))
            && let Ok(tables) = tables()
        {
            let mut lost = self.orphans.adopt(&tables);
            lost.extend(self.lost());
            self.put_back(lost, false);
        }
        !others.is_empty()
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
        self.sweep();
        let own = self.table();
        if self.forwarding != Forwarding::default() {
            let _turn = turn();
            let others = tables().is_ok_and(|tables| tables.iter().any(|table| table.id != own.id));
            if !others && !is_forwarding_wanted() {
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
        delete(own);
    }

    /// Connects a namespace with the machine; the other half is [`Link::enter`].
    pub(crate) fn connect(&mut self, namespace: impl AsFd) -> Result<Link, Reason> {
        // Whoever switched it off meanwhile knew nothing of this spawner.
        self.forward()?;
        self.mend();
        if let (Some(reason), true) =
            (&self.unloaded.reason, self.unloaded.tables.contains(&self.table()))
        {
            return Err(Reason::new(format!("load packet rules: {}", reason.stage), reason.errno));
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
fn turn() -> Option<fs::File> {
    // The networks of others are others' turns.
    let network = home().and_then(fs::File::metadata).ok()?.ino();
    let lock = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(format!("{LOCK}-{network}"))
        .ok()?;
    let until = Instant::now() + TURN;
    while Instant::now() < until {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(lock),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(RETRY_DELAY),
            Err(_) => return None,
        }
    }
    // Without it they may meet, and the next launch mends what matters.
    None
}

fn is_off(setting: &str) -> bool {
    fs::read_to_string(setting).is_ok_and(|text| text.trim() == "0")
}

fn switch(setting: &str, value: &str) -> Result<(), Reason> {
    if fs::read_to_string(setting).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    fs::write(setting, value)
        .map_err(|error| Reason::new(format!("write {setting}"), errno(&error)))
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
            Err(Reason { stage, errno: 0 }) => Some(stage.clone()),
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

    /// Readable when [`Networks::mend`] has something to look at.
    pub(crate) fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.host.as_ref()?.as_ref().ok().map(HostNetwork::changes)
    }

    /// See [`HostNetwork::mend`].
    pub(crate) fn mend(&mut self) -> Option<Duration> {
        let Some(Ok(host)) = &mut self.host else { return None };
        host.mend()
    }

    /// See [`HostNetwork::connect`].
    pub(crate) fn connect(&mut self, namespace: impl AsFd) -> Result<Link, Reason> {
        self.host().map_err(Clone::clone)?.connect(namespace)
    }

    /// See [`HostNetwork::sweep`]; whether something is left for the next time.
    pub(crate) fn sweep(&mut self) -> bool {
        let Some(Ok(host)) = &mut self.host else { return false };
        host.sweep()
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
