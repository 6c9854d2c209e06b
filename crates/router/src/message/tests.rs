use super::*;
use crate::head::{Limits, Scanner, Sender};

const LIMITS: Limits = Limits { line: 8192, headers: 100, head: 65_536 };

fn request(text: &str) -> Result<Request, Bad> {
    let bytes = text.replace('\n', "\r\n").into_bytes();
    let length = Scanner::default().find(&bytes, &LIMITS, Sender::Client)?;
    assert_eq!(length, Some(bytes.len()), "{text}");
    Request::understand(RequestHead::parse(bytes.into())?)
}

fn get(fields: &str) -> Result<Request, Bad> {
    request(&format!("GET / HTTP/1.1\nHost: a\n{fields}\n"))
}

fn answer(text: &str, to_head: bool) -> Result<Response, Bad> {
    let bytes = format!("{}\r\n\r\n", text.replace('\n', "\r\n")).into_bytes();
    Response::understand(ResponseHead::parse(bytes.into())?, to_head)
}

#[test]
fn a_body_ends_where_exactly_one_field_says() {
    assert_eq!(get("").unwrap().framing, Framing::Empty);
    assert_eq!(get("Content-Length: 0\n").unwrap().framing, Framing::Length(0));
    assert_eq!(
        get("content-length: 18446744073709551615\n").unwrap().framing,
        Framing::Length(u64::MAX)
    );
    assert_eq!(get("Transfer-Encoding: Chunked\n").unwrap().framing, Framing::Chunked);
}

#[test]
fn an_ambiguous_body_is_refused() {
    for fields in [
        "Content-Length: 5\nContent-Length: 5\n",
        "Content-Length: 5\nContent-Length: 6\n",
        "Content-Length: 5, 5\n",
        "Content-Length: +5\n",
        "Content-Length: -5\n",
        "Content-Length: 0x5\n",
        "Content-Length: 5 5\n",
        "Content-Length:\n",
        "Content-Length: 18446744073709551616\n",
        "Content-Length: 5\nTransfer-Encoding: chunked\n",
        "Transfer-Encoding: chunked\nContent-Length: 5\n",
        "Transfer-Encoding: gzip, chunked\n",
        "Transfer-Encoding: chunked, chunked\n",
        "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n",
        "Transfer-Encoding: chunked\nTransfer-Encoding: identity\n",
        "Transfer-Encoding: identity\n",
        "Transfer-Encoding: xchunked\n",
        "Transfer-Encoding: \"chunked\"\n",
        "Transfer-Encoding: chunked;a=b\n",
        "Transfer-Encoding:\n",
    ] {
        assert!(get(fields).is_err(), "{fields}");
    }
    assert_eq!(
        request("POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n").unwrap_err(),
        Bad("Transfer-Encoding in HTTP/1.0")
    );
}

#[test]
fn the_target_and_the_host_agree() {
    for (text, host, path) in [
        ("GET /a?b HTTP/1.1\nHost: Shop:80\n\n", Some("Shop:80"), "/a?b"),
        ("GET / HTTP/1.1\nHost: [::1]\n\n", Some("[::1]"), "/"),
        ("GET / HTTP/1.1\nHost: [::1]:80\n\n", Some("[::1]:80"), "/"),
        ("GET //a HTTP/1.1\nHost: a\n\n", Some("a"), "//a"),
        ("GET / HTTP/1.1\nHost:\n\n", Some(""), "/"),
        ("GET / HTTP/1.0\n\n", None, "/"),
        ("GET / HTTP/1.1\nHost: [::1]:8080\n\n", Some("[::1]:8080"), "/"),
        ("GET http://a/b?c HTTP/1.1\nHost: A\n\n", Some("a"), "/b?c"),
        ("GET HTTP://a:81 HTTP/1.0\n\n", Some("a:81"), "/"),
        ("GET http://a?b HTTP/1.1\nHost: a\n\n", Some("a"), "/?b"),
        ("OPTIONS * HTTP/1.1\nHost: a\n\n", Some("a"), "*"),
    ] {
        let request = request(text).unwrap();
        assert_eq!((request.host.as_deref(), &*request.path), (host, path.as_bytes()), "{text}");
    }
    for (text, why) in [
        ("GET / HTTP/1.1\n\n", "no Host"),
        ("GET / HTTP/1.1\nHost: a\nHost: a\n\n", "more than one Host"),
        ("GET / HTTP/1.0\nHost: a\nHost: b\n\n", "more than one Host"),
        ("GET / HTTP/1.1\nHost: a b\n\n", "bad Host"),
        ("GET / HTTP/1.1\nHost: a/b\n\n", "bad Host"),
        ("GET / HTTP/1.1\nHost: a@b\n\n", "bad Host"),
        ("GET / HTTP/1.1\nHost: a:evil\n\n", "bad Host"),
        ("GET http://a:8a/ HTTP/1.1\nHost: a:8a\n\n", "bad Host"),
        ("GET http://b/ HTTP/1.1\nHost: a\n\n", "Host differs from the request target"),
        ("GET http:///a HTTP/1.1\nHost: a\n\n", "bad request target"),
        ("GET a HTTP/1.1\nHost: a\n\n", "bad request target"),
        ("GET * HTTP/1.1\nHost: a\n\n", "bad request target"),
        ("GET ftp://a/ HTTP/1.1\nHost: a\n\n", "bad request target"),
        ("CONNECT a:443 HTTP/1.1\nHost: a\n\n", "CONNECT"),
    ] {
        assert_eq!(request(text).unwrap_err(), Bad(why), "{text}");
    }
}

#[test]
fn a_connection_stays_unless_somebody_cannot() {
    assert!(!get("").unwrap().close);
    assert!(get("Connection: x, Close\n").unwrap().close);
    assert!(request("GET / HTTP/1.0\n\n").unwrap().close);
    assert!(!request("GET / HTTP/1.0\nConnection: Keep-Alive\n\n").unwrap().close);
}

#[test]
fn an_upgrade_is_asked_for_in_full_and_is_not_http_2() {
    assert!(get("Connection: Upgrade\nUpgrade: websocket\n").unwrap().upgrade);
    assert!(!get("Upgrade: websocket\n").unwrap().upgrade);
    assert!(!get("Connection: upgrade\n").unwrap().upgrade);
    assert!(!get("Connection: upgrade\nUpgrade: h2c\n").unwrap().upgrade);
    assert!(!get("Connection: upgrade\nUpgrade: x\nContent-Length: 1\n").unwrap().upgrade);
}

#[test]
fn only_what_does_no_harm_is_sent_twice() {
    let repeatable =
        |method| request(&format!("{method} / HTTP/1.1\nHost: a\n\n")).unwrap().is_repeatable();
    assert!(repeatable("GET") && repeatable("HEAD") && repeatable("DELETE"));
    assert!(!repeatable("POST") && !repeatable("PATCH") && !repeatable("get"));
    assert!(!get("Content-Length: 1\n").unwrap().is_repeatable());
    assert!(!get("Connection: upgrade\nUpgrade: x\n").unwrap().is_repeatable());
}

#[test]
fn an_answers_body_follows_from_its_status_and_the_method() {
    for (text, to_head, framing, keeps_open) in [
        ("HTTP/1.1 200 OK\nContent-Length: 5", false, Framing::Length(5), true),
        ("HTTP/1.1 200 OK\nContent-Length: 5, 5", false, Framing::Length(5), true),
        ("HTTP/1.1 200 OK\nContent-Length: 5", true, Framing::Empty, true),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", false, Framing::Chunked, true),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", true, Framing::Empty, true),
        ("HTTP/1.1 200 OK", false, Framing::Close, false),
        ("HTTP/1.1 204 No Content\nContent-Length: 5", false, Framing::Empty, true),
        ("HTTP/1.1 304 Not Modified\nContent-Length: 5", false, Framing::Empty, true),
        ("HTTP/1.1 100 Continue", false, Framing::Empty, true),
        ("HTTP/1.1 200 OK\nContent-Length: 5\nConnection: close", false, Framing::Length(5), false),
        ("HTTP/1.0 200 OK\nContent-Length: 5", false, Framing::Length(5), false),
        (
            "HTTP/1.0 200 OK\nContent-Length: 5\nConnection: keep-alive",
            false,
            Framing::Length(5),
            true,
        ),
    ] {
        let answer = answer(text, to_head).unwrap();
        assert_eq!((answer.framing, answer.keeps_open), (framing, keeps_open), "{text}");
    }
    for text in [
        "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6",
        "HTTP/1.1 200 OK\nContent-Length: x",
        "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\nTransfer-Encoding: gzip",
        "HTTP/1.0 200 OK\nTransfer-Encoding: chunked",
    ] {
        assert!(answer(text, false).is_err(), "{text}");
    }
}
