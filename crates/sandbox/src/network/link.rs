//! The pair of interfaces between a namespace and the machine.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::net::netdevice::name_to_index;
use serde::{Deserialize, Serialize};

use super::netlink::{Message, Netlink};
use crate::level::Reason;

/// Addresses of namespaces: this one and the 131,071 behind it.
const FIRST_V4: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// How many there are.
pub(crate) const ADDRESSES: u32 = 1 << 17;
/// In IPv6 the number is the last 32 bits: `fd74:6f6c:7612::<n>`, a unique local address (RFC 4193).
const FIRST_V6: [u16; 3] = [0xfd74, 0x6f6c, 0x7612];
/// The name of the interface inside.
const INSIDE: &str = "eth0";

/// Of the network that this thread is in.
const FIRST_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = libc::IFF_UP as u32;
const IFF_NOARP: u32 = libc::IFF_NOARP as u32;
const NEW: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const IFA_F_NODAD: u8 = 0x02;
const IFLA_NET_NS_FD: u16 = 28;

/// One pair, by its number among all of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// Below [`ADDRESSES`].
    pub(crate) number: u32,
    /// Whether it has an IPv6 address too.
    pub(crate) v6: bool,
    /// The largest packet that the machine's way out takes.
    pub(crate) mtu: u32,
}

impl Link {
    pub(crate) fn v4(self) -> Ipv4Addr {
        Ipv4Addr::from(FIRST_V4 + self.number)
    }

    pub(crate) fn v6(self) -> Option<Ipv6Addr> {
        let [a, b, c] = FIRST_V6;
        let (high, low) = ((self.number >> 16) as u16, (self.number & 0xffff) as u16);
        self.v6.then(|| Ipv6Addr::new(a, b, c, 0, 0, 0, high, low))
    }

    /// Of both ends: each takes what it sends to its own address for the other's.
    fn hardware_address(self) -> [u8; 6] {
        let [_, a, b, c] = self.number.to_be_bytes();
        // Locally administered.
        [0x02, 0x74, 0x6f, a, b, c]
    }

    /// Makes the pair: `name` on the machine, [`INSIDE`] in the namespace. The machine's end is up
    /// and the routes to the addresses are there afterwards.
    ///
    /// # Errors
    ///
    /// `EEXIST` where another one has the name or the addresses; nothing is left then.
    pub(crate) fn make(
        self,
        netlink: &Netlink,
        name: &str,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), Reason> {
        self.make_unrouted(netlink, name, namespace)?;
        let ready = self.bring_up(netlink, name);
        if ready.is_err() {
            // A pair that nothing leads to harms nobody, and ends with its namespace.
            remove(netlink, name).ok();
        }
        ready
    }

    /// Makes the pair alone.
    pub(crate) fn make_unrouted(
        self,
        netlink: &Netlink,
        name: &str,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), Reason> {
        let pair = Message::new(libc::RTM_NEWLINK, NEW, &interface(0, 0, 0))
            .with(libc::IFLA_IFNAME, &text(name))
            .with(libc::IFLA_MTU, &self.mtu.to_ne_bytes())
            .with(libc::IFLA_ADDRESS, &self.hardware_address())
            .nest(libc::IFLA_LINKINFO, |info| {
                info.with(libc::IFLA_INFO_KIND, b"veth").nest(libc::IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        peer.raw(&interface(0, 0, 0))
                            .with(libc::IFLA_IFNAME, &text(INSIDE))
                            .with(libc::IFLA_MTU, &self.mtu.to_ne_bytes())
                            .with(libc::IFLA_ADDRESS, &self.hardware_address())
                            .with(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())
                    })
                })
            });
        step("make a veth pair", netlink.ask(pair))
    }

    fn bring_up(self, netlink: &Netlink, name: &str) -> Result<(), Reason> {
        let index = step("find an interface", index(name))?;
        step("bring an interface up", netlink.ask(up(index, true)))?;
        step("route to a namespace", netlink.ask(route(index, &self.v4().octets())))?;
        if let Some(v6) = self.v6() {
            step("route to a namespace by IPv6", netlink.ask(route(index, &v6.octets())))?;
        }
        Ok(())
    }

    /// Sets up the namespace's side, from inside.
    pub(crate) fn enter(self) -> Result<(), Reason> {
        self.enter_as(&self.v4().octets())
    }

    /// As [`Link::enter`], with another IPv4 address.
    pub(crate) fn enter_as(self, v4: &[u8; 4]) -> Result<(), Reason> {
        let netlink = step("open netlink", Netlink::open())?;
        loopback(&netlink)?;
        // Every port is the process's own. Kernels before 4.11 have no such setting.
        fs::write(FIRST_PORT, "0").ok();
        let index = step("find an interface", index(INSIDE))?;
        step("bring an interface up", netlink.ask(up(index, true)))?;
        step("set an address", netlink.ask(address(index, v4)))?;
        step("set a route", netlink.ask(default_route(index, libc::AF_INET)))?;
        if let Some(v6) = self.v6() {
            step("set an IPv6 address", netlink.ask(address(index, &v6.octets())))?;
            step("set an IPv6 route", netlink.ask(default_route(index, libc::AF_INET6)))?;
        }
        Ok(())
    }
}

/// Brings the loopback interface of this namespace up.
fn loopback(netlink: &Netlink) -> Result<(), Reason> {
    let index = step("find lo", index("lo"))?;
    step("bring lo up", netlink.ask(up(index, false)))
}

/// Removes an interface, and its other end with it.
pub(crate) fn remove(netlink: &Netlink, name: &str) -> io::Result<()> {
    let message = Message::new(libc::RTM_DELLINK, 0, &interface(0, 0, 0));
    netlink.ask(message.with(libc::IFLA_IFNAME, &text(name)))
}

/// Sets an interface of this namespace down.
pub(crate) fn set_down(netlink: &Netlink, index: u32) -> io::Result<()> {
    netlink.ask(flags(index, 0, IFF_UP))
}

/// Sets the machine's end of a pair up again, with its routes. What is there already stays.
pub(crate) fn set_up(netlink: &Netlink, index: u32, link: Link) -> io::Result<()> {
    netlink.ask(up(index, true))?;
    let routed = |octets: &[u8]| match netlink.ask(route(index, octets)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        routed => routed,
    };
    routed(&link.v4().octets())?;
    link.v6().map_or(Ok(()), |v6| routed(&v6.octets()))
}

/// Brings an interface of this namespace up and gives it an address.
pub(crate) fn set_address(netlink: &Netlink, name: &str, octets: &[u8]) -> io::Result<()> {
    let index = index(name)?;
    netlink.ask(up(index, true))?;
    netlink.ask(address(index, octets))
}

/// Routes a single address to an interface of this namespace.
pub(crate) fn set_route(netlink: &Netlink, name: &str, octets: &[u8]) -> io::Result<()> {
    netlink.ask(route(index(name)?, octets))
}

fn step<T>(stage: &str, done: io::Result<T>) -> Result<T, Reason> {
    done.map_err(|error| Reason::io(stage, &error))
}

fn index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(name_to_index(&socket, name)?)
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// `struct ifinfomsg`: the flags, and which of them are to be changed.
fn interface(index: u32, flags: u32, changed: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&changed.to_ne_bytes());
    bytes
}

fn flags(index: u32, flags: u32, changed: u32) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &interface(index, flags, changed))
}

fn up(index: u32, without_arp: bool) -> Message {
    let set = if without_arp { IFF_UP | IFF_NOARP } else { IFF_UP };
    flags(index, set, set)
}

fn family(octets: &[u8]) -> u8 {
    let family = if octets.len() == 4 { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

fn bits(octets: &[u8]) -> u8 {
    u8::try_from(octets.len() * 8).unwrap_or(0)
}

/// `struct rtmsg`, of a way that leads to an interface and needs no gateway.
fn way(family: u8, bits: u8) -> [u8; 12] {
    let mut bytes = [0; 12];
    (bytes[0], bytes[1]) = (family, bits);
    (bytes[4], bytes[5]) = (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC);
    (bytes[6], bytes[7]) = (libc::RT_SCOPE_LINK, libc::RTN_UNICAST);
    bytes
}

fn route(index: u32, octets: &[u8]) -> Message {
    Message::new(libc::RTM_NEWROUTE, NEW, &way(family(octets), bits(octets)))
        .with(libc::RTA_DST, octets)
        .with(libc::RTA_OIF, &index.to_ne_bytes())
}

fn default_route(index: u32, family: i32) -> Message {
    Message::new(libc::RTM_NEWROUTE, NEW, &way(u8::try_from(family).unwrap_or(0), 0))
        .with(libc::RTA_OIF, &index.to_ne_bytes())
}

/// `struct ifaddrmsg`, and the address; nobody is asked whether he has it.
fn address(index: u32, octets: &[u8]) -> Message {
    let mut bytes = [0; 8];
    (bytes[0], bytes[1], bytes[2]) = (family(octets), bits(octets), IFA_F_NODAD);
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(libc::RTM_NEWADDR, NEW, &bytes)
        .with(libc::IFA_LOCAL, octets)
        .with(libc::IFA_ADDRESS, octets)
}
