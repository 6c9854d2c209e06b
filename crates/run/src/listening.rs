//! Who listens where, as the kernel tells it.
//!
//! A port of the machine is anybody's: a process is believed to listen on it only where the socket
//! that takes connections is held by it or by what it started. Sockets are known by their inodes,
//! which no two of them share.
//!
//! # Sources
//!
//! sock_diag(7), proc(5). A question about one socket is answered from the kernel's own table at
//! the cost of a lookup; `/proc/net/tcp`, which lists them all, is for kernels that do not answer.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};
use tolv_model::shortage::Shortage;

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN`, as a bit of the states asked for.
const LISTENING: u32 = 1 << 10;
/// Of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Where `struct inet_diag_msg` has the inode: behind the header, state, addresses, queues and uid.
const INODE: usize = HEADER + 4 + 48 + 4 + 4 + 4 + 4;

/// The inode of the socket that takes connections to an address of this network; nothing where none
/// does.
///
/// # Errors
///
/// The system's.
pub(crate) fn listener_at(address: SocketAddr) -> io::Result<Option<u64>> {
    match ask(address) {
        Ok(inode) => Ok(Some(inode)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) if Shortage::of(&error).is_some() => Err(error),
        // A kernel without this interface.
        Err(_) => {
            let found = listeners_of("/proc/net")
                .into_iter()
                .find(|(listening, _)| takes(*listening, address));
            Ok(found.map(|(_, inode)| inode))
        }
    }
}

/// Whether a listener at one address takes connections to another.
fn takes(listening: SocketAddr, address: SocketAddr) -> bool {
    listening.port() == address.port()
        && (listening.ip() == address.ip()
            || listening.ip().is_unspecified() && (listening.is_ipv6() || address.is_ipv4()))
}

fn ask(address: SocketAddr) -> io::Result<u64> {
    let protocol = Some(netlink::SOCK_DIAG);
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    sendto(&socket, &question(address), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 1024];
    // The kernel has answered by now.
    let (read, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
    let number = |at: usize| {
        let bytes = answer.get(at..at + 4).filter(|_| at + 4 <= read)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    if kind == Some(BY_FAMILY) {
        return number(INODE).map(u64::from).ok_or_else(invalid);
    }
    let error = number(HEADER).ok_or_else(invalid)?.cast_signed();
    Err(io::Error::from_raw_os_error(-error))
}

/// `struct inet_diag_req_v2` behind its header: the listener for a connection to this address.
fn question(address: SocketAddr) -> Vec<u8> {
    let (family, octets) = match address.ip() {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let mut body = vec![u8::try_from(family).unwrap_or(0), 6, 0, 0];
    body.extend(LISTENING.to_ne_bytes());
    body.extend(address.port().to_be_bytes());
    body.extend([0; 2]);
    body.extend(&octets);
    body.resize(8 + 4 + 16, 0);
    // To nobody in particular, by any interface, whichever cookie it has.
    body.extend([0; 16 + 4]);
    body.extend([0xff; 8]);
    let length = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let flags = u16::try_from(libc::NLM_F_REQUEST).unwrap_or(0);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// Where any descendant of `root` accepts TCP connections, in its network.
pub(crate) fn listening_below(root: i32) -> Vec<SocketAddr> {
    let inodes = sockets_below(root).unwrap_or_default();
    let mut found: Vec<_> = listeners_of(&format!("/proc/{root}/net"))
        .into_iter()
        .filter(|(_, inode)| inodes.contains(inode))
        .map(|(address, _)| address)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The inodes of the sockets that descendants of a process hold.
///
/// # Errors
///
/// Something is missing to look with; a process that has ended holds none.
pub(crate) fn sockets_below(root: i32) -> io::Result<HashSet<u64>> {
    // Everything below looks in the same way, and takes no more.
    match fs::read_dir(format!("/proc/{root}/task")) {
        Err(error) if Shortage::of(&error).is_some() => return Err(error),
        _ => {}
    }
    let mut inodes = HashSet::new();
    for pid in descendants(root) {
        let files = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(files) => files,
            Err(error) if Shortage::of(&error).is_some() => return Err(error),
            Err(_) => continue,
        };
        for link in files.flatten().filter_map(|file| fs::read_link(file.path()).ok()) {
            let inode = link.to_str().and_then(|text| {
                text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            inodes.extend(inode);
        }
    }
    Ok(inodes)
}

/// The first child: below a shim, its app.
pub(crate) fn first_child(pid: i32) -> Option<i32> {
    children(pid).into_iter().next()
}

fn descendants(root: i32) -> Vec<i32> {
    let mut found = children(root);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("children")));
    let numbers = |list: String| -> Vec<i32> {
        list.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect()
    };
    lists.flatten().flat_map(numbers).collect()
}

/// Every listener of the network that this folder shows.
fn listeners_of(net: &str) -> Vec<(SocketAddr, u64)> {
    let tables = ["tcp", "tcp6"].into_iter();
    let texts = tables.filter_map(|name| fs::read_to_string(format!("{net}/{name}")).ok());
    texts.flat_map(|table| listeners(&table)).collect()
}

/// Address and inode of each listening socket in a `/proc/net/tcp` or `tcp6`.
fn listeners(table: &str) -> Vec<(SocketAddr, u64)> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let address = socket_address(words.next()?)?;
        let state = words.nth(1)?;
        let inode = words.nth(5)?.parse().ok()?;
        (state == "0A").then_some((address, inode))
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// `0100007F:0BB8`: each 32 bits of the address in the machine's order.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for place in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(place..place + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(&*bytes) {
        Ok(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&*bytes).ok()?)),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests;
