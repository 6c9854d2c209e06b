use std::time::Duration;

use tolv_testkit::poll;

use super::*;

#[test]
fn gives_each_port_once_and_skips_what_is_taken() {
    let ports = Ports::new();
    let first = ports.take().unwrap();
    assert!(RANGE.contains(&first.number));
    let blocked = if first.number == *RANGE.end() { *RANGE.start() } else { first.number + 1 };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, blocked));
    let second = ports.take().unwrap();
    assert_ne!(second.number, first.number);
    assert!(listener.is_err() || second.number != blocked);
}

#[test]
fn a_listener_on_either_protocol_takes_a_port() {
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert!(!is_free(v4.local_addr().unwrap().port()));
    // Where the machine has no IPv6, nobody can be there.
    if let Ok(v6) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        assert!(!is_free(v6.local_addr().unwrap().port()));
    }
}

#[test]
fn a_port_comes_back_and_rests_before_it_is_given_again() {
    let ports = Ports::new();
    let number = ports.take().unwrap().number;
    assert!(ports.held.lock().unwrap().ports.is_empty());
    assert_ne!(ports.take().unwrap().number, number);
}

#[test]
fn the_range_wraps_around() {
    let ports = Ports::new();
    ports.held.lock().unwrap().next = *RANGE.end();
    let taken: Vec<_> = (0..3).map(|_| ports.take().unwrap()).collect();
    assert!(taken.iter().all(|port| RANGE.contains(&port.number)));
}

#[test]
fn there_is_none_when_all_are_given_out() {
    let ports = Ports::new();
    ports.held.lock().unwrap().ports.extend(RANGE);
    assert!(ports.take().is_none());
}

#[test]
fn many_at_once_get_different_ones() {
    let ports = Ports::new();
    let taken: Vec<Port> = std::thread::scope(|scope| {
        let take = || scope.spawn(|| (0..20).map(|_| ports.take().unwrap()).collect::<Vec<_>>());
        let threads: Vec<_> = (0..4).map(|_| take()).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let numbers: BTreeSet<_> = taken.iter().map(|port| port.number).collect();
    assert_eq!(numbers.len(), 80);
}

#[test]
fn engines_begin_at_different_places() {
    let begins: BTreeSet<_> = (0..20).map(|_| Ports::new().held.lock().unwrap().next).collect();
    assert!(begins.len() > 1);
}

#[test]
fn platforms_of_one_user_do_not_give_out_the_same_port() {
    let (one, other) = (Ports::new(), Ports::new());
    if one.locks.is_none() {
        return;
    }
    let next = one.held.lock().unwrap().next;
    other.held.lock().unwrap().next = next;
    let (first, second) = (one.take().unwrap(), other.take().unwrap());
    // Nobody listens on either.
    assert_ne!(first.number, second.number);
    let number = first.number;
    drop(first);
    // Given back, it is anybody's: another platform of this machine may have it for a while.
    poll(Duration::from_secs(20), "the lock to be free", || other.lock(number).ok());
}

#[test]
fn names_that_others_take_hold_no_port() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
    let ports = Ports::new();
    let next = ports.held.lock().unwrap().next;
    // What a stranger could bind to keep every start from having a port.
    let taken: Vec<_> = (next..next.saturating_add(200))
        .filter_map(|port| {
            let name = UnixAddress::from_abstract_name(format!("tolv-port-{port}")).ok()?;
            UnixDatagram::bind_addr(&name).ok()
        })
        .collect();
    assert!(taken.len() > 100);
    let number = ports.take().unwrap().number;
    assert!(number.wrapping_sub(next) < 100 || number < next, "{number} and not {next}");
}

#[test]
fn a_folder_of_somebody_else_is_not_used() {
    let home = tolv_testkit::Home::new();
    let user = rustix::process::geteuid().as_raw();
    let open = home.path().join("open");
    DirBuilder::new().mode(0o755).create(&open).unwrap();
    assert!(!is_private(&open, user));
    let link = home.path().join("link");
    std::os::unix::fs::symlink(home.path(), &link).unwrap();
    assert!(!is_private(&link, user));
    let own = home.path().join("own");
    DirBuilder::new().mode(0o700).create(&own).unwrap();
    assert!(is_private(&own, user));
    assert!(!is_private(&own, user + 1));
}

#[test]
fn a_process_with_a_network_of_its_own_holds_nothing() {
    let ports = Ports::new();
    let taken = BTreeSet::from([20_000, 20_001, 29_999]);
    let all: Vec<_> = (0..RANGE.len() * 2).map(|_| ports.any_but(&taken)).collect();
    assert!(all.iter().all(|port| RANGE.contains(&port.number)));
    assert!(all.iter().all(|port| !taken.contains(&port.number)));
    assert!(ports.held.lock().unwrap().ports.is_empty());
}

#[test]
fn a_port_that_was_given_back_leaves_no_file_and_neither_does_one_of_a_killed_platform() {
    let ports = Ports::new();
    let Some(folder) = ports.locks.clone() else { return };
    let port = ports.take().unwrap();
    let own = folder.join(port.number.to_string());
    assert!(own.exists());
    // Nobody holds it.
    let mut left = RANGE.map(|port| folder.join(port.to_string()));
    let left = left.find(|path| fs::File::create_new(path).is_ok()).unwrap();
    let other = folder.join("no-port");
    fs::write(&other, "").unwrap();
    Ports::new();
    assert!(!left.exists());
    assert!(own.exists() && other.exists());
    fs::remove_file(&other).unwrap();
    drop(port);
    assert!(!own.exists());
}
