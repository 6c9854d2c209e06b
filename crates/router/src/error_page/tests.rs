use super::*;
use crate::head::RequestHead;

fn fields(accept: &str) -> Fields {
    let raw = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n").into_bytes();
    RequestHead::parse(raw.into()).unwrap().fields
}

#[test]
fn json_comes_where_it_is_asked_for() {
    for (accept, json) in [
        ("application/json", true),
        ("application/problem+json, */*;q=0.1", true),
        ("text/html;q=0.5, application/json", true),
        ("text/html, application/json;q=0.9", false),
        ("text/html,application/xhtml+xml,*/*;q=0.8", false),
        ("application/json;q=0", false),
        ("application/json;q=nan", false),
        ("*/*", false),
        ("", false),
    ] {
        assert_eq!(wants_json(&fields(accept)), json, "{accept}");
    }
}

#[test]
fn a_page_carries_code_and_id_and_its_own_length() {
    let all = [
        (Code::H10, 503),
        (Code::H12, 503),
        (Code::H13, 503),
        (Code::H14, 503),
        (Code::H15, 503),
        (Code::H18, 503),
        (Code::H19, 503),
        (Code::H20, 503),
        (Code::H21, 503),
        (Code::H25, 502),
        (Code::H26, 400),
        (Code::H31, 421),
        (Code::H80, 503),
        (Code::H99, 503),
    ];
    for (code, status) in all {
        for accept in ["text/html", "application/json"] {
            let (answer, length) = render(code, "the-id", &fields(accept), false, true);
            let text = String::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {length}\r\n")), "{head}");
            assert!(head.ends_with("\r\nConnection: close"), "{head}");
            assert_eq!(body.len(), length);
            assert!(body.contains(&code.to_string()) && body.contains("the-id"), "{body}");
        }
    }
}

#[test]
fn an_answer_to_head_tells_the_length_alone() {
    let (whole, length) = render(Code::H14, "the-id", &Fields::default(), false, false);
    let (head, none) = render(Code::H14, "the-id", &Fields::default(), true, false);
    assert_eq!((none, head.len() + length), (0, whole.len()));
    assert!(whole.starts_with(&head) && head.ends_with(b"Connection: keep-alive\r\n\r\n"));
}
