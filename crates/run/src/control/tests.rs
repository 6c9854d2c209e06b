use rustix::fd::AsFd as _;

use super::*;
use crate::protocol::{Ended, Written};

fn say(shim: &OwnedFd, packet: &[u8]) {
    send(shim.as_fd(), packet, SendFlags::NOSIGNAL).unwrap();
}

#[tokio::test]
async fn words_come_one_by_one_and_then_the_end() {
    let (ours, shim) = pair().unwrap();
    let control = Control::new(ours).unwrap();
    let ended = Word::Exited(Ended { code: Some(0), ..Ended::default() });
    say(&shim, &serde_json::to_vec(&Word::Bell(Written::default())).unwrap());
    // Of a shim that knows more words than this supervisor.
    say(&shim, b"{\"sing\":{}}");
    say(&shim, b"not even JSON");
    say(&shim, &serde_json::to_vec(&ended).unwrap());
    drop(shim);
    assert_eq!(control.word().await, Some(Word::Bell(Written::default())));
    assert_eq!(control.word().await, Some(ended));
    assert_eq!(control.word().await, None);
    assert_eq!(control.word().await, None);
    assert!(!control.order(&Order::Kill), "nobody can obey");
}

#[tokio::test]
async fn the_last_word_comes_although_an_order_was_not_read() {
    let (ours, shim) = pair().unwrap();
    let control = Control::new(ours).unwrap();
    assert!(control.order(&Order::Arm { lines: 0 }));
    let ended = Word::Exited(Ended { code: Some(7), ..Ended::default() });
    say(&shim, &serde_json::to_vec(&ended).unwrap());
    drop(shim);
    assert_eq!(control.word().await, Some(ended));
    assert_eq!(control.word().await, None);
}

#[tokio::test]
async fn an_order_never_waits_for_a_deaf_shim() {
    let (ours, shim) = pair().unwrap();
    let control = Control::new(ours).unwrap();
    let given = (0..100_000).take_while(|&lines| control.order(&Order::Arm { lines })).count();
    assert!((1..100_000).contains(&given), "{given}");
    let mut packet = [0; PACKET];
    let (length, _) = recv(&shim, &mut packet, RecvFlags::DONTWAIT).unwrap();
    let first: Order = serde_json::from_slice(&packet[..length]).unwrap();
    assert_eq!(first, Order::Arm { lines: 0 });
    assert!(control.order(&Order::Kill));
}
