//! The table of packet rules of one spawner's apps.

use std::fmt::Write as _;
use std::fs;
use std::io;

use super::super::nfnetlink::{
    ANY, GET_CHAIN, NEW_CHAIN, attributes, delete_table, list, text as text_in,
};
use super::super::nft;
use super::interfaces;
use crate::level::Reason;

const TABLE: &str = "tolv_";
/// `NFTA_CHAIN_TABLE`, `…HOOK`, `…POLICY`, and in the hook `NFTA_HOOK_HOOKNUM`.
const CHAIN_TABLE: u16 = 1;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_FORWARD`, which is that of bridges too.
const FORWARD: u32 = 2;
/// `NF_DROP`.
const DROP: u32 = 0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

/// A table of a spawner, by its name: `tolv_<id>_<pid>_<forwarding>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network) struct Table {
    pub(in crate::network) id: u32,
    pub(in crate::network) pid: u32,
    pub(super) forwarding: Forwarding,
}

impl Table {
    pub(super) fn name(self) -> String {
        let Self { id, pid, forwarding } = self;
        let bits = u8::from(forwarding.v4) * 4 + u8::from(forwarding.v6) * 6;
        format!("{TABLE}{id:06x}_{pid}_{bits}")
    }

    pub(in crate::network) fn parse(name: &str) -> Option<Self> {
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
}

/// Begins to load the rules of spawners' interfaces, in the place of what is left of them: all of them
/// or none.
///
/// # Errors
///
/// nft cannot be started.
pub(super) fn load(tables: &[Table]) -> Result<nft::Run, Reason> {
    let mut text = String::new();
    for table in tables {
        let name = table.name();
        let rules = rules(&name, &interfaces(table.id), connections());
        writeln!(text, "table inet {name}\ndelete table inet {name}\n{rules}").ok();
    }
    nft::Run::start(&text)
}

/// Removes a table. Another spawner may have done so meanwhile.
///
/// # Errors
///
/// It is still there.
pub(super) fn delete(table: Table) -> io::Result<()> {
    delete_table(&table.name()).map(drop)
}

/// Most connections of one process, and of all, by what the kernel follows.
fn connections() -> (u64, u64) {
    let text = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap_or_default();
    let most = text.trim().parse().unwrap_or(65_536_u64).max(1024);
    ((most / 16).min(4096), most / 2)
}

/// The rules: from a namespace to the internet and back, and nothing else in either direction.
///
/// A packet that another table drops is dropped all the same, and no other table is changed.
fn rules(table: &str, prefix: &str, (each, all): (u64, u64)) -> String {
    let refuse = "goto refuse";
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
    chain refuse {{
        # Of messages about errors the kernel sends one a second to each.
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }}
    chain new_connections {{
        meta nfproto ipv4 add @connections4 {{ ip saddr ct count over {each} }} {refuse}
        meta nfproto ipv6 add @connections6 {{ ip6 saddr ct count over {each} }} {refuse}
        ct count over {all} {refuse}
    }}
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname \"{prefix}*\" {refuse}
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
        iifname \"{prefix}*\" oifname \"tv*\" {refuse}
        oifname \"{prefix}*\" ct state established,related accept
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

/// The chains of others that forwarded packets pass: the table, and whether it drops them.
fn forwarding_chains() -> io::Result<Vec<(String, bool)>> {
    let number = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
    let mut found = Vec::new();
    for chain in list(ANY, GET_CHAIN, NEW_CHAIN)? {
        let (mut table, mut hook, mut policy) = ("", None, None);
        for (kind, value) in attributes(&chain.attributes) {
            match kind {
                CHAIN_TABLE => table = text_in(value),
                CHAIN_HOOK => {
                    hook = attributes(value)
                        .find(|(kind, _)| *kind == HOOK_NUMBER)
                        .and_then(|(_, value)| number(value));
                }
                CHAIN_POLICY => policy = number(value),
                _ => {}
            }
        }
        let family = match chain.family {
            1 => "inet",
            2 => "ip",
            7 => "bridge",
            10 => "ip6",
            // Those of ARP and of devices forward nothing.
            _ => continue,
        };
        if hook == Some(FORWARD) && !table.starts_with(TABLE) {
            found.push((format!("{family} {table}"), policy == Some(DROP)));
        }
    }
    Ok(found)
}

/// Whether another program forwards packets on this machine: containers, a router.
///
/// # Errors
///
/// The kernel does not say.
pub(super) fn is_forwarding_wanted() -> io::Result<bool> {
    forwarding_chains().map(|chains| !chains.is_empty())
}

/// Whose rules keep packets from being forwarded, as far as that can be told.
pub(super) fn not_forwarded() -> String {
    let chains = match forwarding_chains() {
        Ok(chains) => chains,
        Err(error) => {
            return format!("packets are not forwarded; the firewall cannot be listed: {error}");
        }
    };
    match chains.into_iter().find(|(_, drops)| *drops) {
        Some((table, _)) => format!(
            "packets are not forwarded: the firewall's table `{table}` drops them; let interfaces \
             `tv*` through there"
        ),
        None => "packets are not forwarded".to_owned(),
    }
}
