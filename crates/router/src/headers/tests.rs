use proptest::prelude::*;

use super::*;
use crate::head::{RequestHead, ResponseHead};

fn sent(text: &str, trusted: bool) -> String {
    let raw = text.replace('\n', "\r\n").into_bytes();
    let request = Request::understand(RequestHead::parse(raw.into()).unwrap()).unwrap();
    let forwarded = forwarded_for(&request.head.fields, "203.0.113.9".parse().unwrap());
    let origin = Origin {
        trusted,
        protocol: Protocol::Http,
        port: 8080,
        start: 1_700_000_000_123,
        request_id: "the-id",
        forwarded: &forwarded,
    };
    let mut out = Vec::new();
    super::request(&mut out, &request, &origin);
    String::from_utf8(out).unwrap().replace("\r\n", "\n")
}

const OWN_FIELDS: &str = "X-Forwarded-For: 203.0.113.9\nX-Forwarded-Proto: http\n\
    X-Forwarded-Port: 8080\nX-Forwarded-Host: Shop:8080\nX-Request-Start: 1700000000123\n\
    X-Request-Id: the-id\nVia: 1.1 tolv\n\n";

#[test]
fn a_request_goes_on_with_the_routers_own_fields() {
    assert_eq!(
        sent(
            "GET http://Shop:8080/a?b HTTP/1.1\nX-A: 1\nhost: Shop:8080\nx-a: 2\nVia: 1.0 x\n\n",
            false
        ),
        format!("GET /a?b HTTP/1.1\nHost: Shop:8080\nX-A: 1\nx-a: 2\nVia: 1.0 x\n{OWN_FIELDS}")
    );
}

#[test]
fn fields_of_one_connection_stay_there() {
    assert_eq!(
        sent(
            "GET / HTTP/1.1\nHost: Shop:8080\nConnection: close, X-Hop, Cookie\nX-Hop: 1\nCookie: c\n\
             Keep-Alive: 5\nProxy-Connection: x\nProxy-Authorization: x\nTE: gzip\nUpgrade: h2c\n\
             HTTP2-Settings: x\n\n",
            false,
        ),
        format!("GET / HTTP/1.1\nHost: Shop:8080\nCookie: c\n{OWN_FIELDS}")
    );
}

#[test]
fn a_client_cannot_say_who_it_is() {
    let claims = "GET / HTTP/1.1\nHost: Shop:8080\nX-Forwarded-Proto: https\nX_Forwarded_Port: 443\n\
        Transfer_Encoding: chunked\nContent_Length: 5\n\
        x-forwarded-HOST: evil\nX-Request-Start: 1\nX-Request_Id: forged\nProxy: http://evil\n\n";
    assert_eq!(sent(claims, false), format!("GET / HTTP/1.1\nHost: Shop:8080\n{OWN_FIELDS}"));
}

#[test]
fn a_trusted_peer_is_believed_and_the_chain_goes_on() {
    let text = sent(
        "GET / HTTP/1.1\nHost: a\nX-Forwarded-For: 198.51.100.1\nX-Forwarded-For: 198.51.100.2\n\
         X-Forwarded-Proto: https\nX-Forwarded-Port: 443\n\n",
        true,
    );
    for field in [
        "X-Forwarded-For: 198.51.100.1, 198.51.100.2, 203.0.113.9\n",
        "X-Forwarded-Proto: https\n",
        "X-Forwarded-Port: 443\n",
        "X-Forwarded-Host: a\n",
    ] {
        assert!(text.contains(field), "{field} in {text}");
    }
}

#[test]
fn the_framing_is_written_anew() {
    let post = |fields: &str| sent(&format!("POST / HTTP/1.1\nHost: a\n{fields}\n"), false);
    assert!(post("content-length: 005\n").contains("\nContent-Length: 5\n"));
    let chunked = post("transfer-encoding: CHUNKED\nTE: trailers\nConnection: TE\n");
    assert!(chunked.contains("\nTransfer-Encoding: chunked\n"), "{chunked}");
    assert!(chunked.contains("\nTE: trailers\nConnection: TE\n"), "{chunked}");
    let upgrade = post("connection: upgrade, x\nupgrade: websocket\nx: y\n");
    assert!(upgrade.contains("\nHost: a\nUpgrade: websocket\nConnection: Upgrade\n"), "{upgrade}");
    let old = sent("POST / HTTP/1.0\nExpect: 100-continue\nContent-Length: 1\n\n", false);
    assert!(!old.contains("Expect") && old.contains("\nVia: 1.0 tolv\n"), "{old}");
    assert!(post("Expect: 100-continue\nContent-Length: 1\n").contains("\nExpect: 100-continue\n"));
}

fn answered(text: &str, modern: bool, close: bool, to_head: bool) -> String {
    let raw = format!("{}\r\n\r\n", text.replace('\n', "\r\n")).into_bytes();
    let response = Response::understand(ResponseHead::parse(raw.into()).unwrap(), to_head).unwrap();
    let mut out = Vec::new();
    super::response(&mut out, &response, Client { modern, close, to_head });
    String::from_utf8(out).unwrap().replace("\r\n", "\n")
}

#[test]
fn an_answer_is_framed_for_the_client_it_goes_to() {
    let ok = "HTTP/1.1 200 OK\n";
    for (fields, modern, close, to_head, wanted) in [
        ("A: b\nContent-Length: 5", true, false, false, "A: b\nContent-Length: 5\n\n"),
        (
            "Content-Length: 5\nConnection: close, A\nA: b",
            true,
            false,
            false,
            "Content-Length: 5\n\n",
        ),
        ("Content-Length: 5", true, true, false, "Content-Length: 5\nConnection: close\n\n"),
        ("Content-Length: 5", false, false, false, "Content-Length: 5\nConnection: keep-alive\n\n"),
        ("A: b", true, false, false, "A: b\nTransfer-Encoding: chunked\n\n"),
        ("Transfer-Encoding: chunked", true, false, false, "Transfer-Encoding: chunked\n\n"),
        ("Transfer-Encoding: chunked", false, true, false, "Connection: close\n\n"),
        ("Content-Length: 5", true, false, true, "Content-Length: 5\n\n"),
        ("Transfer-Encoding: chunked", true, false, true, "Transfer-Encoding: chunked\n\n"),
        ("A: b", true, false, true, "A: b\n\n"),
    ] {
        let text = answered(&format!("{ok}{fields}"), modern, close, to_head);
        assert_eq!(text, format!("{ok}{wanted}"), "{fields}");
    }
    let empty = answered("HTTP/1.1 204 No Content\nContent-Length: 5", true, false, false);
    assert_eq!(empty, "HTTP/1.1 204 No Content\n\n");
    let same = answered("HTTP/1.0 304 \nContent-Length: 5\nETag: x", true, false, false);
    assert_eq!(same, "HTTP/1.1 304 \nETag: x\nContent-Length: 5\n\n");
}

#[test]
fn only_harmless_fields_trail() {
    assert!(may_trail(b"X-Checksum") && may_trail(b"Server-Timing"));
    for name in
        ["Content-Length", "transfer-encoding", "Host", "X_Forwarded_For", "Cookie", "Trailer"]
    {
        assert!(!may_trail(name.as_bytes()), "{name}");
    }
}

/// Fields that frame, route or forge, and others.
fn any_field() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Host",
        "TE",
        "Upgrade",
        "X-Forwarded-For",
        "X_Forwarded_Proto",
        "X-Request-Id",
        "Proxy",
        "Expect",
        "X-Other",
    ]);
    let value = prop::sample::select(vec![
        "",
        "0",
        "5",
        "05",
        "5, 5",
        "chunked",
        "Chunked",
        "gzip, chunked",
        "close",
        "keep-alive",
        "upgrade",
        "Content-Length",
        "Transfer-Encoding, Host",
        "trailers",
        "websocket",
        "a",
        "b",
        "100-continue",
        "x\ty",
    ]);
    (name, value).prop_map(|(name, value)| format!("{name}: {value}\n"))
}

proptest! {
    #[test]
    fn what_is_sent_on_is_understood_in_one_way_and_as_it_came(
        fields in prop::collection::vec(any_field(), 0..6),
        method in prop::sample::select(vec!["GET", "POST", "HEAD"]),
        target in prop::sample::select(vec!["/", "/a?b", "http://a/c", "http://b"]),
        minor in 0..2,
    ) {
        let text = format!("{method} {target} HTTP/1.{minor}\nHost: a\n{}\n", fields.concat());
        let raw = text.replace('\n', "\r\n").into_bytes();
        let head = RequestHead::parse(raw.into()).unwrap();
        let Ok(before) = Request::understand(head) else { return Ok(()) };
        let written = sent(&text, false);
        let head = RequestHead::parse(written.replace('\n', "\r\n").into_bytes().into()).unwrap();
        let after = Request::understand(head).unwrap();
        prop_assert_eq!(before.framing, after.framing);
        prop_assert_eq!(before.upgrade, after.upgrade);
        prop_assert_eq!(before.path, after.path);
        prop_assert_eq!(before.host.unwrap_or_default(), after.host.unwrap());
        for own in OWN.iter().filter(|own| **own != "proxy") {
            prop_assert_eq!(after.head.fields.iter().filter(|(name, _)| is_own_as(own, name)).count(), 1);
        }
        for gone in ["proxy", "keep-alive"] {
            prop_assert!(after.head.fields.first(gone).is_none());
        }
    }
}

fn is_own_as(own: &str, name: &[u8]) -> bool {
    let name = String::from_utf8(name.to_ascii_lowercase()).unwrap();
    name.replace('_', "-") == own
}
