use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { line: 8192, headers: 1000, head: 262_144 };

/// Finds and takes apart a request's head as a connection would.
fn request(bytes: &[u8]) -> Result<RequestHead, Bad> {
    let length = Scanner::default().find(bytes, &LIMITS, Sender::Client)?;
    let length = length.ok_or(Bad("incomplete"))?;
    RequestHead::parse(Bytes::copy_from_slice(&bytes[..length]))
}

fn response(bytes: &[u8]) -> Result<ResponseHead, Bad> {
    let length = Scanner::default().find(bytes, &LIMITS, Sender::Process)?;
    let length = length.ok_or(Bad("incomplete"))?;
    ResponseHead::parse(Bytes::copy_from_slice(&bytes[..length]))
}

#[test]
fn a_request_is_taken_apart() {
    let head =
        request(b"GET /a?b HTTP/1.1\r\nHost: shop\r\nX-A:\t b c \r\nX-Empty:\r\n\r\nrest").unwrap();
    assert_eq!((&*head.method, &*head.target, head.minor), (&b"GET"[..], &b"/a?b"[..], 1));
    let fields: Vec<_> = head.fields.iter().collect();
    assert_eq!(fields, [(&b"Host"[..], &b"shop"[..]), (b"X-A", b"b c"), (b"X-Empty", b"")]);
    assert_eq!(head.fields.first("x-a"), Some(&b"b c"[..]));
    assert_eq!(head.fields.first("x-b"), None);
}

#[test]
fn lists_go_over_lines_and_skip_empty_items() {
    let head = request(b"GET / HTTP/1.0\r\nTE: a,, B \r\nte: ,c\r\n\r\n").unwrap();
    assert_eq!(head.fields.list("te").collect::<Vec<_>>(), [&b"a"[..], b"B", b"c"]);
    assert!(head.fields.lists("te", "b") && !head.fields.lists("te", "d"));
    assert_eq!(head.minor, 0);
}

#[test]
fn what_two_readers_could_read_two_ways_is_refused() {
    for (bytes, why) in [
        (&b"\x16\x03\x01\r\n\r\n"[..], "no method"),
        (b" GET / HTTP/1.1\r\n\r\n", "no method"),
        (b"GET / HTTP/1.1\nHost: a\n\n", "bare line feed"),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", "bare line feed"),
        (b"GET  / HTTP/1.1\r\n\r\n", "bad request line"),
        (b"GET / HTTP/1.1 \r\n\r\n", "bad request line"),
        (b"GET /\r\n\r\n", "bad request line"),
        (b"G(T / HTTP/1.1\r\n\r\n", "bad method"),
        (b"GET /\0 HTTP/1.1\r\n\r\n", "bad request target"),
        (b"GET /\rx HTTP/1.1\r\n\r\n", "bad request target"),
        (b"GET / HTTP/2.0\r\n\r\n", "not HTTP/1"),
        (b"GET / HTTP/1.01\r\n\r\n", "not HTTP/1"),
        (b"GET / http/1.1\r\n\r\n", "not HTTP/1"),
        (b"GET / HTTP/1.1\r\n folded: a\r\n\r\n", "folded header line"),
        (b"GET / HTTP/1.1\r\na: b\r\n\tc\r\n\r\n", "folded header line"),
        (b"GET / HTTP/1.1\r\nnothing\r\n\r\n", "header without a colon"),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", "bad header name"),
        (b"GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n", "bad header name"),
        (b"GET / HTTP/1.1\r\nTransfer\x0bEncoding: a\r\n\r\n", "bad header name"),
        (b"GET / HTTP/1.1\r\na: b\0c\r\n\r\n", "control byte in a header"),
        (b"GET / HTTP/1.1\r\na: b\rc: d\r\n\r\n", "control byte in a header"),
        (b"GET / HTTP/1.1\r\na: b\x7f\r\n\r\n", "control byte in a header"),
    ] {
        assert_eq!(request(bytes).unwrap_err(), Bad(why), "{}", bytes.escape_ascii());
    }
}

#[test]
fn limits_are_told_before_the_head_is_whole() {
    let find = |bytes: &[u8]| Scanner::default().find(bytes, &LIMITS, Sender::Client);
    let line = |length: usize| [b"GET /".to_vec(), vec![b'a'; length - 5]].concat();
    assert_eq!(find(&line(8192)), Ok(None));
    assert_eq!(find(&[&line(8192)[..], b"\r"].concat()), Ok(None));
    assert_eq!(find(&line(8194)), Err(Bad("request line too long")));
    assert_eq!(find(&[&line(8193)[..], b"\r\n"].concat()), Err(Bad("request line too long")));
    let header =
        |length: usize| [b"GET / HTTP/1.1\r\na:".to_vec(), vec![b'a'; length - 2]].concat();
    assert_eq!(find(&header(8192)), Ok(None));
    assert_eq!(find(&header(8194)), Err(Bad("header line too long")));
    let headers =
        |count: usize| [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(count)].concat();
    assert_eq!(find(&headers(1000)), Ok(None));
    assert_eq!(find(&headers(1001)), Err(Bad("too many headers")));
    let long =
        [b"GET / HTTP/1.1\r\n".to_vec(), [&b"a: "[..], &[b'b'; 8000], b"\r\n"].concat().repeat(40)];
    assert_eq!(find(&long.concat()), Err(Bad("head too long")));
}

#[test]
fn an_answer_may_end_its_lines_in_a_bare_line_feed() {
    let head = response(b"HTTP/1.1 200 All right\nA: b\n\n").unwrap();
    assert_eq!((head.status, &*head.reason, head.minor), (200, &b"All right"[..], 1));
    assert_eq!(head.fields.first("a"), Some(&b"b"[..]));
    assert_eq!(response(b"HTTP/1.0 204\r\n\r\n").unwrap().status, 204);
    assert_eq!(response(b"HTTP/1.1 404 \r\n\r\n").unwrap().reason, "");
}

#[test]
fn an_answer_that_is_not_http_is_refused() {
    for (bytes, why) in [
        (&b"SSH-2.0-x"[..], "not HTTP/1"),
        (b"HTTP/2", "not HTTP/1"),
        (b"HTTP/1.x 200 OK\r\n\r\n", "not HTTP/1"),
        (b"HTTP/1.1\r\n\r\n", "bad status line"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "bad status"),
        (b"HTTP/1.1 099 OK\r\n\r\n", "bad status"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "bad status"),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", "control byte in the status line"),
        (b"HTTP/1.1 200 OK\r\nSet-Cookie: a\rb: c\r\n\r\n", "control byte in a header"),
        (b"HTTP/1.1 200 OK\r\na : b\r\n\r\n", "bad header name"),
    ] {
        assert_eq!(response(bytes).unwrap_err(), Bad(why), "{}", bytes.escape_ascii());
    }
}

/// Bytes that look like a head, most of the time.
fn headlike() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Content-Length: 1".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b" :\t".to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        bytes in headlike(), cuts in prop::collection::vec(0_usize..100, 0..6), client: bool,
    ) {
        let sender = if client { Sender::Client } else { Sender::Process };
        let whole = Scanner::default().find(&bytes, &LIMITS, sender);
        let mut scanner = Scanner::default();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut pieces = Ok(None);
        for cut in cuts {
            pieces = scanner.find(&bytes[..cut], &LIMITS, sender);
            if !matches!(pieces, Ok(None)) {
                break;
            }
        }
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn a_found_head_ends_in_an_empty_line_and_nothing_in_it_is_a_line_of_its_own(
        bytes in headlike(),
    ) {
        if let Ok(Some(length)) = Scanner::default().find(&bytes, &LIMITS, Sender::Client) {
            prop_assert!(bytes[..length].ends_with(b"\r\n\r\n") || &bytes[..length] == b"\r\n");
            let head = BytesMut::from(&bytes[..length]).freeze();
            if let Ok(head) = RequestHead::parse(head) {
                for (name, value) in head.fields.iter() {
                    prop_assert!(!name.is_empty() && name.iter().all(|byte| is_token(*byte)));
                    prop_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
                }
            }
        }
        if let Ok(Some(length)) = Scanner::default().find(&bytes, &LIMITS, Sender::Process) {
            drop(ResponseHead::parse(Bytes::copy_from_slice(&bytes[..length])));
        }
    }

    #[test]
    fn fields_come_back_as_they_were_written(
        fields in prop::collection::vec(("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", "([!-~]([ -~\t]{0,20}[!-~])?)?"), 0..20),
    ) {
        let mut bytes = b"PUT /x HTTP/1.1\r\n".to_vec();
        for (name, value) in &fields {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        let head = request(&bytes).unwrap();
        let read: Vec<_> = head.fields.iter().collect();
        let written: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        prop_assert_eq!(read, written);
    }
}
