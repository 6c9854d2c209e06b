use super::*;

fn servers(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(server);
    lines.map(|server| server.to_string()).collect()
}

#[test]
fn a_process_asks_the_relay_with_the_options_of_the_machine() {
    let machine = "# dhcp\nnameserver 10.0.0.53\noptions edns0 ndots:2\nsearch lan example.org\n";
    let text = "nameserver 127.0.0.1\noptions edns0 ndots:2\nsearch lan example.org\n";
    assert_eq!(resolv_conf_from(machine), text);
    assert_eq!(resolv_conf_from(""), "nameserver 127.0.0.1\n");
}

#[test]
fn servers_are_read_as_the_c_library_reads_them() {
    let text = "; a\n nameserver 1.1.1.1\nnameserver\t::1 # local\nnameserver x\nnameserver\n\
                nameservers 9.9.9.9\nnameserver fe80::1%lo\nnameserver fe80::2%7\n\
                nameserver fe80::3%../lo\n";
    assert_eq!(servers(text), ["1.1.1.1:53", "[::1]:53", "[fe80::1%1]:53", "[fe80::2%7]:53"]);
}

#[test]
fn servers_follow_and_a_file_that_is_half_written_changes_nothing() {
    let mut servers = Servers(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DNS))]);
    let mut shown = |text: &str| {
        let servers = servers.replace(text).iter().map(SocketAddr::to_string);
        servers.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown(""), "127.0.0.1:53");
    assert_eq!(shown("nameserver 10.0.0.1\nnameserver 10.0.0.2\n"), "10.0.0.1:53 10.0.0.2:53");
    assert_eq!(shown("search lan\nnameserv"), "10.0.0.1:53 10.0.0.2:53");
    assert_eq!(shown("nameserver 127.0.0.53\n"), "127.0.0.53:53");
    let many = "nameserver 10.0.0.1\n".repeat(1000);
    assert_eq!(shown(&many), "10.0.0.1:53 10.0.0.1:53 10.0.0.1:53");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    for path in ["/dev/zero", "/etc", "/nowhere", "/dev/tty"] {
        assert_eq!(read(path), None, "{path}");
    }
    let folder = std::env::temp_dir();
    let fifo = folder.join(format!("tolv-names-{}", std::process::id()));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    assert_eq!(read(fifo.to_str().unwrap()), None);
    fs::remove_file(fifo).unwrap();
}

#[test]
fn localhost_is_the_namespaces_own() {
    let machine = b"127.0.0.1 localhost db\n::1 localhost ip6-localhost\n10.1.2.3 files # nfs\n";
    let text = String::from_utf8(hosts(machine)).unwrap();
    assert_eq!(text, "10.1.2.3 files # nfs\n::1 ip6-localhost ip6-loopback\n");
    assert_eq!(hosts(b"10.1.2.3 files"), b"10.1.2.3 files\n::1 ip6-localhost ip6-loopback\n");
}
