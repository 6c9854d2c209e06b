//! Requests wait while nothing is up yet.

use tolv_router::{Settings, State};

use crate::edge::{Edge, SHORT};
use crate::wire::App;

#[tokio::test]
async fn a_request_is_held_until_a_process_is_up() {
    let app = App::new("web.1").await;
    for (state, body) in [(State::Booting, ""), (State::Up, "abc")] {
        let mut edge = Edge::with(Settings::default(), state, &[]).await;
        let mut client = edge.client().await;
        let length = body.len();
        client
            .send_head(&format!("PUT / HTTP/1.1\nHost: shop.test\nContent-Length: {length}"))
            .await;
        client.send(body).await;
        edge.settled().await;
        // A table that changes nothing releases nothing.
        edge.route(State::Booting, &[]);
        edge.settled().await;
        edge.route(State::Up, &[&app.backend]);
        let (mut process, _) = app.request().await;
        assert_eq!(process.exact(length).await, body);
        process.answer("up").await;
        assert_eq!(client.take().await.body, "up");
        edge.success(200).await;
    }
}

#[tokio::test]
async fn a_held_request_learns_that_nothing_will_come() {
    for (state, code) in [(State::Crashed, "H10"), (State::NoWeb, "H14")] {
        let mut edge = Edge::with(Settings::default(), State::Booting, &[]).await;
        let mut client = edge.client().await;
        client.get("/").await;
        edge.settled().await;
        edge.route(state, &[]);
        assert_eq!(client.take().await.status, 503);
        edge.failure(code, 503).await;
    }
}

#[tokio::test]
async fn a_hold_ends() {
    let settings = Settings { hold: SHORT, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Booting, &[]).await;
    let mut client = edge.client().await;
    client.get("/").await;
    assert_eq!(client.take().await.status, 503);
    assert!(edge.failure("H20", 503).await.service >= SHORT);
}

#[tokio::test]
async fn only_so_many_requests_are_held() {
    let app = App::new("web.1").await;
    let settings = Settings { hold_requests: 1, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Booting, &[]).await;
    let (mut one, mut other) = (edge.client().await, edge.client().await);
    one.get("/").await;
    other.get("/").await;
    // Whichever came second is refused; the first one goes on waiting.
    edge.failure("H20", 503).await;
    edge.route(State::Up, &[&app.backend]);
    let (mut process, _) = app.request().await;
    process.answer("up").await;
    let mut statuses = [one.take().await.status, other.take().await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let app = App::new("web.1").await;
    let settings = Settings { hold_requests: 1, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Booting, &[]).await;
    let mut gone = edge.client().await;
    gone.get("/gone").await;
    edge.settled().await;
    drop(gone);
    edge.failure("H27", 499).await;
    let mut client = edge.client().await;
    client.get("/").await;
    edge.settled().await;
    edge.route(State::Up, &[&app.backend]);
    let (mut process, head) = app.request().await;
    assert_eq!(head.line, "GET / HTTP/1.1");
    process.answer("up").await;
    assert_eq!(client.take().await.body, "up");
}

/// Hands `edge`'s connections on to another router, whose `shop.test` has this process.
async fn heir_of(edge: &Edge, app: &App) -> Edge {
    let mut heir = Edge::before(app).await;
    let (sender, mut connections) = tokio::sync::mpsc::unbounded_channel();
    edge.router.hand_on(sender);
    let router = heir.router.clone();
    heir.tasks.spawn(async move {
        while let Some(connection) = connections.recv().await {
            router.adopt(connection).unwrap();
        }
    });
    heir
}

#[tokio::test]
async fn a_held_request_goes_on_with_the_router_that_takes_over() {
    let app = App::new("web.1").await;
    let mut edge = Edge::with(Settings::default(), State::Booting, &[]).await;
    let mut client = edge.client().await;
    client.send_head("POST /one HTTP/1.1\nHost: shop.test\nContent-Length: 3").await;
    client.send("abcGET /two HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    edge.settled().await;
    let mut heir = heir_of(&edge, &app).await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.line, "POST /one HTTP/1.1");
    assert_eq!(head.get("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(process.exact(3).await, "abc");
    process.answer("up").await;
    assert_eq!(client.take().await.body, "up");
    assert_eq!(heir.success(200).await.path, b"/one");
    assert_eq!(process.head().await.line, "GET /two HTTP/1.1");
    process.answer("up").await;
    assert_eq!(client.take().await.body, "up");
    assert_eq!(heir.success(200).await.path, b"/two");
    // It is that one's alone.
    assert_eq!(edge.router.drain(SHORT).await.cut, 0);
    edge.no_line();
}

#[tokio::test]
async fn while_another_router_takes_over_no_process_is_known_to_be_gone() {
    let (app, other) = (App::new("web.1").await, App::new("web.1").await);
    let (_socket, deaf) = crate::wire::deaf("web.2");
    for is_crashed in [false, true] {
        let mut edge = Edge::with(Settings::default(), State::Up, &[&deaf]).await;
        if is_crashed {
            edge.route(State::Crashed, &[]);
        }
        edge.router.leave();
        let mut client = edge.client().await;
        client.get("/").await;
        edge.settled().await;
        let mut heir = heir_of(&edge, &app).await;
        let (mut process, _) = app.request().await;
        process.answer("up").await;
        assert_eq!(client.take().await.body, "up");
        heir.success(200).await;
        edge.no_line();
    }
    // One that ends with the request unread is as good as gone, and is tried once.
    let mut edge = Edge::before(&other).await;
    edge.router.leave();
    let mut client = edge.client().await;
    client.get("/").await;
    let mut ending = other.accept().await;
    ending.until_readable().await;
    drop(ending);
    edge.settled().await;
    let mut heir = heir_of(&edge, &app).await;
    let (mut process, _) = app.request().await;
    process.answer("up").await;
    assert_eq!(client.take().await.body, "up");
    heir.success(200).await;
    edge.no_line();
}

#[tokio::test]
async fn a_wait_for_another_router_ends() {
    let settings = Settings { hold: SHORT, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Crashed, &[]).await;
    edge.router.leave();
    let mut client = edge.client().await;
    client.get("/").await;
    assert_eq!(client.take().await.status, 503);
    edge.failure("H10", 503).await;
}
