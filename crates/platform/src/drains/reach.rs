//! Which addresses a drain may connect to.
//!
//! An app's admin chooses where the app's lines go, and sees whether they got there. So that this
//! tells nothing about the machine, only drains of the platform's admins may go to the machine
//! itself, to its links and to the metadata services of clouds; the operator may list services of
//! the loopback for everybody (`TOLV_HOST_SERVICES`). Addresses are checked after they were resolved,
//! at each connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tolv_model::service::HostServices;

use super::fault::Fault;

/// Metadata services of clouds beside those in 169.254.0.0/16.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Which addresses one drain may connect to.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// Whether a platform admin added the drain.
    pub(super) by_operator: bool,
    /// Services of the loopback that every drain may go to.
    pub(super) services: HostServices,
}

impl Reach {
    /// Whether the drain may connect to this address.
    pub(super) fn allows(&self, address: &SocketAddr) -> bool {
        let plain = SocketAddr::new(plain(address.ip()), address.port());
        self.by_operator || !is_internal(plain.ip()) || self.services.allow(&plain)
    }

    /// Those of the addresses of a host that the drain may connect to, which are some.
    pub(super) fn check(
        &self,
        host: &str,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Fault> {
        let (allowed, refused): (Vec<_>, Vec<_>) =
            addresses.partition(|address| self.allows(address));
        match allowed.is_empty() && !refused.is_empty() {
            true => Err(Fault::Internal(host.to_owned())),
            false => Ok(allowed),
        }
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, or behind NAT64.
fn plain(ip: IpAddr) -> IpAddr {
    let canonical = ip.to_canonical();
    let IpAddr::V6(v6) = canonical else { return canonical };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
        }
        _ => canonical,
    }
}

/// Whether an address is of this machine, of its links, of no single machine, or of a cloud's
/// metadata service.
fn is_internal(ip: IpAddr) -> bool {
    let reserved = match ip {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            first == 0
                || first >= 224
                || ip.is_loopback()
                || ip.is_link_local()
                || METADATA_V4.contains(&ip)
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || METADATA_V6.contains(&ip)
        }
    };
    reserved || is_own(ip)
}

/// Whether this machine has the address: then the system talks to it from the address itself.
fn is_own(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A connected UDP socket sends nothing by itself.
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(services: &str, by_operator: bool, address: &str) -> bool {
        let services = services.parse().unwrap();
        Reach { by_operator, services }.allows(&address.parse().unwrap())
    }

    #[test]
    fn a_drain_of_an_app_s_admin_does_not_reach_the_machine_nor_its_links() {
        for address in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "0.0.0.0:80",
            "169.254.169.254:80",
            "100.100.100.200:80",
            "255.255.255.255:80",
            "239.1.1.1:80",
            "[::1]:80",
            "[::]:80",
            "[fe80::1]:80",
            "[ff02::1]:80",
            "[fd00:ec2::254]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::169.254.169.254]:80",
        ] {
            assert!(!allows("", false, address), "{address}");
            assert!(allows("", true, address), "{address}");
        }
        for address in ["192.0.2.1:443", "10.1.2.3:514", "[2001:db8::1]:443"] {
            assert!(allows("", false, address), "{address}");
        }
    }

    #[test]
    fn a_drain_reaches_a_service_that_the_operator_lists() {
        assert!(allows("127.0.0.1:514", false, "127.0.0.1:514"));
        assert!(allows("127.0.0.1:514", false, "[::ffff:127.0.0.1]:514"));
        assert!(!allows("127.0.0.1:514", false, "127.0.0.1:515"));
    }

    #[test]
    fn the_machine_s_own_addresses_are_known() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_own(Ipv4Addr::new(192, 0, 2, 1).into()));
    }
}
