//! Services of the machine that a config names (factor IV): `postgres://127.0.0.1/shop`.
//!
//! A process in a network of its own reaches none of the machine's services but those that its
//! config names and the operator allows. Named is what stands in a URL, in `host:port`, or in a pair
//! of variables `X_HOST` and `X_PORT`, where the host is the loopback.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::env::{Env, EnvName};

/// Ports of URLs that name none.
const DEFAULT_PORTS: [(&str, u16); 22] = [
    ("amqp", 5672),
    ("amqps", 5671),
    ("clickhouse", 9000),
    ("http", 80),
    ("https", 443),
    ("ldap", 389),
    ("memcached", 11211),
    ("mongodb", 27017),
    ("mysql", 3306),
    ("mysql2", 3306),
    ("mariadb", 3306),
    ("nats", 4222),
    ("postgis", 5432),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("redis", 6379),
    ("rediss", 6379),
    ("smtp", 25),
    ("smtps", 465),
    ("sqlserver", 1433),
    ("valkey", 6379),
    ("ws", 80),
];

/// Which services of the machine its apps may reach, where their config names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostServices {
    /// All: the developer's own machine.
    All,
    /// These, by their loopback addresses.
    Only(BTreeSet<SocketAddr>),
}

impl Default for HostServices {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl HostServices {
    /// Whether apps may reach this one.
    pub fn allow(&self, service: &SocketAddr) -> bool {
        match self {
            Self::All => true,
            Self::Only(services) => services.contains(service),
        }
    }
}

/// A text that is no list of services.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a service of this machine: name a loopback address and a port, as in 127.0.0.1:5432"
)]
pub struct NotAService(String);

impl FromStr for HostServices {
    type Err = NotAService;

    /// `127.0.0.1:5432,localhost:6379`.
    fn from_str(text: &str) -> Result<Self, NotAService> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let service = |word: &str| {
            service_at(word, None).ok_or_else(|| NotAService(word.chars().take(60).collect()))
        };
        words.map(service).collect::<Result<_, _>>().map(Self::Only)
    }
}

impl fmt::Display for HostServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Only(services) => {
                let words: Vec<_> = services.iter().map(SocketAddr::to_string).collect();
                f.write_str(&words.join(","))
            }
        }
    }
}

/// The services of the machine that a config names, and the variable that names each.
pub fn services_of(config: &Env) -> Vec<(EnvName, SocketAddr)> {
    let text = |name: &EnvName| {
        let value = config.iter().find(|(other, _)| *other == name).map(|(_, value)| value)?;
        std::str::from_utf8(value.as_bytes()).ok()
    };
    let mut found = BTreeSet::new();
    for (name, value) in config.iter() {
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
        for service in services_in(value) {
            found.insert((name.clone(), service));
        }
        // `PGHOST` and `PGPORT`, `DB_HOST` and `DB_PORT`.
        let Some(prefix) = name.as_str().strip_suffix("HOST") else { continue };
        let port = format!("{prefix}PORT").parse().ok();
        let port = port.as_ref().and_then(text).and_then(|port| port.trim().parse().ok());
        let port = port.or((prefix == "PG").then_some(5432));
        if let (Some(ip), Some(port)) = (loopback(value.trim()), port) {
            found.insert((name.clone(), SocketAddr::new(ip, port)));
        }
    }
    found.into_iter().collect()
}

/// Those that one value names: a URL, also of several hosts or with `host` and `port` behind `?`,
/// `host:port`, libpq's `host=… port=…`, and Go's `tcp(host:port)`.
pub fn services_in(value: &str) -> Vec<SocketAddr> {
    let mut found = hosts_of_url(value);
    // `postgres:///shop?host=localhost&port=5432`, `host=localhost port=5432 dbname=shop`.
    let words = value.rsplit(['?', '/']).next().unwrap_or_default();
    let named = |wanted: &str| {
        let mut words = words.split(['&', ' ', ';', '\n']).map(str::trim);
        words.find_map(|word| {
            let (name, value) = word.split_once('=')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('\''))
        })
    };
    if let Some(ip) = named("host").or_else(|| named("server")).and_then(loopback) {
        let port = named("port").map_or(Some(5432), |port| port.parse().ok());
        found.extend(port.filter(|&port| port != 0).map(|port| SocketAddr::new(ip, port)));
    }
    // `user:password@tcp(127.0.0.1:3306)/shop`.
    if let Some((_, rest)) = value.split_once("@tcp(")
        && let Some((host, _)) = rest.split_once(')')
    {
        found.extend(service_at(host, Some(3306)));
    }
    found
}

fn hosts_of_url(value: &str) -> Vec<SocketAddr> {
    let value = value.strip_prefix("jdbc:").unwrap_or(value);
    let (hosts, port) = match value.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let hosts = authority.rsplit('@').next().unwrap_or_default();
            // `postgresql+asyncpg` is PostgreSQL, `redis+socket` Redis.
            let scheme = scheme.split('+').next().unwrap_or_default().to_ascii_lowercase();
            let port = DEFAULT_PORTS.iter().find(|(name, _)| *name == scheme);
            (hosts, port.map(|(_, port)| *port))
        }
        None => (value.trim(), None),
    };
    hosts.split(',').filter_map(|host| service_at(host.trim(), port)).collect()
}

/// `host`, `host:port`, `[::1]:port`, where the host is the loopback.
fn service_at(text: &str, default_port: Option<u16>) -> Option<SocketAddr> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (text, default_port),
    };
    let port = port.filter(|&port| port != 0)?;
    Some(SocketAddr::new(loopback(host)?, port))
}

fn loopback(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.eq_ignore_ascii_case("localhost") || bare.eq_ignore_ascii_case("localhost.localdomain")
    {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    bare.parse::<IpAddr>().ok().filter(IpAddr::is_loopback)
}

#[cfg(test)]
mod tests;
