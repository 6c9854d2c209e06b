use super::*;

fn loopback_or(own: &'static str) -> impl Fn(IpAddr) -> bool {
    move |address| address.is_loopback() || own.parse() == Ok(address)
}

#[test]
fn servers_elsewhere_are_asked_directly() {
    let machine = "nameserver 10.0.0.53\nnameserver 2001:db8::53\nsearch example.org\n";
    let names = Names::of(machine, "", true, loopback_or("10.0.0.1"));
    assert_eq!(names.resolv_conf, machine);
    assert_eq!(names.relayed, None);
}

#[test]
fn the_stub_of_systemd_resolved_is_passed_by() {
    let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";
    let resolved = "nameserver 192.168.1.1\nsearch lan\n";
    let names = Names::of(stub, resolved, false, loopback_or("192.168.1.7"));
    assert_eq!(names.resolv_conf, "nameserver 192.168.1.1\noptions edns0 trust-ad\nsearch lan\n");
    assert_eq!(names.relayed, None);
}

#[test]
fn any_other_server_of_the_machine_is_asked_by_the_relay() {
    for server in ["127.0.0.1", "192.168.1.7", "::1", "169.254.169.254"] {
        let names =
            Names::of(&format!("nameserver {server}\n"), "", true, loopback_or("192.168.1.7"));
        assert_eq!(names.resolv_conf, "nameserver 127.0.0.1\n");
        assert_eq!(names.relayed, Some(SocketAddr::new(server.parse().unwrap(), 53)));
    }
    // One that needs IPv6, where the namespace has none.
    let names = Names::of("nameserver 2001:db8::53\n", "", false, loopback_or("10.0.0.1"));
    assert!(names.relayed.is_some());
}

#[test]
fn a_machine_without_servers_has_none_to_relay_to() {
    let names = Names::of("# nothing\n", "", true, loopback_or("10.0.0.1"));
    assert_eq!((names.resolv_conf.as_str(), names.relayed), ("nameserver 127.0.0.1\n", None));
}

#[test]
fn localhost_is_the_namespaces_own() {
    let machine = b"127.0.0.1 localhost db\n::1 localhost ip6-localhost\n10.1.2.3 files # nfs\n";
    let text = String::from_utf8(hosts(machine)).unwrap();
    assert_eq!(text, "10.1.2.3 files # nfs\n::1 ip6-localhost ip6-loopback\n");
    assert_eq!(hosts(b"10.1.2.3 files"), b"10.1.2.3 files\n::1 ip6-localhost ip6-loopback\n");
}
