//! The router's end.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tolv_router::{Route, Router, Settings, State, Table};

use crate::edge::{Edge, SHORT};
use crate::wire::{App, Wire, soon};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_drain_waits_for_requests_in_flight_and_says_that_the_connection_ends() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    let mut idle = edge.client().await;

    let router = edge.router.clone();
    edge.tasks.spawn(async move { assert_eq!(router.drain(LONG).await.cut, 0) });
    idle.closed().await;
    // Nobody listens any more.
    soon("the listener's end", edge.tasks.join_next()).await.unwrap().unwrap();
    assert!(TcpStream::connect(edge.address).await.is_err());
    assert_eq!(edge.router.in_flight(&app.backend), 1);

    process.answer("last").await;
    let answer = client.take().await;
    assert_eq!((&*answer.body, answer.head.get("Connection")), ("last", Some("close")));
    client.closed().await;
    drop(client);
    soon("the drain", edge.tasks.join_next()).await.unwrap().unwrap();
    edge.success(200).await;
    process.closed().await;
}

#[tokio::test]
async fn a_drain_cuts_what_is_left_after_its_grace() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let (mut waits, mut reads) = (edge.client().await, edge.client().await);
    waits.get("/").await;
    let (mut first, _) = app.request().await;
    reads.get("/").await;
    let (mut second, _) = app.request().await;
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await;
    reads.head().await;
    assert_eq!(reads.exact(3).await, "abc");
    edge.route(State::Booting, &[]);
    let mut held = edge.client().await;
    held.get("/").await;
    let mut half = edge.client().await;
    half.send("GET /").await;
    edge.settled().await;

    assert_eq!(soon("the drain", edge.router.drain(SHORT)).await.cut, 4);
    assert_eq!(waits.take().await.status, 503);
    assert_eq!(held.take().await.status, 503);
    assert_eq!(half.take().await.status, 503);
    reads.closed().await;
    first.closed().await;
    second.closed().await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let line = edge.line().await;
        assert!(line.to_string().starts_with("at=error code=H99 "), "{line}");
        statuses.push(line.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503, 503]);
}

#[tokio::test]
async fn a_client_that_the_kernel_let_in_is_served_although_the_router_drains() {
    let app = App::new("web.1").await;
    let router = Router::new(Settings::default(), Arc::new(drop));
    let mut table = Table::new();
    table.set_default(Route::new(State::Up, vec![app.backend.clone()]));
    router.set_table(&table);
    // Behind the runtime's back, which has not heard of the client when the drain begins.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    client.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let mut client = Wire::new(TcpStream::from_std(client).unwrap());
    let served = Cell::new(false);
    let exchange = async {
        client.get("/").await;
        let (mut process, _) = app.request().await;
        process.answer("served").await;
        let answer = client.take().await;
        assert_eq!((&*answer.body, answer.head.get("Connection")), ("served", Some("close")));
        served.set(true);
        drop(client);
    };
    let drain = async {
        assert_eq!(router.drain(LONG).await.cut, 0);
        assert!(served.get(), "drained before everybody was served");
    };
    let all = async { tokio::join!(biased; router.serve(listener), drain, exchange) };
    soon("the drain", all).await;
}

/// Asks again and again, by a connection each, until nobody listens; how often it was answered.
fn ask_until_refused(address: std::net::SocketAddr) -> std::io::Result<usize> {
    use std::io::{Read as _, Write as _};
    let mut answered = 0;
    loop {
        let mut client = match std::net::TcpStream::connect(address) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Ok(answered);
            }
            client => client?,
        };
        client.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
        answered += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_it_ends_is_answered_or_refused_and_never_reset() {
    let end = async || {
        let mut edge = Edge::with(Settings::default(), State::NoWeb, &[]).await;
        let address = edge.address;
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..4 {
            clients.spawn_blocking(move || ask_until_refused(address));
        }
        for _ in 0..50 {
            edge.line().await;
        }
        soon("the drain", edge.router.drain(LONG)).await;
        for answered in soon("the clients' end", clients.join_all()).await {
            answered.unwrap();
        }
    };
    // Several at once keep the machine busy: then it is that the listener is late.
    let four = async || tokio::join!(end(), end(), end(), end());
    for _ in 0..3 {
        four().await;
    }
}

/// A stream of events that has begun, at both its ends.
async fn streaming(edge: &Edge, app: &App) -> (Wire, Wire) {
    let mut client = edge.client().await;
    client.get("/events").await;
    let (mut process, _) = app.request().await;
    let head = "HTTP/1.1 200 OK\nContent-Type: text/event-stream; charset=utf-8";
    process.send_head(head).await;
    process.send("data: 1\n\n").await;
    client.head().await;
    assert_eq!(client.exact(14).await, "9\r\ndata: 1\n\n\r\n");
    (client, process)
}

#[tokio::test]
async fn a_stream_of_events_holds_no_process_back_that_is_to_go() {
    let (old, new) = (App::new("web.1").await, App::new("web.2").await);
    let edge = Edge::before(&old).await;
    let (mut client, mut process) = streaming(&edge, &old).await;
    // Another request is waited for.
    let mut other = edge.client().await;
    other.get("/slow").await;
    let (mut slow, _) = old.request().await;
    edge.route(State::Up, &[&new.backend]);
    let (mut fresh_client, mut fresh) = streaming(&edge, &new).await;
    let (router, backend) = (edge.router.clone(), old.backend.clone());
    let mut answered = Box::pin(async move { router.answered(&backend).await });
    assert!(tokio::time::timeout(SHORT, &mut answered).await.is_err());
    slow.answer("done").await;
    assert_eq!(other.take().await.body, "done");
    soon("all answers but the stream's end", answered).await;
    // It ends with its process, or soon.
    edge.router.close_lasting(&old.backend, true);
    process.send("data: 2\n\n").await;
    assert_eq!(client.exact(14).await, "9\r\ndata: 2\n\n\r\n");
    client.closed().await;
    process.closed().await;
    soon("its end", edge.router.unused(&old.backend)).await;
    // Another process's goes on.
    fresh.send("data: 2\n\n").await;
    assert_eq!(fresh_client.exact(14).await, "9\r\ndata: 2\n\n\r\n");
}

#[tokio::test]
async fn an_answer_with_a_length_is_no_stream_whatever_it_says() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    process.send_head("HTTP/1.1 200 OK\nContent-Type: text/event-stream\nContent-Length: 4").await;
    process.send("da").await;
    client.head().await;
    edge.route(State::Up, &[]);
    let (router, backend) = (edge.router.clone(), app.backend.clone());
    let mut answered = Box::pin(async move { router.answered(&backend).await });
    assert!(tokio::time::timeout(SHORT, &mut answered).await.is_err());
    process.send("ta").await;
    assert_eq!(client.exact(4).await, "data");
    soon("its end", answered).await;
    edge.success(200).await;
}

#[tokio::test]
async fn a_stream_of_events_holds_no_drain_up() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let (mut client, mut process) = streaming(&edge, &app).await;
    let router = edge.router.clone();
    assert_eq!(soon("the drain", router.drain(LONG)).await.cut, 0);
    client.closed().await;
    process.closed().await;
    edge.success(200).await;
}
