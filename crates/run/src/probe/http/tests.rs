use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::*;

/// Answers one request with these pieces, each in a packet of its own; gives back the request.
fn app(pieces: &[&[u8]]) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap() == 0 {
                break;
            }
            request.push(byte[0]);
        }
        for piece in pieces {
            // Whoever asked may have heard enough.
            stream.write_all(&piece).ok();
        }
        String::from_utf8(request).unwrap()
    });
    (address, thread)
}

async fn answers_to(pieces: &[&[u8]]) -> Result<(), String> {
    let (address, thread) = app(pieces);
    let outcome = answers(TcpStream::connect(address).await.unwrap(), address).await;
    let request = thread.join().unwrap();
    assert!(request.starts_with("GET / HTTP/1.1\r\nHost: localhost:"), "{request}");
    outcome
}

async fn check(content: Option<&str>, pieces: &[&[u8]]) -> Result<(), String> {
    let (address, thread) = app(pieces);
    let stream = TcpStream::connect(address).await.unwrap();
    let outcome = Request { path: "/up?a=b", headers: &[], content }.send(stream, address).await;
    let request = thread.join().unwrap();
    assert!(request.starts_with("GET /up?a=b HTTP/1."), "{request}");
    outcome
}

fn refused<T>(outcome: Result<T, String>) -> String {
    outcome.err().unwrap_or_else(|| "it was taken".to_owned())
}

#[tokio::test]
async fn whatever_speaks_http_is_ready() {
    for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 503 Not Yet\r\n\r\nx", "HTTP/1.1 404"] {
        assert_eq!(answers_to(&[answer.as_bytes()]).await, Ok(()), "{answer}");
    }
    assert_eq!(answers_to(&[b"H", b"TTP", b"/1.1 200 OK\r\n\r\n"]).await, Ok(()));
    let much = vec![b'x'; 3_000_000];
    assert_eq!(answers_to(&[b"HTTP/1.1 200 OK\r\n\r\n", &much]).await, Ok(()));
}

#[tokio::test]
async fn whatever_does_not_is_not() {
    assert_eq!(refused(answers_to(&[b"SSH-2.0-x\r\n"]).await), "the answer is not HTTP");
    assert_eq!(refused(answers_to(&[]).await), "closed without an answer");
    assert_eq!(refused(answers_to(&[b"HTT"]).await), "closed without an answer");
}

#[tokio::test]
async fn a_check_wants_success_or_a_redirect() {
    for status in [200, 204, 302, 399] {
        let answer = format!("HTTP/1.1 {status} Fine\r\n\r\n");
        assert_eq!(check(None, &[answer.as_bytes()]).await, Ok(()), "{status}");
    }
    for status in [101, 400, 404, 500, 999] {
        let answer = format!("HTTP/1.1 {status} Not Fine\r\n\r\n");
        assert_eq!(refused(check(None, &[answer.as_bytes()]).await), format!("status {status}"));
    }
    assert_eq!(refused(check(None, &[b"HTTP/1.1 20"]).await), "closed without an answer");
    assert_eq!(refused(check(None, &[b"220 mail ready\r\n"]).await), "the answer is not HTTP");
}

#[tokio::test]
async fn a_check_may_want_a_text_in_the_body() {
    let head = b"HTTP/1.0 200 OK\r\nX-Word: hidden\r\n\r\n";
    assert_eq!(check(Some("all well"), &[head, b"we are al", b"l well\n"]).await, Ok(()));
    let missing = "the text is not in the body";
    assert_eq!(refused(check(Some("hidden"), &[head, b"nothing"]).await), missing);
    assert_eq!(refused(check(Some("x"), &[head]).await), missing);
    let failed = check(Some("x"), &[b"HTTP/1.0 500 No\r\n\r\nx"]).await;
    assert_eq!(refused(failed), "status 500");
}

#[test]
fn reads_a_status() {
    assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(Ok(204)));
    assert_eq!(status(b"HTTP/1.1 20"), None);
    assert!(status(b"SSH-2.0-OpenSSH_9").unwrap().is_err());
    assert!(status(b"HTTP/1.1 xyz rest").unwrap().is_err());
}

#[test]
fn a_header_stays_one_line_and_replaces_ours() {
    let headers = [("Host".to_owned(), "shop\r\nX: 1".to_owned())];
    let request = Request { path: "/a\r\nb", headers: &headers, content: None };
    let text = String::from_utf8(request.to_bytes(([127, 0, 0, 1], 1).into())).unwrap();
    assert!(text.starts_with("GET /ab HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("\r\nHost: shopX: 1\r\n"), "{text}");
    assert_eq!(text.matches("Host").count(), 1);
    assert!(text.ends_with("Connection: close\r\n\r\n"), "{text}");
}

#[test]
fn a_text_is_asked_for_unchunked() {
    let request = Request { path: "/", headers: &[], content: Some("x") };
    let text = request.to_bytes(([127, 0, 0, 1], 1).into());
    assert!(text.starts_with(b"GET / HTTP/1.0\r\n"));
}
