use std::sync::Arc;

use super::*;
use crate::line::{Marks, Source, Stream};

fn line(text: &[u8]) -> Line {
    Line {
        time: Micros(1_767_268_800_123_456),
        source: Source::App,
        process: Arc::from("web.1"),
        release: None,
        stream: Stream::Out,
        marks: Marks::default(),
        text: text.to_vec(),
    }
}

fn view(form: Form, line: &Line) -> String {
    let mut out = Vec::new();
    View::new(form).write(line, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

const PLAIN: Form = Form::Text { color: false, terminal: false };
const TERMINAL: Form = Form::Text { color: false, terminal: true };
const COLOR: Form = Form::Text { color: true, terminal: true };

#[test]
fn text_is_the_contract_s() {
    assert_eq!(
        view(PLAIN, &line(b"hello")),
        "2026-01-01T12:00:00.123456+00:00 app[web.1]: hello\n"
    );
    let marks = Marks { more: true, continued: true, long: true };
    assert!(view(PLAIN, &Line { marks, ..line(b"x") }).ends_with(" …x…\n"));
}

#[test]
fn a_log_cannot_drive_the_terminal() {
    let nasty = line(b"a\x1b]0;title\x07\x1b[31mred\tb\r\xff\xc2\x9b2J\xe2\x80\xae");
    let tail = |form| view(form, &nasty).split_once("]: ").unwrap().1.to_owned();
    assert_eq!(
        tail(TERMINAL),
        "a\\x1b]0;title\\x07\\x1b[31mred\tb\\x0d\\xff\\xc2\\x9b2J\\xe2\\x80\\xae\n"
    );
    let colored = view(COLOR, &nasty);
    assert!(colored.contains("\\x07\x1b[31mred"), "{colored:?}");
    assert!(colored.ends_with("\x1b[0m\n"), "{colored:?}");
    assert_eq!(color_of("web.1"), color_of("web.22"));
}

#[test]
fn json_is_lossless() {
    let parse = |line: &Line| -> serde_json::Value {
        serde_json::from_str(&view(Form::Json, line)).unwrap()
    };
    let value = parse(&line(b"a\"\\\n\0 \xc3\xa9"));
    assert_eq!(value["text"], "a\"\\\n\0 é");
    assert_eq!(value["time"], "2026-01-01T12:00:00.123456Z");
    assert!(value.get("base64").is_none());
    let value = parse(&line(b"\xff\xfe!a"));
    assert_eq!(value["base64"], "//4hYQ==");
    assert_eq!(value["text"], "\u{fffd}\u{fffd}!a");
    let mut out = Vec::new();
    base64(b"abcdef", &mut out);
    assert_eq!(out, b"YWJjZGVm");
}

#[test]
fn a_line_says_whose_it_is_where_there_are_many() {
    let write = |form| {
        let mut out = Vec::new();
        View::new(form).write_of(Some("shop/production"), &line(b"hello"), &mut out);
        String::from_utf8(out).unwrap()
    };
    let text = write(PLAIN);
    assert_eq!(text, "2026-01-01T12:00:00.123456+00:00 shop/production app[web.1]: hello\n");
    let json: serde_json::Value = serde_json::from_str(&write(Form::Json)).unwrap();
    assert_eq!(json["deploy"], "shop/production");
    assert_eq!(json["source"], "app");
}
