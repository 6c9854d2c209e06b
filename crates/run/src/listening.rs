//! Where the processes below one listen, for the message about a boot that took too long.
//!
//! Read from `/proc`; what cannot be read is left out.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where any descendant of `root` accepts TCP connections.
pub(crate) fn listening_below(root: i32) -> Vec<SocketAddr> {
    let mut inodes = HashSet::new();
    for pid in descendants(root) {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for link in files.flatten().filter_map(|file| fs::read_link(file.path()).ok()) {
            let inode = link.to_str().and_then(|text| {
                text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            inodes.extend(inode);
        }
    }
    let mut found: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listeners(&table))
        .filter(|(_, inode)| inodes.contains(inode))
        .map(|(address, _)| address)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
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
