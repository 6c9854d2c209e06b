//! Bodies are passed on as they come, both ways.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::edge::{Edge, SHORT};
use crate::wire::{App, soon};

#[tokio::test]
async fn the_first_byte_of_an_answer_comes_before_its_last() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    for (field, first, rest) in [
        ("Content-Length: 6", "abc", "def"),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n", "3\r\ndef\r\n0\r\n\r\n"),
        ("X-Close: y\nConnection: close", "abc", "def"),
    ] {
        let mut client = edge.client().await;
        client.get("/").await;
        let (mut process, _) = app.request().await;
        process.send_head(&format!("HTTP/1.1 200 OK\n{field}")).await;
        let chunked = client.head().await.get("Transfer-Encoding").is_some();
        process.send(first).await;
        let came = if chunked { client.chunk().await } else { client.exact(3).await };
        assert_eq!(came, "abc", "{field}");
        process.send(rest).await;
        process.shut().await;
        let came = if chunked { client.chunks().await.0 } else { client.exact(3).await };
        assert_eq!(came, "def", "{field}");
        assert_eq!(edge.success(200).await.bytes, 6);
        drop(process);
    }
}

#[tokio::test]
async fn the_first_byte_of_a_request_goes_out_before_its_last_came() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 6").await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.get("Content-Length"), Some("6"));
    client.send("abc").await;
    assert_eq!(process.exact(3).await, "abc");
    client.send("def").await;
    assert_eq!(process.exact(3).await, "def");
    process.answer("1").await;
    assert_eq!(client.take().await.body, "1");

    client.send_head("POST / HTTP/1.1\nHost: shop.test\nTransfer-Encoding: chunked").await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.get("Transfer-Encoding"), Some("chunked"));
    client.send("2;ext=1\r\nab\r\n").await;
    assert_eq!(process.chunk().await, "ab");
    // The answer may begin before the request is over.
    process.send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked").await;
    process.send("1\r\n1\r\n").await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.chunk().await, "1");
    client.send("1\r\nc\r\n0\r\nX-Sum: 3\r\nHost: evil\r\n\r\n").await;
    assert_eq!(process.chunks().await, ("c".to_owned(), "X-Sum: 3\r\n".to_owned()));
    process.send("1\r\n2\r\n0\r\nX-Sum: 2\r\n\r\n").await;
    assert_eq!(client.chunks().await, ("2".to_owned(), "X-Sum: 2\r\n".to_owned()));
    edge.success(200).await;
    edge.success(200).await;
    // Both are over, so the connection goes on.
    client.get("/").await;
    process.head().await;
    process.answer("x").await;
    assert_eq!(client.take().await.body, "x");
}

#[tokio::test]
async fn a_client_may_wait_for_100_continue() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client
        .send_head("PUT / HTTP/1.1\nHost: shop.test\nContent-Length: 3\nExpect: 100-continue")
        .await;
    let (mut process, head) = app.request().await;
    assert_eq!(head.get("Expect"), Some("100-continue"));
    process.send_head("HTTP/1.1 100 Continue").await;
    assert_eq!(client.head().await.line, "HTTP/1.1 100 Continue");
    client.send("abc").await;
    assert_eq!(process.exact(3).await, "abc");
    process.answer("done").await;
    assert_eq!(client.take().await.body, "done");
    edge.success(200).await;
}

#[tokio::test]
async fn early_hints_go_through() {
    let app = App::new("web.1").await;
    let edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.get("/").await;
    let (mut process, _) = app.request().await;
    process.send_head("HTTP/1.1 103 Early Hints\nLink: </a.css>").await;
    let hints = client.head().await;
    assert_eq!((hints.status(), hints.get("Link")), (103, Some("</a.css>")));
    process.answer("x").await;
    assert_eq!(client.take().await.body, "x");
}

#[tokio::test]
async fn an_answer_that_refuses_the_body_arrives_whole() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 100000000").await;
    let (mut process, _) = app.request().await;
    client.send(vec![b'x'; 100_000]).await;
    process.send_head("HTTP/1.1 413 Too Large\nContent-Length: 3\nConnection: close").await;
    process.send("big").await;
    drop(process);
    // More than fits in any socket's buffer: it is read, so that nothing is reset.
    let answer = client.take().await;
    client.send(vec![b'x'; 8_000_000]).await;
    assert_eq!((answer.status, &*answer.body), (413, "big"));
    assert_eq!(answer.head.get("Connection"), Some("close"));
    client.shut().await;
    client.closed().await;
    edge.success(413).await;
}

#[tokio::test]
async fn a_large_body_goes_both_ways_at_once_and_unchanged() {
    const SIZE: usize = 8 << 20;
    let body: Vec<u8> = (0_u32..).map(|n| (n % 251).to_le_bytes()[0]).take(SIZE).collect();
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut client = edge.client().await;
    let (mut from, mut to) = client.stream.split();
    let upload = async {
        let head = format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {SIZE}\r\n\r\n");
        to.write_all(head.as_bytes()).await.unwrap();
        to.write_all(&body).await.unwrap();
    };
    let echo = async {
        let (mut process, _) = app.request().await;
        process.send_head(&format!("HTTP/1.1 200 OK\nContent-Length: {SIZE}")).await;
        let early = process.early();
        process.send(&early).await;
        let (from, mut to) = process.stream.split();
        let mut rest = from.take((SIZE - early.len()) as u64);
        tokio::io::copy(&mut rest, &mut to).await.unwrap();
    };
    let download = async {
        let mut read = Vec::new();
        let start = loop {
            assert!(from.read_buf(&mut read).await.unwrap() > 0);
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        while read.len() < start + SIZE {
            assert!(from.read_buf(&mut read).await.unwrap() > 0);
        }
        read.split_off(start)
    };
    let ((), (), read) = soon("the echo", async { tokio::join!(upload, echo, download) }).await;
    assert!(read == body);
    assert_eq!(edge.success(200).await.bytes, SIZE as u64);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_process_alone() {
    let app = App::new("web.1").await;
    let mut edge = Edge::before(&app).await;
    let mut slow = edge.client().await;
    slow.get("/").await;
    let (process, _) = app.request().await;
    process.stream.writable().await.unwrap();
    let mut sent = process.stream.try_write(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    // Once nothing moves for a while, every buffer on the way is full.
    let chunk = vec![b'x'; 1 << 20];
    while tokio::time::timeout(SHORT * 5, process.stream.writable()).await.is_ok() {
        if let Ok(count) = process.stream.try_write(&chunk) {
            sent += count;
        }
        assert!(sent < 256 << 20, "the router holds what nobody reads");
    }
    let mut quick = edge.client().await;
    quick.get("/").await;
    let (mut other, _) = app.request().await;
    other.answer("x").await;
    assert_eq!(quick.take().await.body, "x");
    edge.success(200).await;
}
