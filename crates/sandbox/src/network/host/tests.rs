use super::*;

#[test]
fn a_table_is_known_by_its_name() {
    for forwarding in [(false, false), (true, false), (false, true), (true, true)] {
        let forwarding = Forwarding { v4: forwarding.0, v6: forwarding.1 };
        let table = Table { id: 0x00ab_cdef, pid: 4711, forwarding };
        assert_eq!(Table::parse(&table.name()), Some(table));
    }
    for name in ["filter", "tolv_", "tolv_zz_1_0", "tolv_000001_1", "tolv_000001_1_5"] {
        assert_eq!(Table::parse(name), None, "{name}");
    }
}

#[test]
fn names_of_interfaces_are_as_long_as_the_kernel_takes() {
    let longest = format!("{}{:05x}", interfaces(0x00ff_ffff), ADDRESSES - 1);
    assert!(longest.len() < libc::IFNAMSIZ, "{longest}");
}

#[test]
fn a_default_route_is_found() {
    let zeros = "0".repeat(32);
    let line = |interface: &str| {
        format!("{zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 00000003 {interface}")
    };
    assert!(is_default_v6(&line("    eth0")));
    assert!(!is_default_v6(&line("      lo")));
    assert!(!is_default_v6(&line("eth0").replacen(" 00 ", " 40 ", 1)));
}
