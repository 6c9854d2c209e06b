use rustix::fd::AsFd as _;

use super::*;
use crate::protocol::frozen::{Exited, Word as Frozen};
use crate::protocol::{Ended, Order, Word, Written};

fn say(shim: &OwnedFd, packet: &[u8]) {
    send(shim.as_fd(), packet, SendFlags::NOSIGNAL).unwrap();
}

fn exited(code: i32) -> FromShim {
    let exited = Exited { code: Some(code), ..Exited::default() };
    Frozen::Exited(Ended { exited, ..Ended::default() }).into()
}

#[tokio::test]
async fn words_come_one_by_one_and_then_the_end() {
    let (ours, shim) = pair().unwrap();
    let control = Control::new(ours).unwrap();
    let (ended, bell) = (exited(0), FromShim::from(Word::Bell(Written::default())));
    say(&shim, &bell.to_bytes());
    // Of a shim that knows more words than this supervisor.
    say(&shim, b"{\"sing\":{}}");
    say(&shim, b"not even JSON");
    say(&shim, &ended.to_bytes());
    drop(shim);
    assert_eq!(control.word().await, Some(bell));
    assert_eq!(control.word().await, Some(ended));
    assert_eq!(control.word().await, None);
    assert_eq!(control.word().await, None);
    assert!(!control.order(Order::Kill), "nobody can obey");
}

#[tokio::test]
async fn the_last_word_comes_although_an_order_was_not_read() {
    let (ours, shim) = pair().unwrap();
    let control = Control::new(ours).unwrap();
    assert!(control.order(Order::Arm { lines: 0 }));
    let ended = exited(7);
    say(&shim, &ended.to_bytes());
    drop(shim);
    assert_eq!(control.word().await, Some(ended));
    assert_eq!(control.word().await, None);
}

#[tokio::test]
async fn an_order_never_waits_for_a_deaf_shim() {
    let (ours, shim) = pair().unwrap();
    let control = Control::new(ours).unwrap();
    let given = (0..100_000).take_while(|&lines| control.order(Order::Arm { lines })).count();
    assert!((1..100_000).contains(&given), "{given}");
    let mut packet = [0; PACKET];
    let (length, _) = recv(&shim, &mut packet, RecvFlags::DONTWAIT).unwrap();
    let first = ToShim::from_bytes(&packet[..length]);
    assert_eq!(first, Some(Order::Arm { lines: 0 }.into()));
    assert!(control.order(Order::Kill));
}

#[tokio::test]
async fn of_a_shim_of_another_version_only_what_is_frozen_is_heard() {
    let (ours, shim) = pair().unwrap();
    let control = FrozenControl::new(ours).unwrap();
    say(&shim, &FromShim::from(Word::Bell(Written::default())).to_bytes());
    say(&shim, b"{\"v\":77,\"is\":{\"exited\":{}}}");
    say(&shim, &exited(3).to_bytes());
    drop(shim);
    let wanted = Frozen::Exited(Exited { code: Some(3), ..Exited::default() });
    assert_eq!(control.word().await, Some(wanted));
    assert_eq!(control.word().await, None);
}
