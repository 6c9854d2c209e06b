//! What goes wrong: each with its code, its status, and nothing that hangs.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tolv_router::{Backend, Dialer, Settings, State};

use crate::edge::{Edge, SHORT, timed};
use crate::wire::{App, deaf, soon};

#[tokio::test]
async fn a_route_without_a_process_says_why() {
    let mut edge = Edge::with(Settings::default(), State::NoWeb, &[]).await;
    let mut client = edge.client().await;
    for (state, code) in
        [(State::NoWeb, "H14"), (State::Crashed, "H10"), (State::Maintenance, "H80")]
    {
        edge.route(state, &[]);
        client.get("/").await;
        let answer = client.take().await;
        assert_eq!(answer.status, 503);
        assert!(answer.body.starts_with("<!doctype html>") && answer.body.contains(code));
        let line = edge.failure(code, 503).await;
        assert_eq!(line.bytes, answer.body.len() as u64);
    }
    client.send_head("HEAD / HTTP/1.1\nHost: shop.test").await;
    assert_eq!(client.head().await.status(), 503);
    assert_eq!(edge.failure("H80", 503).await.bytes, 0);
    // Its body is not read, so the connection ends.
    client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 10").await;
    assert_eq!(client.take().await.head.get("Connection"), Some("close"));
    client.shut().await;
    client.closed().await;
}

#[tokio::test]
async fn a_refused_connection_is_h21() {
    let (_socket, backend) = deaf("web.1");
    let mut edge = Edge::with(Settings::default(), State::Up, &[&backend]).await;
    let mut client = edge.client().await;
    // Quarantine is no reason to refuse what may work.
    for _ in 0..2 {
        client.get("/").await;
        assert_eq!(client.take().await.status, 503);
        let line = edge.failure("H21", 503).await;
        assert_eq!(line.process, Some("web.1".parse().unwrap()));
        assert_eq!(edge.router.in_flight(&backend), 0);
    }
}

#[tokio::test]
async fn what_the_platform_has_run_out_of_is_not_the_process_s_fault() {
    for (errno, want) in
        [(24, "no descriptor is left"), (105, "no memory is left for a connection")]
    {
        let (_socket, mut backend) = deaf("web.1");
        backend.dialer = Dialer::new(1, move |_| {
            Box::pin(async move { Err(io::Error::from_raw_os_error(errno)) })
        });
        let mut edge = Edge::with(Settings::default(), State::Up, &[&backend]).await;
        let mut client = edge.client().await;
        client.get("/").await;
        assert_eq!(client.take().await.status, 503);
        assert_eq!(edge.failure("H99", 503).await.detail, Some(want));
    }
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere() {
    let (_socket, refuses) = deaf("web.1");
    let app = App::new("web.2").await;
    let mut edge = Edge::with(Settings::default(), State::Up, &[&refuses, &app.backend]).await;
    for _ in 0..4 {
        let mut client = edge.client().await;
        // Nothing has been sent yet, so a body is no obstacle.
        client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 1").await;
        client.send("x").await;
        let (mut process, _) = app.request().await;
        assert_eq!(process.exact(1).await, "x");
        process.answer("").await;
        assert_eq!(client.take().await.status, 200);
        assert_eq!(edge.success(200).await.process, Some(app.backend.process.clone()));
    }
}

#[tokio::test]
async fn a_process_that_refused_is_passed_over_for_a_while() {
    let (socket, refuses) = deaf("web.1");
    let app = App::new("web.2").await;
    let mut edge = Edge::with(Settings::default(), State::Up, &[&refuses, &app.backend]).await;
    let mut listener = None;
    let mut socket = Some(socket);
    for turn in 0..6 {
        // Both have had their turn: one of them is known to refuse, and stops to.
        if turn == 2 {
            listener = socket.take().map(|socket| socket.listen(8).unwrap());
        }
        let mut client = edge.client().await;
        client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 0").await;
        app.request().await.0.answer("").await;
        client.take().await;
        edge.success(200).await;
    }
    drop(listener);
}

#[tokio::test]
async fn a_connection_that_is_not_taken_is_h19() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let _listener = socket.listen(0).unwrap();
    // The kernel's queue is full with one.
    let _first = soon("a connection", TcpStream::connect(address)).await.unwrap();
    let backend = Backend { process: "web.1".parse().unwrap(), address, dialer: Dialer::direct() };
    let settings = timed(|time_outs| time_outs.connect = SHORT);
    let mut edge = Edge::with(settings, State::Up, &[&backend]).await;
    let mut client = edge.client().await;
    client.get("/").await;
    assert_eq!(client.take().await.status, 503);
    assert!(edge.failure("H19", 503).await.connect >= SHORT);
}

#[tokio::test]
async fn a_process_that_closes_without_an_answer_is_h13() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    for part in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let mut client = edge.client().await;
        client.get("/").await;
        let (mut process, _) = app.request().await;
        process.send(part).await;
        drop(process);
        assert_eq!(client.take().await.status, 503);
        edge.failure("H13", 503).await;
    }
}

#[tokio::test]
async fn a_process_that_closes_in_the_middle_of_its_answer_is_h18() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    for (field, part) in [("Content-Length: 9", "abc"), ("Transfer-Encoding: chunked", "9\r\nabc")]
    {
        let mut client = edge.client().await;
        client.get("/").await;
        let (mut process, _) = app.request().await;
        process.send_head(&format!("HTTP/1.1 200 OK\n{field}")).await;
        process.send(part).await;
        drop(process);
        client.head().await;
        assert!(!client.rest().await.ends_with("0\r\n\r\n"), "it looks whole");
        let line = edge.failure("H18", 200).await;
        assert_eq!(line.bytes, 3, "{line}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_reset_when_it_is_not_whole() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.send_head("GET / HTTP/1.0\nHost: shop.test").await;
    let (mut process, _) = app.request().await;
    process.send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked").await;
    process.send("3\r\nabc\r\n").await;
    client.head().await;
    assert_eq!(client.exact(3).await, "abc");
    drop(process);
    let end = soon("an end", client.stream.read(&mut [0; 8])).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    edge.failure("H18", 200).await;
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_h25() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    for answer in [
        "SSH-2.0-OpenSSH",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let mut client = edge.client().await;
        client.get("/").await;
        let (mut process, _) = app.request().await;
        process.send(answer).await;
        assert_eq!(client.take().await.status, 502, "{answer}");
        edge.failure("H25", 502).await;
        process.closed().await;
    }
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    process.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n").await;
    client.head().await;
    assert_eq!(client.rest().await, "3\r\nabc\r\n");
    edge.failure("H25", 200).await;
}

#[tokio::test]
async fn a_process_that_does_not_answer_in_time_is_h12() {
    let app = App::new("web.1").await;
    let settings = timed(|time_outs| time_outs.first_byte = SHORT);
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    assert_eq!(client.take().await.status, 503);
    assert!(edge.failure("H12", 503).await.service >= SHORT);
    process.closed().await;
    assert_eq!(edge.router.in_flight(&app.backend), 0);
}

#[tokio::test]
async fn a_process_that_hangs_is_passed_over_until_it_answers() {
    let (hung, well) = (App::new("web.1").await, App::new("web.2").await);
    let settings = timed(|time_outs| time_outs.first_byte = SHORT);
    let mut edge = Edge::with(settings, State::Up, &[&hung.backend]).await;
    // The only one there is gets requests, whatever it does with them.
    for time in 1..=4 {
        let mut client = edge.client().await;
        client.get("/").await;
        let (_process, _) = hung.request().await;
        assert_eq!(client.take().await.status, 503);
        let told = edge.failure("H12", 503).await.detail;
        assert_eq!(told.is_some(), time == 3, "{told:?}");
    }
    edge.route(State::Up, &[&hung.backend, &well.backend]);
    for _ in 0..6 {
        let mut client = edge.client().await;
        client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 0").await;
        let (mut process, _) = well.request().await;
        process.answer("well").await;
        assert_eq!(client.take().await.body, "well");
        edge.success(200).await;
    }
    // It answers, as it may where no other is left, and takes its part again.
    edge.route(State::Up, &[&hung.backend]);
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = hung.request().await;
    process.answer("back").await;
    assert_eq!(client.take().await.body, "back");
    edge.success(200).await;
    edge.route(State::Up, &[&hung.backend, &well.backend]);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = edge.client().await;
        client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 0").await;
        clients.push(client);
    }
    let (mut one, _) = hung.request().await;
    one.answer("back").await;
}

#[tokio::test]
async fn a_process_that_falls_silent_is_h15() {
    let app = App::new("web.1").await;
    let settings = timed(|time_outs| time_outs.idle = SHORT);
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    process.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await;
    client.head().await;
    assert_eq!(client.rest().await, "abc");
    edge.failure("H15", 200).await;
    process.closed().await;
}

#[tokio::test]
async fn a_client_that_falls_silent_is_h28() {
    let app = App::new("web.1").await;
    let settings = timed(|time_outs| time_outs.idle = SHORT);
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut client = edge.client().await;
    client.send("GET / HT").await;
    client.closed().await;
    edge.failure("H28", 499).await;

    let mut client = edge.client().await;
    client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 9").await;
    client.send("abc").await;
    let (mut process, _) = app.request().await;
    assert_eq!(process.exact(3).await, "abc");
    client.closed().await;
    process.closed().await;
    edge.failure("H28", 499).await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_h28() {
    let app = App::new("web.1").await;
    let settings = timed(|time_outs| time_outs.idle = SHORT * 3);
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    process.send_head("HTTP/1.1 200 OK").await;
    let chunk = vec![b'x'; 1 << 20];
    let flood = async {
        use tokio::io::AsyncWriteExt;
        while process.stream.write_all(&chunk).await.is_ok() {}
    };
    soon("the router to give up", flood).await;
    assert!(edge.failure("H28", 200).await.bytes > 0);
}

#[tokio::test]
async fn a_client_that_leaves_is_h27() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;

    let mut client = edge.client().await;
    client.send("GET / HTTP/1.1\r\nHo").await;
    drop(client);
    edge.failure("H27", 499).await;

    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    drop(client);
    process.closed().await;
    edge.failure("H27", 499).await;

    let mut client = edge.client().await;
    client.send_head("POST / HTTP/1.1\nHost: shop.test\nTransfer-Encoding: chunked").await;
    client.send("3\r\nabc\r\n").await;
    let (mut process, _) = app.request().await;
    assert_eq!(process.chunk().await, "abc");
    drop(client);
    // Its end is no body's end.
    process.closed().await;
    edge.failure("H27", 499).await;

    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    process.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await;
    client.head().await;
    drop(client);
    process.closed().await;
    edge.failure("H27", 200).await;
}

#[tokio::test]
async fn a_connection_without_a_request_leaves_no_line() {
    let app = App::new("web.1").await;
    let settings = Settings { client_keep_alive: SHORT, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    drop(edge.client().await);
    let mut silent = edge.client().await;
    silent.closed().await;
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    process.answer("").await;
    client.take().await;
    edge.success(200).await;
    client.closed().await;
    assert_eq!(edge.router.drain(Duration::from_secs(20)).await.cut, 0);
    edge.no_line();
}
