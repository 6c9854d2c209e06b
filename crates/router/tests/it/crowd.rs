//! Clients that hold on to connections, or to processes, leave room for the others.

use tolv_router::{Settings, State};

use crate::edge::Edge;
use crate::wire::App;

#[tokio::test]
async fn connections_without_a_request_make_room_for_those_that_come() {
    let app = App::new("web.1").await;
    let settings = Settings { connections: 32, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    // Some have had an answer and stay, some have never said a word, some stop in their head.
    let mut hoard = Vec::new();
    for _ in 0..4 {
        let mut client = edge.client().await;
        client.get("/").await;
        let (mut process, _) = app.request().await;
        process.answer("x").await;
        client.take().await;
        edge.success(200).await;
        hoard.push(client);
    }
    for _ in 0..100 {
        hoard.push(edge.client().await);
    }
    for _ in 0..3 {
        let mut neighbour = edge.client().await;
        neighbour.get("/").await;
        let (mut process, _) = app.request().await;
        process.answer("here").await;
        assert_eq!(neighbour.take().await.body, "here");
        edge.success(200).await;
    }
    drop(hoard);
}

#[tokio::test]
async fn a_head_that_does_not_end_makes_room_too() {
    let app = App::new("web.1").await;
    let settings = Settings { connections: 4, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut hoard = Vec::new();
    for _ in 0..4 {
        let mut client = edge.client().await;
        client.send("GET / HTTP/1.1\r\nHost: sh").await;
        hoard.push(client);
    }
    let mut neighbour = edge.client().await;
    neighbour.get("/").await;
    let (mut process, _) = app.request().await;
    process.answer("here").await;
    assert_eq!(neighbour.take().await.body, "here");
    edge.failure("H28", 499).await;
    drop(hoard);
}

#[tokio::test]
async fn where_all_are_busy_a_connection_is_told_why_it_is_refused() {
    let app = App::new("web.1").await;
    let settings = Settings { connections: 2, host_requests: 8, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut busy = Vec::new();
    let mut one = edge.client().await;
    one.get("/slow").await;
    busy.push((one, app.request().await.0));
    let mut held = edge.client().await;
    // One host may have half: the other place is of one that talks to nobody.
    held.send("GET / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(held.take().await.status, 503);
    edge.failure("H11", 503).await;
    drop(held);
    edge.route(State::Booting, &[]);
    let mut waits = edge.client().await;
    waits.get("/boot").await;
    let refused = async |edge: &mut Edge| {
        let mut late = edge.client().await;
        late.get("/late").await;
        let answer = late.take().await;
        assert_eq!((answer.status, answer.head.get("Connection")), (503, Some("close")));
        let line = edge.failure("H11", 503).await;
        assert_eq!((&*line.path, &*line.host), (&b"/late"[..], &b"shop.test"[..]));
        assert_eq!(line.detail, Some("too many connections to the platform"));
    };
    refused(&mut edge).await;
    // Who comes behind it does not wait again.
    let began = std::time::Instant::now();
    refused(&mut edge).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    let counts = edge.router.connections();
    assert_eq!((counts.open, counts.max, counts.refused_in_total), (2, 2, 2));
    // A place that is free is taken.
    edge.route(State::NoWeb, &[]);
    assert_eq!(waits.take().await.status, 503);
    edge.failure("H14", 503).await;
    drop(waits);
    let mut next = edge.client().await;
    next.get("/next").await;
    assert_eq!(next.take().await.status, 503);
    edge.failure("H14", 503).await;
    drop(busy);
}

#[tokio::test]
async fn one_host_has_half_of_the_connections_in_flight_at_most() {
    let app = App::new("web.1").await;
    let settings = Settings { connections: 8, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let (mut clients, mut processes) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut client = edge.client().await;
        client.get("/slow").await;
        processes.push(app.request().await.0);
        clients.push(client);
    }
    let mut client = edge.client().await;
    client.get("/").await;
    assert_eq!(client.take().await.status, 503);
    edge.failure("H11", 503).await;
    // Another host is answered.
    edge.settled().await;
    // And this one too, once a request is over.
    processes[0].answer("slow").await;
    assert_eq!(clients[0].take().await.body, "slow");
    edge.success(200).await;
    client.get("/again").await;
    assert_eq!(processes[0].head().await.line, "GET /again HTTP/1.1");
    processes[0].answer("again").await;
    assert_eq!(client.take().await.body, "again");
}

#[tokio::test]
async fn one_host_s_held_requests_leave_places_for_others() {
    let settings = Settings { host_hold: 1, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Booting, &[]).await;
    let (mut one, mut other) = (edge.client().await, edge.client().await);
    // However it is written.
    one.get("/").await;
    other.send_head("GET / HTTP/1.1\nHost: SHOP.test:81").await;
    let line = edge.failure("H20", 503).await;
    assert_eq!(line.detail, Some("as many requests wait for a process as may"));
    edge.route(State::NoWeb, &[]);
    edge.failure("H14", 503).await;
}
