use super::*;

fn peer(address: &str) -> Peer {
    Peer::new(address.parse().unwrap(), false)
}

/// Lets a connection have waited for as long as it takes to be evicted.
fn age(admitted: &Admitted, by: u64) {
    admitted.client.waiting.store(by, Ordering::SeqCst);
}

fn clients(max: usize) -> Arc<Clients> {
    let clients = Arc::into_inner(Clients::new(max)).unwrap();
    let began = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    Arc::new(Clients { began, ..clients })
}

#[test]
fn a_peer_is_an_address_or_a_network_or_a_proxy() {
    assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
    assert_ne!(peer("192.0.2.2"), peer("192.0.2.1"));
    assert_eq!(peer("2001:db8:0:1::1"), peer("2001:db8:0:1:ffff::2"));
    assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8:0:2::1"));
    for local in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(peer(local), Peer::Proxy);
    }
    assert_eq!(Peer::new("192.0.2.1".parse().unwrap(), true), Peer::Proxy);
}

#[test]
fn one_peer_has_a_part_and_a_proxy_all() {
    let clients = clients(8);
    let greedy = peer("192.0.2.1");
    let held = [(); 2].map(|()| clients.admit(greedy).unwrap());
    assert_eq!(clients.admit(greedy).unwrap_err(), Full::Peer);
    let others = [(); 6].map(|()| clients.admit(Peer::Proxy).unwrap());
    assert_eq!(clients.admit(Peer::Proxy).unwrap_err(), Full::Total);
    assert_eq!(clients.admit(peer("192.0.2.2")).unwrap_err(), Full::Total);
    drop(held);
    assert_eq!(clients.counts().open, 6);
    clients.admit(greedy).unwrap();
    drop(others);
    assert_eq!(clients.counts().open, 0);
    assert!(lock(&clients.open).peers.is_empty());
}

#[test]
fn the_longest_idle_makes_room_and_what_is_busy_or_young_stays() {
    let clients = clients(4);
    let all = [(); 4].map(|()| clients.admit(Peer::Proxy).unwrap());
    age(&all[0], 3000);
    age(&all[1], 1000);
    assert!(all[2].is_busy());
    all[3].reads();
    let next = clients.admit(Peer::Proxy).unwrap();
    assert!(!all[1].is_busy() && all[0].is_busy());
    all[0].waits();
    assert_eq!(clients.admit(peer("192.0.2.1")).unwrap_err(), Full::Total);
    assert_eq!(clients.counts().evicted, 1);
    // It is counted out once.
    drop(all);
    assert_eq!(clients.counts().open, 1);
    drop(next);
    assert_eq!(clients.counts().open, 0);
}

#[test]
fn a_peer_that_is_full_makes_room_itself() {
    let clients = clients(8);
    let (mine, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
    let others = clients.admit(other).unwrap();
    age(&others, 1);
    let old = [(); 2].map(|()| clients.admit(mine).unwrap());
    age(&old[1], 2);
    let _new = clients.admit(mine).unwrap();
    assert!(old[0].is_busy() && !old[1].is_busy() && others.is_busy());
}
