//! One request and its answer.

use tolv_router::{Protocol, Settings, State};

use crate::edge::Edge;
use crate::wire::{App, Wire};

#[tokio::test]
async fn a_request_and_its_answer_go_through_and_leave_a_line() {
    let app = App::new("web.2").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client
        .send_head("GET /a?b=\"c\" HTTP/1.1\nHost: SHOP.test:80\nX-A: 1\nConnection: X-B\nX-B: 2")
        .await;

    let (mut process, head) = app.request().await;
    assert_eq!(head.line, "GET /a?b=\"c\" HTTP/1.1");
    let port = edge.address.port().to_string();
    for (name, value) in [
        ("Host", Some("SHOP.test:80")),
        ("X-A", Some("1")),
        ("X-B", None),
        ("Connection", None),
        ("X-Forwarded-For", Some("127.0.0.1")),
        ("X-Forwarded-Proto", Some("http")),
        ("X-Forwarded-Port", Some(&*port)),
        ("X-Forwarded-Host", Some("SHOP.test:80")),
        ("Via", Some("1.1 tolv")),
    ] {
        assert_eq!(head.get(name), value, "{name}");
    }
    let start: u128 = head.get("X-Request-Start").unwrap().parse().unwrap();
    assert!((1_600_000_000_000..5_000_000_000_000).contains(&start), "{start}");
    let id = head.get("X-Request-Id").unwrap().to_owned();
    assert_eq!(edge.router.in_flight(&app.backend), 1);

    process.send_head("HTTP/1.1 201 Made\nContent-Length: 5\nKeep-Alive: 5\nX-C: d").await;
    process.send("hello").await;
    let answer = client.take().await;
    assert_eq!(answer.head.line, "HTTP/1.1 201 Made");
    assert_eq!(answer.body, "hello");
    assert_eq!(answer.head.get("X-C"), Some("d"));
    assert_eq!((answer.head.get("Keep-Alive"), answer.head.get("Connection")), (None, None));

    let line = edge.success(201).await;
    assert_eq!(edge.router.in_flight(&app.backend), 0);
    assert_eq!(line.request_id, id);
    let text = line.to_string();
    let (before, after) = text.split_once(" connect=").unwrap();
    assert_eq!(
        before,
        format!(
            "at=info method=GET path=\"/a?b=\\\"c\\\"\" host=SHOP.test:80 request_id={id} \
             fwd=\"127.0.0.1\" process=web.2"
        )
    );
    assert!(after.ends_with(" status=201 bytes=5 protocol=http"), "{text}");
    assert!(line.service >= line.connect);
}

#[tokio::test]
async fn a_usable_request_id_is_kept_and_a_forwarded_chain_goes_on() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    let id = "0123456789-abcdefghij";
    client
        .send_head(&format!(
            "GET / HTTP/1.1\nHost: shop.test\nX-Request-Id: {id}\nX-Forwarded-For: 203.0.113.9\n\
             X-Forwarded-Proto: https"
        ))
        .await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.get("X-Request-Id"), Some(id));
    assert_eq!(head.get("X-Forwarded-For"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(head.get("X-Forwarded-Proto"), Some("http"), "the client is not trusted");
    process.answer("").await;
    client.take().await;
    let line = edge.success(200).await;
    assert_eq!((&*line.request_id, &*line.forwarded), (id, &b"203.0.113.9, 127.0.0.1"[..]));
    assert_eq!(line.protocol, Protocol::Http);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let app = App::new("web.1").await;
    let settings =
        Settings { trusted: vec!["127.0.0.0/8".parse().unwrap()], ..Settings::default() };
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    let mut client = edge.client().await;
    client
        .send_head(
            "GET / HTTP/1.1\nHost: shop.test\nX-Forwarded-Proto: https\nX-Forwarded-Port: 443",
        )
        .await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.get("X-Forwarded-Proto"), Some("https"));
    assert_eq!(head.get("X-Forwarded-Port"), Some("443"));
    process.answer("").await;
    client.take().await;
    assert_eq!(edge.success(200).await.protocol, Protocol::Https);
}

#[tokio::test]
async fn an_answer_without_a_body_ends_with_its_head() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    let mut process: Option<Wire> = None;
    for (method, head, length) in [
        ("HEAD", "HTTP/1.1 200 OK\nContent-Length: 500", Some("500")),
        ("HEAD", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", None),
        ("GET", "HTTP/1.1 204 No Content", None),
        ("GET", "HTTP/1.1 304 Not Modified\nContent-Length: 7", Some("7")),
        ("GET", "HTTP/1.1 200 OK\nContent-Length: 0", Some("0")),
    ] {
        client.send_head(&format!("{method} / HTTP/1.1\nHost: shop.test")).await;
        let mut wire = match process.take() {
            Some(wire) => wire,
            None => app.accept().await,
        };
        wire.head().await;
        wire.send_head(head).await;
        assert_eq!(client.head().await.get("Content-Length"), length, "{head}");
        let line = edge.line().await;
        assert_eq!((line.code, line.bytes), (None, 0), "{head}");
        process = Some(wire);
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_what_it_understands() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.send_head("GET / HTTP/1.0\nHost: shop.test").await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.line, "GET / HTTP/1.1");
    process.send_head("HTTP/1.1 103 Early Hints\nLink: x").await;
    process.send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked").await;
    process.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;
    let answer = client.take().await;
    assert_eq!((answer.status, &*answer.body), (200, "abcde"));
    assert_eq!(answer.head.get("Transfer-Encoding"), None);
    assert_eq!(answer.head.get("Connection"), Some("close"));
    assert_eq!(edge.success(200).await.bytes, 5);
}

#[tokio::test]
async fn a_host_without_a_route_is_misdirected() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.send_head("GET / HTTP/1.1\nHost: other.test\nAccept: application/json").await;
    let answer = client.take().await;
    assert_eq!(answer.status, 421);
    assert_eq!(answer.head.get("Content-Type"), Some("application/json"));
    let line = edge.failure("H31", 421).await;
    assert!(answer.body.contains("\"code\":\"H31\""), "{}", answer.body);
    assert!(answer.body.contains(&line.request_id), "{}", answer.body);
    assert_eq!(answer.head.get("X-Request-Id"), Some(&*line.request_id));
    assert_eq!(line.bytes, answer.body.len() as u64);
    assert!(line.process.is_none());
    // The connection goes on.
    client.get("/").await;
    let (mut process, _) = app.request().await;
    process.answer("x").await;
    assert_eq!(client.take().await.body, "x");
}
