use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::line::{Marks, Micros};

fn deploy() -> Deploy {
    "shop/production".parse().unwrap()
}

fn line(source: Source, process: &str, stream: Stream, text: &[u8]) -> Line {
    Line {
        // 2026-01-01T12:00:00.000042Z
        time: Micros(1_767_268_800_000_042),
        source,
        process: process.into(),
        release: Some(3),
        stream,
        marks: Marks::default(),
        text: text.to_vec(),
    }
}

fn encoded(form: Form, line: &Line) -> String {
    let mut out = Vec::new();
    Encoder::new(form, &deploy()).message(line, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_strict_form_is_that_of_the_rfc() {
    let hello = line(Source::App, "web.1", Stream::Out, b"hello");
    assert_eq!(
        encoded(Form::Strict, &hello),
        "69 <14>1 2026-01-01T12:00:00.000042Z shop.production app web.1 - - hello"
    );
    let loud = line(Source::App, "web.1", Stream::Err, b"x");
    assert!(encoded(Form::Strict, &loud).contains(" <12>1 "));
    let code = line(Source::Tolv, "web.1", Stream::Out, b"Error R10 (Boot timeout)");
    assert!(encoded(Form::Strict, &code).contains(" <11>1 "));
    let own = line(Source::App, "web.1", Stream::Out, b"Error R10 (Boot timeout)");
    assert!(encoded(Form::Strict, &own).contains(" <14>1 "), "an app's words are its own");
}

#[test]
fn herokus_form_is_herokus() {
    let hello = line(Source::App, "web.1", Stream::Out, "grüß".as_bytes());
    assert_eq!(
        encoded(Form::Heroku, &hello),
        "75 <190>1 2026-01-01T12:00:00.000042+00:00 shop.production app web.1 - grüß\n"
    );
    let state = line(Source::Tolv, "web.1", Stream::Out, b"State changed");
    assert!(encoded(Form::Heroku, &state).contains(" <46>1 "));
    let access = line(Source::Tolv, "router", Stream::Out, b"at=info");
    assert!(encoded(Form::Heroku, &access).contains(" <158>1 "));
}

#[test]
fn a_mark_is_for_utf_8_beyond_ascii_alone() {
    let text = |bytes: &[u8]| {
        let mut out = Vec::new();
        let line = line(Source::App, "web.1", Stream::Out, bytes);
        Encoder::new(Form::Strict, &deploy()).message(&line, &mut out);
        let place = memchr::memmem::find(&out, b" - - ").unwrap();
        out[place + 5..].to_vec()
    };
    assert_eq!(text("é".as_bytes()), "\u{feff}é".as_bytes());
    assert_eq!(text(b"plain\x1b\0"), b"plain\x1b\0");
    assert_eq!(text(b"\xff\xfe"), b"\xff\xfe");
    assert_eq!(text(b""), b"");
}

/// Takes messages off a stream as RFC 6587 says.
fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let blank = memchr::memchr(b' ', bytes).unwrap();
        let length: usize = str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        let (message, rest) = bytes[blank + 1..].split_at(length);
        messages.push(message);
        bytes = rest;
    }
    messages
}

proptest! {
    /// Whatever lines hold: the lengths lead from one to the next, and the texts are all there.
    #[test]
    fn a_stream_comes_apart_where_it_was_put_together(
        lines in vec((any::<String>(), vec(any::<u8>(), 0..300), any::<i64>()), 0..20),
        heroku in any::<bool>(),
    ) {
        let form = if heroku { Form::Heroku } else { Form::Strict };
        let mut encoder = Encoder::new(form, &deploy());
        let mut out = Vec::new();
        for (process, text, time) in &lines {
            let mut line = line(Source::App, process, Stream::Out, text);
            line.time = Micros(*time);
            encoder.message(&line, &mut out);
        }
        let messages = split(&out);
        prop_assert_eq!(messages.len(), lines.len());
        for (message, (_, text, _)) in messages.iter().zip(&lines) {
            let fields: Vec<_> = message.splitn(if heroku { 7 } else { 8 }, |&b| b == b' ').collect();
            prop_assert!(fields[..6].iter().all(|field| field.iter().all(u8::is_ascii_graphic)));
            let last = fields[fields.len() - 1];
            let last = if heroku { &last[..last.len() - 1] } else { last };
            let bare = if heroku { last } else { last.strip_prefix(BOM).unwrap_or(last) };
            let wanted = if heroku { text } else { text.strip_prefix(BOM).unwrap_or(text) };
            prop_assert!(bare == wanted || last == *text);
            prop_assert!(fields[4].len() <= PROCESS && !fields[4].is_empty());
        }
    }
}
