//! Requests that two readers could read two ways never reach a process.

use tolv_router::{Settings, State};

use crate::edge::Edge;
use crate::wire::App;

/// A request within a request, for whoever reads the outer one wrongly.
const INNER: &str = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";

#[tokio::test]
async fn an_ambiguous_head_is_refused_and_ends_the_connection() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let host = "Host: shop.test\r\n";
    for request in [
        format!(
            "POST /a HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}"
        ),
        format!(
            "POST /a HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{INNER}"
        ),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: 0\r\nContent-Length: 44\r\n\r\n{INNER}"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: 0, 44\r\n\r\n{INNER}"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: +44\r\n\r\n{INNER}"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length : 44\r\n\r\n{INNER}"),
        format!("POST /a HTTP/1.1\r\n{host}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{INNER}"),
        format!("POST /a HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{INNER}"),
        format!(
            "POST /a HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{INNER}"
        ),
        format!("POST /a HTTP/1.1\r\n{host}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{INNER}"),
        format!("POST /a HTTP/1.1\r\n{host}X: y\r\n Transfer-Encoding: chunked\r\n\r\n{INNER}"),
        format!("POST /a HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}"),
        format!("GET /a HTTP/1.1\r\n{host}{host}\r\n{INNER}"),
        format!("GET /a HTTP/1.1\r\n\r\n{INNER}"),
        format!("GET /a HTTP/1.1\n{host}\n{INNER}"),
        format!("GET /a HTTP/1.1\r\n{host}X: a\nY: b\r\n\r\n{INNER}"),
        format!("GET /a HTTP/1.1\r\n{host}X: a\rY: b\r\n\r\n{INNER}"),
        format!("GET /a HTTP/1.1\r\n{host}X: a\0b\r\n\r\n{INNER}"),
        format!("GET http://other.test/ HTTP/1.1\r\n{host}\r\n{INNER}"),
        format!("GET /a b HTTP/1.1\r\n{host}\r\n{INNER}"),
        format!("CONNECT shop.test:80 HTTP/1.1\r\n{host}\r\n{INNER}"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{INNER}"),
    ] {
        let mut client = edge.client().await;
        client.send(&request).await;
        let answer = client.take().await;
        assert_eq!(answer.status, 400, "{request}");
        assert_eq!(answer.head.get("Connection"), Some("close"));
        client.shut().await;
        client.closed().await;
        let line = edge.failure("H26", 400).await;
        assert!(line.detail.is_some() && line.process.is_none(), "{line}");
        edge.no_line();
    }
    // The first that any process hears of is this.
    let mut client = edge.client().await;
    client.get("/plain").await;
    assert_eq!(app.request().await.1.line, "GET /plain HTTP/1.1");
}

#[tokio::test]
async fn a_body_with_a_bad_chunk_is_cut_where_it_is_bad() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    for bad in [
        "2\r\nabc\r\n",
        "2 \r\nab\r\n",
        "2\nab\n",
        "x\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
    ] {
        let mut client = edge.client().await;
        client.send_head("POST / HTTP/1.1\nHost: shop.test\nTransfer-Encoding: chunked").await;
        client.send("3\r\nxyz\r\n").await;
        let (mut process, _) = app.request().await;
        assert_eq!(process.chunk().await, "xyz");
        client.send(format!("{bad}{INNER}")).await;
        let answer = client.take().await;
        assert_eq!(answer.status, 400, "{bad:?}");
        client.shut().await;
        client.closed().await;
        let seen = process.rest().await;
        assert!(!seen.contains("0\r\n\r\n") && !seen.contains("smuggled"), "{bad:?}: {seen:?}");
        edge.failure("H26", 400).await;
    }
}

#[tokio::test]
async fn the_framing_that_a_process_gets_is_the_routers_own() {
    let app = App::new("web.1").await;
    let edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    // A client can neither have the framing removed nor say it twice.
    client
        .send_head(
            "POST /a HTTP/1.1\nHost: shop.test\nConnection: Content-Length, Host, Transfer-Encoding\n\
             Content-Length: 003",
        )
        .await;
    client.send("abc").await;
    let (mut process, head) = app.request().await;
    assert_eq!((head.get("Content-Length"), head.get("Host")), (Some("3"), Some("shop.test")));
    assert_eq!(process.exact(3).await, "abc");
    process.answer("").await;
    client.take().await;
}

#[tokio::test]
async fn a_head_over_a_limit_is_refused_before_it_is_whole() {
    let app = App::new("web.1").await;
    let settings = Settings { line: 100, headers: 5, head: 400, ..Settings::default() };
    let mut edge = Edge::with(settings, State::Up, &[&app.backend]).await;
    for (head, detail) in [
        (format!("GET /{}", "a".repeat(100)), "request line too long"),
        (format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(100)), "header line too long"),
        (format!("GET / HTTP/1.1\r\n{}", "X: a\r\n".repeat(6)), "too many headers"),
        (
            format!("GET / HTTP/1.1\r\n{}", format!("X: {}\r\n", "a".repeat(90)).repeat(5)),
            "head too long",
        ),
    ] {
        let mut client = edge.client().await;
        client.send(&head).await;
        assert_eq!(client.take().await.status, 400, "{detail}");
        assert_eq!(edge.failure("H26", 400).await.detail, Some(detail));
    }
}
