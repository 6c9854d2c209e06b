use std::convert::Infallible;

use axum::body::{Bytes, to_bytes};
use futures_util::stream;
use tokio::io::duplex;

use super::*;

#[test]
fn one_peer_has_no_more_than_its_share_and_gets_it_back() {
    let connections = Connections::default();
    let peer = |text: &str| text.parse::<SocketAddr>().unwrap().peer();
    let one = peer("10.0.0.1:1");
    assert_eq!(one, peer("10.0.0.1:2"));
    assert_eq!(one, peer("[::ffff:10.0.0.1]:3"), "the same machine");
    assert_eq!(peer("[2001:db8::1]:1"), peer("[2001:db8::2]:1"), "one network");
    assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8:0:1::1]:1"));
    let mut held: Vec<_> = (0..MAX_PER_PEER).map(|_| connections.admit(one).unwrap()).collect();
    assert!(connections.admit(one).is_none());
    let other = connections.admit(peer("10.0.0.2:1"));
    assert!(other.is_some(), "others are not held up");
    held.pop();
    assert!(connections.admit(one).is_some());
    drop(held);
    drop(other);
    assert!(connections.0.lock().unwrap().is_empty());
}

#[test]
fn there_is_a_bound_on_all_of_them() {
    let connections = Connections::default();
    let admit = |n: usize| {
        let [.., a, b] = n.to_be_bytes();
        connections.admit(Peer::V4([10, 0, a, b]))
    };
    let held: Vec<_> = (0..MAX_CONNECTIONS).map(|n| admit(n).unwrap()).collect();
    assert!(admit(MAX_CONNECTIONS).is_none());
    drop(held);
    assert!(admit(0).is_some());
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
