use std::convert::Infallible;

use axum::body::{Bytes, to_bytes};
use futures_util::stream;
use tokio::io::duplex;

use super::*;

const MAX_CONNECTIONS: usize = 64;
const MAX_PER_PEER: usize = MAX_CONNECTIONS / PER_PEER;

#[test]
fn one_peer_has_no_more_than_its_share_and_gets_it_back() {
    let connections = Connections::new(MAX_CONNECTIONS);
    let peer = |text: &str| text.parse::<SocketAddr>().unwrap().peer();
    let one = peer("10.0.0.1:1");
    assert_eq!(one, peer("10.0.0.1:2"));
    assert_eq!(one, peer("[::ffff:10.0.0.1]:3"), "the same machine");
    assert_eq!(peer("[2001:db8::1]:1"), peer("[2001:db8::2]:1"), "one network");
    assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8:0:1::1]:1"));
    let used = |connections: &Connections, peer| {
        let admitted = connections.admit(peer)?;
        admitted.is_used();
        Some(admitted)
    };
    let mut held: Vec<_> = (0..MAX_PER_PEER).map(|_| used(&connections, one).unwrap()).collect();
    assert!(connections.admit(one).is_none());
    let other = connections.admit(peer("10.0.0.2:1"));
    assert!(other.is_some(), "others are not held up");
    held.pop();
    assert!(connections.admit(one).is_some());
    drop(held);
    drop(other);
    assert!(connections.lock().open.is_empty());
}

#[test]
fn there_is_a_bound_on_all_of_them() {
    let connections = Connections::new(MAX_CONNECTIONS);
    let admit = |n: usize| {
        let [.., a, b] = n.to_be_bytes();
        let admitted = connections.admit(Peer::V4([10, 0, a, b]))?;
        admitted.is_used();
        Some(admitted)
    };
    let far = MAX_CONNECTIONS - MAX_CONNECTIONS / RESERVE;
    let held: Vec<_> = (0..far).map(|n| admit(n).unwrap()).collect();
    assert!(admit(far).is_none());
    // Whoever has addresses in many networks leaves some for this machine.
    let local = || connections.admit(Peer::Local).inspect(Admitted::is_used);
    let own: Vec<_> = (far..MAX_CONNECTIONS).map(|_| local().unwrap()).collect();
    assert!(local().is_none());
    drop(own);
    let silent = connections.admit(Peer::Local).unwrap();
    assert!(admit(far).is_none() && !silent.evicted.is_cancelled(), "that is no room for others");
    drop(held);
    assert!(admit(0).is_some());
}

#[test]
fn the_oldest_connection_without_a_request_makes_room() {
    let connections = Connections::new(MAX_CONNECTIONS);
    let (one, other) = (Peer::V4([10, 0, 0, 1]), Peer::V4([10, 0, 0, 2]));
    let neighbour = connections.admit(other).unwrap();
    let used = connections.admit(one).unwrap();
    used.is_used();
    let held: Vec<_> = (1..MAX_PER_PEER).map(|_| connections.admit(one).unwrap()).collect();
    let new = connections.admit(one).unwrap();
    let evicted = |admitted: &Admitted| admitted.evicted.is_cancelled();
    assert!(evicted(&held[0]) && !evicted(&held[1]));
    assert!(!evicted(&used) && !evicted(&neighbour) && !evicted(&new));
    assert_eq!(connections.lock().open.len(), MAX_PER_PEER + 1);
}

#[test]
fn everybody_behind_a_proxy_of_this_machine_has_the_total_bound() {
    let connections = Connections::new(MAX_CONNECTIONS);
    for proxy in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        let peer = proxy.parse::<SocketAddr>().unwrap().peer();
        let admit = || connections.admit(peer).inspect(Admitted::is_used);
        let held: Vec<_> = (0..MAX_CONNECTIONS).map(|_| admit().unwrap()).collect();
        assert!(admit().is_none());
        drop(held);
    }
}

/// A body of one piece a second.
fn slow(pieces: usize) -> Body {
    Body::from_stream(stream::unfold(pieces, |left| async move {
        sleep(Duration::from_secs(1)).await;
        let piece = Ok::<_, Infallible>(Bytes::from_static(b"x"));
        Some((piece, left.checked_sub(1)?))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_given_up() {
    let until = Instant::now() + BODY_TIMEOUT;
    let error = to_bytes(timed(slow(1000), move || until), usize::MAX).await.unwrap_err();
    assert!(is_timeout(&error), "{error:?}");
    assert_eq!(Instant::now(), until);
}

#[tokio::test(start_paused = true)]
async fn a_pack_may_take_long_and_may_not_stand_still() {
    let each = || Instant::now() + PACK_TIMEOUT;
    let long = to_bytes(timed(slow(1000), each), usize::MAX).await.unwrap();
    assert_eq!(long.len(), 1000);
    let still = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let error = to_bytes(timed(still, each), usize::MAX).await.unwrap_err();
    assert!(is_timeout(&error), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_ends() {
    let (ours, theirs) = duplex(16);
    let mut writer = WriteTimeout { io: ours, waiting: None };
    let begun = Instant::now();
    let error = writer.write_all(&[0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed(), WRITE_TIMEOUT);
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_answers_that_come_soon_and_for_no_silent_client() {
    let connections = Connections::new(MAX_CONNECTIONS);
    let took = async || {
        let begun = Instant::now();
        connections.answered().await;
        begun.elapsed()
    };
    assert_eq!(took().await, Duration::ZERO);
    let admitted = connections.admit(Peer::Local).unwrap();
    let silent = took().await;
    assert!(silent >= LAST_REQUEST && silent < LAST_REQUEST + 2 * ANSWER_LOOK, "{silent:?}");
    admitted.is_used();
    let long = took().await;
    assert!(long >= ANSWER_TIMEOUT && long < ANSWER_TIMEOUT + 2 * ANSWER_LOOK, "{long:?}");
    admitted.is_answered();
    assert_eq!(took().await, silent, "another request may be on its way");
    drop(admitted);
    assert_eq!(took().await, Duration::ZERO);
}
