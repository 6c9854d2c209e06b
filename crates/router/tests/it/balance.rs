//! Requests go to the process that is least busy.

use tolv_router::{Settings, State};

use crate::edge::Edge;
use crate::wire::{App, soon};

#[tokio::test]
async fn the_least_busy_process_gets_the_next_request() {
    let (one, other) = (App::new("web.1").await, App::new("web.2").await);
    let mut edge =
        Edge::with(Settings::default(), State::Up, &[&one.backend, &other.backend]).await;
    let mut waiting = edge.client().await;
    waiting.get("/").await;
    let (mut busy, free) = tokio::select! {
        (wire, _) = one.request() => (wire, &other),
        (wire, _) = other.request() => (wire, &one),
    };
    for _ in 0..5 {
        let mut client = edge.client().await;
        // On a connection of its own each.
        client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 0").await;
        let (mut process, _) = free.request().await;
        process.answer("free").await;
        assert_eq!(client.take().await.body, "free");
        assert_eq!(edge.success(200).await.process, Some(free.backend.process.clone()));
    }
    busy.answer("busy").await;
    assert_eq!(waiting.take().await.body, "busy");
    edge.success(200).await;
}

#[tokio::test]
async fn equally_busy_processes_share() {
    let apps = [App::new("web.1").await, App::new("web.2").await, App::new("web.3").await];
    let backends: Vec<_> = apps.iter().map(|app| &app.backend).collect();
    let edge = Edge::with(Settings::default(), State::Up, &backends).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = edge.client().await;
        client.get("/").await;
        clients.push(client);
    }
    let mut wires = Vec::new();
    for app in &apps {
        wires.push(app.request().await);
        wires.push(app.request().await);
        assert_eq!(edge.router.in_flight(&app.backend), 2);
    }
    for (wire, _) in &mut wires {
        wire.answer("x").await;
    }
    for client in &mut clients {
        assert_eq!(client.take().await.body, "x");
    }
}

#[tokio::test]
async fn a_process_that_left_the_table_finishes_and_gets_nothing_new() {
    let (old, new) = (App::new("web.1").await, App::new("web.1").await);
    let mut edge = Edge::before(&old).await;
    let mut first = edge.client().await;
    first.get("/1").await;
    let (mut process, _) = old.request().await;

    edge.route(State::Up, &[&new.backend]);
    let router = edge.router.clone();
    let backend = old.backend.clone();
    edge.tasks.spawn(async move { router.unused(&backend).await });
    let mut second = edge.client().await;
    second.get("/2").await;
    let (mut other, head) = new.request().await;
    assert_eq!(head.line, "GET /2 HTTP/1.1");
    other.answer("new").await;
    assert_eq!(second.take().await.body, "new");
    assert_eq!(edge.router.in_flight(&old.backend), 1);
    assert!(edge.tasks.try_join_next().is_none(), "unused while a request is in flight");

    process.answer("old").await;
    assert_eq!(first.take().await.body, "old");
    soon("the old process to be unused", edge.tasks.join_next()).await;
    assert_eq!(edge.router.in_flight(&old.backend), 0);
    // Nor is a connection kept to it.
    process.closed().await;
}
