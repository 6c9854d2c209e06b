//! Connections that change their protocol.

use std::time::Duration;

use tokio::time::timeout;
use tolv_router::State;

use crate::edge::{Edge, SHORT, timed};
use crate::wire::{App, Wire};

const SOON: Duration = Duration::from_secs(20);

pub(crate) const ASK: &str = "GET /chat HTTP/1.1\nHost: shop.test\nConnection: keep-alive, Upgrade\n\
    Upgrade: websocket\nSec-WebSocket-Key: x";
pub(crate) const AGREE: &str = "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\
    Sec-WebSocket-Accept: y";

pub(crate) async fn switched(edge: &Edge, app: &App) -> (Wire, Wire) {
    let mut client = edge.client().await;
    client.send_head(ASK).await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.get("Connection"), Some("Upgrade"));
    assert_eq!(head.get("Upgrade"), Some("websocket"));
    assert_eq!(head.get("Sec-WebSocket-Key"), Some("x"));
    process.send_head(AGREE).await;
    let head = client.head().await;
    assert_eq!((head.status(), head.get("Connection")), (101, Some("Upgrade")));
    assert_eq!(head.get("Upgrade"), Some("websocket"));
    assert_eq!(head.get("Sec-WebSocket-Accept"), Some("y"));
    (client, process)
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let (mut client, mut process) = switched(&edge, &app).await;
    for word in ["one", "two", "GET / HTTP/1.1\r\n\r\n"] {
        client.send(word).await;
        let heard = process.exact(word.len()).await;
        process.send(&heard).await;
        assert_eq!(client.exact(word.len()).await, word);
    }
    assert_eq!(edge.router.in_flight(&app.backend), 1);
    // One side may end before the other.
    client.shut().await;
    assert_eq!(process.rest().await, "");
    process.send("bye").await;
    drop(process);
    assert_eq!(client.rest().await, "bye");
    let line = edge.success(101).await;
    assert_eq!(line.bytes, 3 + 3 + 18 + 3);
    assert_eq!(edge.router.in_flight(&app.backend), 0);
}

#[tokio::test]
async fn a_tunnel_is_in_use_but_no_request_that_will_be_answered() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let (client, process) = switched(&edge, &app).await;
    let mut other = edge.client().await;
    other.get("/").await;
    let (mut asked, _) = app.request().await;
    let router = edge.router.clone();
    assert!(timeout(SHORT, router.answered(&app.backend)).await.is_err());
    asked.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    other.take().await;
    timeout(SOON, router.answered(&app.backend)).await.unwrap();
    assert!(timeout(SHORT, router.unused(&app.backend)).await.is_err());
    drop((client, process));
    timeout(SOON, router.unused(&app.backend)).await.unwrap();
    edge.success(200).await;
    edge.success(101).await;
}

#[tokio::test]
async fn what_either_side_sends_early_is_not_lost() {
    let app = App::new("web.1").await;
    let edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.send(format!("{}\r\n\r\nearly", ASK.replace('\n', "\r\n"))).await;
    let (mut process, _) = app.request().await;
    process.send(format!("{}\r\n\r\nbird", AGREE.replace('\n', "\r\n"))).await;
    assert_eq!(process.exact(5).await, "early");
    client.head().await;
    assert_eq!(client.exact(4).await, "bird");
}

#[tokio::test]
async fn an_upgrade_that_is_not_granted_is_an_ordinary_answer() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.send_head(ASK).await;
    let (mut process, _) = app.request().await;
    process.answer("no").await;
    assert_eq!(client.take().await.body, "no");
    edge.success(200).await;
    client.get("/").await;
    process.head().await;
    process.answer("x").await;
    assert_eq!(client.take().await.body, "x");
}

#[tokio::test]
async fn http_2_in_the_clear_is_not_offered_to_a_process() {
    let app = App::new("web.1").await;
    let edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client
        .send_head(
            "GET / HTTP/1.1\nHost: shop.test\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\n\
             HTTP2-Settings: AAMAAABkAAQAAP__",
        )
        .await;
    let (mut process, head) = app.request().await;
    for name in ["Upgrade", "Connection", "HTTP2-Settings"] {
        assert_eq!(head.get(name), None);
    }
    process.answer("x").await;
    assert_eq!(client.take().await.body, "x");
}

#[tokio::test]
async fn a_side_that_breaks_or_falls_silent_ends_the_tunnel() {
    let app = App::new("web.1").await;
    let settings = timed(|time_outs| time_outs.idle = SHORT);
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let (mut client, mut process) = switched(&edge, &app).await;
    client.closed().await;
    process.closed().await;
    edge.failure("H15", 101).await;

    let mut edge = Edge::before(&app).await;
    let (mut client, process) = switched(&edge, &app).await;
    process.stream.set_zero_linger().unwrap();
    drop(process);
    client.closed().await;
    edge.success(101).await;
}
