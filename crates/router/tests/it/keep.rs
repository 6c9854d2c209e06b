//! Connections that serve more than one request, on either side.

use tolv_router::{Settings, State};

use crate::edge::{Edge, SHORT};
use crate::wire::App;

#[tokio::test]
async fn both_connections_serve_the_next_request() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    let mut process = None;
    for turn in 0..3 {
        client.get(&format!("/{turn}")).await;
        let mut wire = match process.take() {
            Some(wire) => wire,
            None => app.accept().await,
        };
        assert_eq!(wire.head().await.line, format!("GET /{turn} HTTP/1.1"));
        wire.answer("x").await;
        assert_eq!(client.take().await.body, "x");
        let line = edge.success(200).await;
        assert!(turn == 0 || line.connect.is_zero());
        process = Some(wire);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client
        .send(
            "POST /1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3\r\n\r\nabc\
             POST /2 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n0\r\n\r\n\
             \r\nGET /3 HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /4 HTTP/1.1\r\nHost: sh",
        )
        .await;
    let (mut process, head) = app.request().await;
    assert_eq!((&*head.line, &*process.exact(3).await), ("POST /1 HTTP/1.1", "abc"));
    process.answer("1").await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.line, "POST /2 HTTP/1.1");
    assert_eq!(process.chunks().await.0, "d");
    process.answer("2").await;
    // A `GET` goes on a connection that is there.
    assert_eq!(process.head().await.line, "GET /3 HTTP/1.1");
    process.answer("3").await;
    client.send("op.test\r\n\r\n").await;
    assert_eq!(process.head().await.line, "GET /4 HTTP/1.1");
    process.answer("4").await;
    for body in ["1", "2", "3", "4"] {
        assert_eq!(client.take().await.body, body);
        edge.success(200).await;
    }
}

#[tokio::test]
async fn a_connection_ends_when_the_client_says_so() {
    let app = App::new("web.1").await;
    let edge = Edge::before(&app).await;
    let mut process = None;
    for (head, keeps) in [
        ("GET / HTTP/1.1\nHost: shop.test\nConnection: close", false),
        ("GET / HTTP/1.0\nHost: shop.test", false),
        ("GET / HTTP/1.0\nHost: shop.test\nConnection: keep-alive", true),
    ] {
        let mut client = edge.client().await;
        client.send_head(head).await;
        let mut wire = match process.take() {
            Some(wire) => wire,
            None => app.accept().await,
        };
        wire.head().await;
        wire.answer("x").await;
        let answer = client.take().await;
        let wanted = if keeps { "keep-alive" } else { "close" };
        assert_eq!(answer.head.get("Connection"), Some(wanted), "{head}");
        if !keeps {
            client.closed().await;
        }
        process = Some(wire);
    }
}

#[tokio::test]
async fn a_request_that_does_no_harm_is_sent_again_when_its_connection_was_stale() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.get("/1").await;
    let (mut first, _) = app.request().await;
    first.answer("1").await;
    client.take().await;
    edge.success(200).await;

    // The process closes it as the request comes, and has not read it.
    client.get("/2").await;
    first.until_readable().await;
    drop(first);
    let (mut second, head) = app.request().await;
    assert_eq!(head.line, "GET /2 HTTP/1.1");
    second.answer("2").await;
    assert_eq!(client.take().await.body, "2");
    edge.success(200).await;

    // Once a byte has come back, never again.
    client.get("/3").await;
    second.head().await;
    second.send("H").await;
    drop(second);
    assert_eq!(client.take().await.status, 503);
    edge.failure("H13", 503).await;
}

#[tokio::test]
async fn a_request_that_a_process_has_read_is_no_other_one_s() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.get("/1").await;
    let (mut process, _) = app.request().await;
    process.answer("1").await;
    client.take().await;
    edge.success(200).await;
    // It works on it, and is killed.
    client.get("/2").await;
    process.head().await;
    drop(process);
    assert_eq!(client.take().await.status, 503);
    edge.failure("H13", 503).await;
    // The next one is the next request.
    client.get("/3").await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.line, "GET /3 HTTP/1.1");
    process.answer("3").await;
    assert_eq!(client.take().await.body, "3");
}

#[tokio::test]
async fn a_request_that_may_do_harm_goes_on_a_fresh_connection() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut first, _) = app.request().await;
    first.answer("1").await;
    client.take().await;
    edge.success(200).await;
    client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 0").await;
    let (second, _) = app.request().await;
    drop(second);
    assert_eq!(client.take().await.status, 503);
    edge.failure("H13", 503).await;
}

#[tokio::test]
async fn a_connection_with_bytes_to_spare_is_not_used_again() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    for (method, answer) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nx"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"),
    ] {
        client.send_head(&format!("{method} / HTTP/1.1\nHost: shop.test")).await;
        let (mut process, _) = app.request().await;
        process.send(answer).await;
        process.closed().await;
        let head = client.head().await;
        if method == "GET" && head.status() == 200 {
            assert_eq!(client.exact(1).await, "x");
        }
        assert_eq!(edge.line().await.code, None);
    }
}

#[tokio::test]
async fn an_unused_connection_to_a_process_is_closed_in_time() {
    let app = App::new("web.1").await;
    let settings = Settings { upstream_keep_alive: SHORT, ..Settings::default() };
    let edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut client = edge.client().await;
    for _ in 0..2 {
        client.get("/").await;
        let (mut process, _) = app.request().await;
        process.answer("x").await;
        client.take().await;
        process.closed().await;
    }
}

#[tokio::test]
async fn only_so_many_clients_are_connected_at_once() {
    let app = App::new("web.1").await;
    let settings = Settings { connections: 1, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut first = edge.client().await;
    first.get("/1").await;
    let (mut process, _) = app.request().await;
    let mut second = edge.client().await;
    second.get("/2").await;
    process.answer("1").await;
    assert_eq!(first.take().await.body, "1");
    edge.success(200).await;
    // The first connection is idle, and yet it is the first one's.
    first.get("/3").await;
    assert_eq!(process.head().await.line, "GET /3 HTTP/1.1");
    process.answer("3").await;
    first.take().await;
    drop(first);
    assert_eq!(process.head().await.line, "GET /2 HTTP/1.1");
    process.answer("2").await;
    assert_eq!(second.take().await.body, "2");
}
