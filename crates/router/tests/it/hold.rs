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
