//! WebSockets that the router closes.

use std::time::Duration;

use crate::edge::{Edge, SHORT};
use crate::tunnel::switched;
use crate::wire::{App, Wire, soon};

const LONG: Duration = Duration::from_secs(60);
const GOING_AWAY: u16 = 1001;
const SERVICE_RESTART: u16 = 1012;

/// A frame of a client's, or of a process's. The mask is all zeros.
fn frame(is_client: bool, first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    match is_client {
        true => [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat(),
        false => [&[first, length], payload].concat(),
    }
}

/// Reads a frame: its first byte, and its payload without the mask.
async fn read_frame(wire: &mut Wire, is_masked: bool) -> (u8, Vec<u8>) {
    let head = wire.bytes(2).await;
    assert_eq!(head[1] & 0x80 != 0, is_masked);
    let mask = if is_masked { wire.bytes(4).await } else { vec![0; 4] };
    let mut payload = wire.bytes(usize::from(head[1] & 0x7f)).await;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    (head[0], payload)
}

/// Reads a close frame with this code.
async fn read_close(wire: &mut Wire, is_masked: bool, code: u16) {
    let (first, payload) = read_frame(wire, is_masked).await;
    assert_eq!(first, 0x88);
    assert_eq!(payload[..2], code.to_be_bytes());
    assert!(payload.len() > 2, "no reason");
}

#[tokio::test]
async fn both_sides_get_a_close_frame_between_two_frames() {
    for code in [SERVICE_RESTART, GOING_AWAY] {
        let app = App::new("web.1").await;
        let mut edge = Edge::before(&app).await;
        let (mut client, mut process) = switched(&edge, &app).await;
        // Each side is in the middle of a frame; the client even in the middle of its header.
        let (down, up) = (frame(false, 0x82, b"down here"), frame(true, 0x82, b"up there"));
        process.send(&down[..5]).await;
        client.send(&up[..1]).await;
        assert_eq!(client.bytes(5).await, down[..5]);
        assert_eq!(process.bytes(1).await, up[..1]);
        let router = edge.router.clone();
        if code == SERVICE_RESTART {
            router.hand_on(tokio::sync::mpsc::unbounded_channel().0);
        }
        edge.tasks.spawn(async move { assert_eq!(router.drain(LONG).await.cut, 0) });
        soon("the listener's end", edge.tasks.join_next()).await.unwrap().unwrap();
        // What follows a frame's end does not go behind the close frame.
        process.send([&down[5..], &frame(false, 0x81, b"late")].concat()).await;
        assert_eq!(client.bytes(down.len() - 5).await, down[5..]);
        read_close(&mut client, false, code).await;
        client.send([&up[1..], &frame(true, 0x81, b"late")].concat()).await;
        assert_eq!(process.bytes(up.len() - 1).await, up[1..]);
        read_close(&mut process, true, code).await;
        // The handshake's other half. Each side's connection ends with its own.
        client.send(frame(true, 0x88, &code.to_be_bytes())).await;
        client.closed().await;
        process.send(frame(false, 0x88, &code.to_be_bytes())).await;
        process.closed().await;
        drop(client);
        soon("the drain", edge.tasks.join_next()).await.unwrap().unwrap();
        edge.success(101).await;
    }
}

#[tokio::test]
async fn websockets_of_one_process_are_closed_and_others_go_on() {
    let (old, new) = (App::new("web.1").await, App::new("web.2").await);
    let mut edge = Edge::before(&old).await;
    let (mut client, mut process) = switched(&edge, &old).await;
    edge.route(tolv_router::State::Up, &[&new.backend]);
    let (mut other, mut fresh) = switched(&edge, &new).await;
    edge.router.close_lasting(&old.backend, true);
    read_close(&mut client, false, SERVICE_RESTART).await;
    read_close(&mut process, true, SERVICE_RESTART).await;
    // A process that does not answer is not waited for long, once the client has.
    client.send(frame(true, 0x88, &[])).await;
    client.closed().await;
    soon("its end", edge.router.unused(&old.backend)).await;
    process.closed().await;
    edge.success(101).await;
    let hello = frame(false, 0x81, b"hello");
    fresh.send(&hello).await;
    assert_eq!(other.bytes(hello.len()).await, hello);
}

#[tokio::test]
async fn a_side_that_has_closed_gets_no_second_close_frame() {
    let app = App::new("web.1").await;
    let edge = Edge::before(&app).await;
    let (mut client, mut process) = switched(&edge, &app).await;
    let close = frame(false, 0x88, &1000_u16.to_be_bytes());
    process.send(&close).await;
    assert_eq!(client.bytes(close.len()).await, close);
    edge.router.close_lasting(&app.backend, true);
    read_close(&mut process, true, SERVICE_RESTART).await;
    client.send(frame(true, 0x88, &1000_u16.to_be_bytes())).await;
    client.closed().await;
}

#[tokio::test]
async fn what_is_no_websocket_gets_no_close_frame() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    // It says that it is one.
    let (mut client, mut process) = switched(&edge, &app).await;
    process.send("\x07 no frame").await;
    assert_eq!(client.exact(10).await, "\x07 no frame");
    // And another protocol.
    let mut plain = edge.client().await;
    let ask = "GET / HTTP/1.1\nHost: shop.test\nConnection: Upgrade\nUpgrade: chat";
    plain.send_head(ask).await;
    let (mut talker, _) = app.request().await;
    talker.send_head("HTTP/1.1 101 Yes\nConnection: Upgrade\nUpgrade: chat").await;
    plain.head().await;
    edge.router.close_lasting(&app.backend, true);
    for (from, to) in [(&mut process, &mut client), (&mut talker, &mut plain)] {
        from.send("still here").await;
        assert_eq!(to.exact(10).await, "still here");
        to.send("here too").await;
        assert_eq!(from.exact(8).await, "here too");
    }
    let router = edge.router.clone();
    assert_eq!(soon("the drain", router.drain(SHORT)).await.cut, 2);
    for mut wire in [client, plain] {
        wire.closed().await;
        edge.failure("H99", 101).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_cut() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let (mut client, mut process) = switched(&edge, &app).await;
    let router = edge.router.clone();
    assert_eq!(soon("the drain", router.drain(SHORT)).await.cut, 1);
    read_close(&mut client, false, GOING_AWAY).await;
    read_close(&mut process, true, GOING_AWAY).await;
    client.closed().await;
    edge.failure("H99", 101).await;
}

#[tokio::test]
async fn an_upgrade_that_is_granted_while_the_router_drains_is_closed_too() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.send_head(crate::tunnel::ASK).await;
    let (mut process, _) = app.request().await;
    let router = edge.router.clone();
    router.hand_on(tokio::sync::mpsc::unbounded_channel().0);
    edge.tasks.spawn(async move { assert_eq!(router.drain(LONG).await.cut, 0) });
    soon("the listener's end", edge.tasks.join_next()).await.unwrap().unwrap();
    process.send_head(crate::tunnel::AGREE).await;
    client.head().await;
    read_close(&mut client, false, SERVICE_RESTART).await;
    read_close(&mut process, true, SERVICE_RESTART).await;
    drop((client, process));
    soon("the drain", edge.tasks.join_next()).await.unwrap().unwrap();
}
