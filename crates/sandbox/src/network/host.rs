//! The machine's side: the table of packet rules, forwarding, and one pair a namespace.
//!
//! All of it is made at the first launch that wants it and removed at the spawner's end. What a
//! spawner that was killed has left is removed by the next one, once its processes are gone.

use std::fs;
use std::io;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::thread::{UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::link::{self, ADDRESSES, Link};
use super::netlink::Netlink;
use super::{NetworkChoice, home, visit};
use crate::level::Reason;
use crate::sys::errno;

/// Where nft is, by the habits of the distributions.
const NFT: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/bin/nft"];
const TABLE: &str = "tolv_";
/// Numbers that are taken by others before a free one is found.
const TRIES: usize = 64;
/// For a packet of the trial to come through a machine that lets it.
const TRIAL: Duration = Duration::from_secs(2);
/// Where the trial's packet goes: nobody on the internet has it.
const TRIAL_TARGET: [u8; 3] = [203, 0, 113];
/// Where spawners take turns; the machine's start clears it.
const LOCK: &str = "/run/tolv-network.lock";
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
    v6: bool,
    mtu: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Forwarding {
    v4: bool,
    v6: bool,
}

/// A table of a spawner, by its name: `tolv_<id>_<pid>_<forwarding>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Table {
    id: u32,
    pid: u32,
    forwarding: Forwarding,
}

impl Table {
    fn name(self) -> String {
        let Self { id, pid, forwarding } = self;
        let bits = u8::from(forwarding.v4) * 4 + u8::from(forwarding.v6) * 6;
        format!("{TABLE}{id:06x}_{pid}_{bits}")
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(TABLE)?.split('_');
        let id = u32::from_str_radix(parts.next()?, 16).ok()?;
        let pid = parts.next()?.parse().ok()?;
        let forwarding = match parts.next()? {
            "0" => Forwarding::default(),
            "4" => Forwarding { v4: true, v6: false },
            "6" => Forwarding { v4: false, v6: true },
            "10" => Forwarding { v4: true, v6: true },
            _ => return None,
        };
        Some(Self { id, pid, forwarding })
    }

    /// Whether its spawner is there, or an interface of it.
    fn is_in_use(self) -> bool {
        let prefix = interfaces(self.id);
        let has_interface = fs::read_dir("/sys/class/net").is_ok_and(|all| {
            all.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        });
        has_interface || Path::new(&format!("/proc/{}", self.pid)).exists()
    }
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
        let _turn = turn();
        home().map_err(|error| Reason::new("open /proc/self/ns/net", errno(&error)))?;
        let before = remove_stale(&tables()?)?;
        let was = Forwarding { v4: is_off(FORWARD_V4), v6: false };
        let has_v6 = has_default_route("/proc/net/ipv6_route", is_default_v6);
        let was = Forwarding { v6: has_v6 && is_off(FORWARD_V6), ..was };
        let forwarding =
            Forwarding { v4: was.v4 || before.v4, v6: was.v6 || (before.v6 && has_v6) };
        let netlink = Netlink::open().map_err(|error| Reason::new("netlink", errno(&error)))?;
        let id = random() & 0x00ff_ffff;
        let network = Self { id, forwarding, netlink, v6: has_v6, mtu: mtu() };
        let ready = network.begin();
        if ready.is_err() {
            network.remove();
        }
        ready.map(|()| network)
    }

    fn begin(&self) -> Result<(), Reason> {
        load(&rules(&self.table().name(), &interfaces(self.id)))?;
        self.forward()?;
        self.trial()
    }

    /// Switches on what this spawner needs of forwarding, where it is off.
    fn forward(&self) -> Result<(), Reason> {
        switch(FORWARD_V4, "1")?;
        if self.v6 && is_off(FORWARD_V6) {
            keep_router_advertisements();
            switch(FORWARD_V6, "1")?;
        }
        Ok(())
    }

    fn table(&self) -> Table {
        Table { id: self.id, pid: std::process::id(), forwarding: self.forwarding }
    }

    /// Removes everything that [`HostNetwork::set_up`] made. What another spawner still needs stays.
    pub(crate) fn take_down(&self) {
        let _turn = turn();
        self.remove();
    }

    /// As [`HostNetwork::take_down`], for who has the turn.
    fn remove(&self) {
        // What is left is removed by the next spawner.
        nft(&["delete", "table", "inet", &self.table().name()], None).ok();
        let others = tables().unwrap_or_default();
        if self.forwarding.v4 && others.is_empty() {
            switch(FORWARD_V4, "0").ok();
        }
        if self.forwarding.v6 && others.is_empty() {
            switch(FORWARD_V6, "0").ok();
        }
    }

    /// Connects a namespace with the machine; the other half is [`Link::enter`].
    pub(crate) fn connect(&self, namespace: impl AsFd) -> Result<Link, Reason> {
        // Whoever switched it off meanwhile knew nothing of this spawner.
        self.forward()?;
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

    /// A packet from a namespace through the machine to another one, which stands for the internet,
    /// and its answer.
    fn trial(&self) -> Result<(), Reason> {
        let failed = |stage: &'static str| {
            move |error: io::Error| Reason::new(format!("trial: {stage}"), errno(&error))
        };
        let app = namespace().map_err(failed("make a network namespace"))?;
        let internet = namespace().map_err(failed("make a network namespace"))?;
        let link = self.connect(&app)?;
        visit(&app, || Ok(link.enter())).map_err(failed("enter a namespace"))??;
        // The other one is no namespace of an app, and has an address of the internet's.
        let number = random();
        let outside = format!("to{number:08x}");
        let there = Link { number: number % ADDRESSES, v6: false, mtu: self.mtu };
        let target = Ipv4Addr::from([
            TRIAL_TARGET[0],
            TRIAL_TARGET[1],
            TRIAL_TARGET[2],
            2 + u8::try_from(number % 126).unwrap_or(0) * 2,
        ]);
        there.make_unrouted(&self.netlink, &outside, internet.as_fd())?;
        let done = self.send_through(&app, &internet, (there, &outside), target);
        link::remove(&self.netlink, &outside).ok();
        done
    }

    fn send_through(
        &self,
        app: &fs::File,
        internet: &fs::File,
        (there, outside): (Link, &str),
        target: Ipv4Addr,
    ) -> Result<(), Reason> {
        let failed = |stage: &'static str| {
            move |error: io::Error| Reason::new(format!("trial: {stage}"), errno(&error))
        };
        let ours = Ipv4Addr::from(u32::from(target) + 1);
        link::set_address(&self.netlink, outside, &ours.octets()).map_err(failed("address"))?;
        link::set_route(&self.netlink, outside, &target.octets()).map_err(failed("route"))?;
        let receiver = visit(internet, || {
            let entered = there.enter_as(&target.octets());
            entered.map_err(|reason| io::Error::from_raw_os_error(reason.errno))?;
            UdpSocket::bind((target, 0))
        });
        let receiver = receiver.map_err(failed("listen"))?;
        let sender =
            visit(app, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).map_err(failed("bind"))?;
        receiver.set_read_timeout(Some(TRIAL)).map_err(failed("time-out"))?;
        sender.set_read_timeout(Some(TRIAL)).map_err(failed("time-out"))?;
        let to = receiver.local_addr().map_err(failed("address"))?;
        sender.send_to(b"?", to).map_err(failed("send"))?;
        let mut byte = [0];
        let refused = |_: io::Error| Reason::new(not_forwarded(), 0);
        let (_, from) = receiver.recv_from(&mut byte).map_err(refused)?;
        receiver.send_to(b"!", from).map_err(failed("answer"))?;
        sender.recv_from(&mut byte).map_err(refused)?;
        Ok(())
    }
}

/// Whose rules keep packets from being forwarded, as far as that can be told.
fn not_forwarded() -> String {
    let listed = nft(&["list", "chains"], None).unwrap_or_default();
    let mut table = "";
    let mut hook = false;
    for line in listed.lines() {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches([' ', '{']);
        }
        hook |= line.contains("hook forward") && line.contains("policy drop");
        if hook {
            return format!(
                "packets are not forwarded: the firewall's table `{table}` drops them; let \
                 interfaces `tv*` through there"
            );
        }
    }
    "packets are not forwarded".to_owned()
}

/// A new network namespace.
fn namespace() -> io::Result<fs::File> {
    let home = home()?;
    #[expect(unsafe_code, reason = "unshare is unsafe for what other flags do")]
    // SAFETY: a network namespace has no memory and no descriptors of this process.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNET)?;
    }
    let made = fs::File::open("/proc/thread-self/ns/net");
    let network = Some(rustix::thread::LinkNameSpaceType::Network);
    if move_into_link_name_space(home.as_fd(), network).is_err() {
        std::process::abort();
    }
    made
}

/// The tables of all spawners.
fn tables() -> Result<Vec<Table>, Reason> {
    let listed = nft(&["list", "tables", "inet"], None)?;
    Ok(listed.lines().filter_map(|line| Table::parse(line.strip_prefix("table inet ")?)).collect())
}

/// Removes the tables whose spawner and interfaces are gone; says what the rest, and they, have
/// switched on.
fn remove_stale(tables: &[Table]) -> Result<Forwarding, Reason> {
    let mut forwarding = Forwarding::default();
    for table in tables {
        forwarding.v4 |= table.forwarding.v4;
        forwarding.v6 |= table.forwarding.v6;
        if !table.is_in_use() {
            nft(&["delete", "table", "inet", &table.name()], None)?;
        }
    }
    Ok(forwarding)
}

/// The rules: from a namespace to the internet and back, and nothing else in either direction.
///
/// A packet that another table drops is dropped all the same, and no other table is changed.
fn rules(table: &str, prefix: &str) -> String {
    let refuse = "reject with icmpx admin-prohibited";
    let errors = "{ destination-unreachable, time-exceeded, parameter-problem }";
    let errors_v6 = "{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }";
    // Of the machine, its links and their neighbours; then what clouds have beside 169.254.0.0/16
    // for metadata (Alibaba, and in IPv6 AWS and Google).
    let never = "{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 198.18.0.0/15, 224.0.0.0/3, \
                 100.100.100.200 }";
    let never_v6 = "{ ::/127, fe80::/10, ff00::/8, fd74:6f6c:7612::/48, fd00:ec2::254, \
                    fd20:ce::254 }";
    format!(
        "table inet {table} {{
    set connections4 {{ type ipv4_addr; size 131072; flags dynamic; }}
    set connections6 {{ type ipv6_addr; size 131072; flags dynamic; }}
    chain new_connections {{
        meta nfproto ipv4 add @connections4 {{ ip saddr ct count over 4096 }} {refuse}
        meta nfproto ipv6 add @connections6 {{ ip6 saddr ct count over 4096 }} {refuse}
    }}
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname != \"{prefix}*\" accept
        ct state established,related accept
        {refuse}
    }}
    chain output {{
        type filter hook output priority -10; policy accept;
        oifname != \"{prefix}*\" accept
        ct state established,related accept
        icmp type {errors} accept
        icmpv6 type {errors_v6} accept
        drop
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        oifname \"{prefix}*\" ct state established,related accept
        iifname \"{prefix}*\" oifname \"tv*\" {refuse}
        oifname \"{prefix}*\" drop
        iifname != \"{prefix}*\" accept
        ip daddr {never} {refuse}
        ip6 daddr {never_v6} {refuse}
        ip daddr 168.63.129.16 tcp dport {{ 80, 32526 }} {refuse}
        ct state new jump new_connections
    }}
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
        iifname \"{prefix}*\" masquerade
    }}
}}
"
    )
}

/// Loads rules, all or nothing.
fn load(rules: &str) -> Result<(), Reason> {
    nft(&["-f", "-"], Some(rules)).map(drop)
}

/// Runs nft; gives what it printed.
fn nft(args: &[&str], input: Option<&str>) -> Result<String, Reason> {
    let Some(program) = NFT.into_iter().find(|program| Path::new(program).exists()) else {
        return Err(Reason::new("nft is not installed (package nftables)", libc::ENOENT));
    };
    let failed = |error: io::Error| Reason::new("run nft", errno(&error));
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
        stdin.write_all(text.as_bytes()).map_err(failed)?;
    }
    let Output { status, stdout, stderr } = child.wait_with_output().map_err(failed)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    let said = said.lines().next().unwrap_or_default().trim().to_owned();
    Err(Reason::new(format!("nft {}: {said}", args.first().unwrap_or(&"")), 0))
}

/// The turn of one spawner among all of this machine: what one removes, another may be adding.
fn turn() -> Option<fs::File> {
    let lock = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(LOCK)
        .ok()?;
    // Without it they may meet, and the next launch mends what matters.
    flock(&lock, FlockOperation::LockExclusive).ok()?;
    Some(lock)
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

/// A machine that forwards does not listen to routers any more, unless it is told to.
fn keep_router_advertisements() {
    let Ok(all) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return };
    for entry in all.flatten() {
        let setting = entry.path().join("accept_ra");
        if fs::read_to_string(&setting).is_ok_and(|text| text.trim() == "1") {
            // Of an interface that is gone meanwhile nothing is to be kept.
            fs::write(&setting, "2").ok();
        }
    }
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

/// Whether this machine itself has an address.
pub(crate) fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
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

    pub(crate) fn has_v6(&self) -> bool {
        matches!(&self.host, Some(Ok(host)) if host.v6)
    }

    fn host(&mut self) -> Result<&HostNetwork, &Reason> {
        self.host.get_or_insert_with(HostNetwork::set_up).as_ref()
    }

    /// See [`HostNetwork::connect`].
    pub(crate) fn connect(&mut self, namespace: impl AsFd) -> Result<Link, Reason> {
        self.host().map_err(Clone::clone)?.connect(namespace)
    }

    /// Leaves nothing.
    pub(crate) fn take_down(&self) {
        if let Some(Ok(host)) = &self.host {
            host.take_down();
        }
    }
}

#[cfg(test)]
mod tests;
