use std::net::TcpListener;
use std::thread;

use super::*;

/// Answers one connection with these bytes once it has the head of a request; gives that back.
fn answer_once(answer: &'static [u8]) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut piece = [0; 512];
        while find(&head, b"\r\n\r\n").is_none() {
            let count = stream.read(&mut piece).unwrap();
            head.extend(&piece[..count]);
        }
        stream.write_all(answer).unwrap();
        String::from_utf8(head).unwrap()
    });
    (address, server)
}

#[test]
fn asks_and_reads_the_answer() {
    let (address, server) =
        answer_once(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Place: a: b\r\n\r\nhello");
    let response = get(address, "shop.localhost", "/a?b=c").unwrap();
    assert_eq!((response.status, &response.text()[..]), (200, "hello"));
    assert_eq!(response.header("x-place"), Some("a: b"));
    assert_eq!(response.header("x-other"), None);
    assert_eq!(
        server.join().unwrap(),
        "GET /a?b=c HTTP/1.1\r\nConnection: close\r\nHost: shop.localhost\r\n\r\n"
    );
}

#[test]
fn reads_every_kind_of_body() {
    let body = |answer: &[u8]| parse(answer, false).map(|response| response.text());
    let kind = |answer: &[u8]| body(answer).unwrap_err().kind();
    assert_eq!(body(b"HTTP/1.0 200 OK\r\n\r\nto the end").unwrap(), "to the end");
    let chunks =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    assert_eq!(body(chunks).unwrap(), "abc");
    assert_eq!(kind(&chunks[..chunks.len() - 8]), io::ErrorKind::UnexpectedEof);
    let long = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort";
    assert_eq!(kind(long), io::ErrorKind::UnexpectedEof);
    assert_eq!(parse(long, true).unwrap().body, b"");
    assert_eq!(
        body(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx").unwrap(),
        "x"
    );
    assert_eq!(kind(b"SSH-2.0\r\n\r\n"), io::ErrorKind::InvalidData);
    assert_eq!(kind(b""), io::ErrorKind::UnexpectedEof);
}

#[test]
fn gives_up_after_the_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let error = send(address, "GET", "/", &[], Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
}
