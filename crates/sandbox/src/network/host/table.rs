//! The table of packet rules of one spawner's apps.

use std::fs;

use super::super::nft;
use super::interfaces;
use crate::level::Reason;

const TABLE: &str = "tolv_";
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

/// Loads the rules of a spawner's interfaces, in the place of what is left of them. `late` is called
/// where that takes longer than it should.
pub(super) fn load(table: Table, late: &mut dyn FnMut()) -> Result<(), Reason> {
    let name = table.name();
    let rules = rules(&name, &interfaces(table.id), connections());
    let text = format!("table inet {name}\ndelete table inet {name}\n{rules}");
    nft::run_watched(&["-f", "-"], Some(&text), late).map(drop)
}

/// Removes a table. Another spawner may have done so meanwhile, and what is left is removed by the
/// next one.
pub(super) fn delete(table: Table) {
    nft::run(&["delete", "table", "inet", &table.name()], None).ok();
}

/// The tables of all spawners.
pub(super) fn tables() -> Result<Vec<Table>, Reason> {
    let listed = nft::run(&["list", "tables", "inet"], None)?;
    Ok(listed.lines().filter_map(|line| Table::parse(line.strip_prefix("table inet ")?)).collect())
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
fn forwarding_chains() -> Vec<(String, bool)> {
    let listed = nft::run(&["list", "chains"], None).unwrap_or_default();
    let (mut table, mut found) = (String::new(), Vec::new());
    for line in listed.lines() {
        if let Some(name) = line.strip_prefix("table ") {
            name.trim_end_matches([' ', '{']).clone_into(&mut table);
        }
        if line.contains("hook forward") && !table.contains(TABLE) {
            found.push((table.clone(), line.contains("policy drop")));
        }
    }
    found
}

/// Whether another program forwards packets on this machine: containers, a router.
pub(super) fn is_forwarding_wanted() -> bool {
    !forwarding_chains().is_empty()
}

/// Whose rules keep packets from being forwarded, as far as that can be told.
pub(super) fn not_forwarded() -> String {
    match forwarding_chains().into_iter().find(|(_, drops)| *drops) {
        Some((table, _)) => format!(
            "packets are not forwarded: the firewall's table `{table}` drops them; let interfaces \
             `tv*` through there"
        ),
        None => "packets are not forwarded".to_owned(),
    }
}
