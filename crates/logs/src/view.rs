//! Lines for eyes and for programs.
//!
//! Text: `2026-01-01T12:00:00.123456+00:00 app[web.1]: text`. A piece of a split line shows `…`
//! where it goes on. JSON: one object a line; `text` is the line, and where its bytes are not
//! UTF-8, `base64` has them all and `text` shows U+FFFD.
//!
//! On a terminal, control bytes show as `\x1b`: a log cannot move the cursor, set the title or
//! hide text. Colours (SGR sequences) pass where colour is on, and end with the line.

use std::io::Write as _;

use crate::line::{Line, Micros};
use crate::stamp::Stamp;

/// Which view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One line of text.
    Text {
        /// Colour per process type.
        color: bool,
        /// Control bytes made harmless.
        terminal: bool,
    },
    /// One JSON object.
    Json,
}

/// Writes lines in one form.
#[derive(Debug)]
pub struct View {
    form: Form,
    stamp: Stamp,
}

const RESET: &[u8] = b"\x1b[0m";
/// Cyan, yellow, green, magenta, blue and their bright forms: readable on dark and light.
const COLORS: [&[u8]; 10] = [
    b"\x1b[36m",
    b"\x1b[33m",
    b"\x1b[32m",
    b"\x1b[35m",
    b"\x1b[34m",
    b"\x1b[96m",
    b"\x1b[93m",
    b"\x1b[92m",
    b"\x1b[95m",
    b"\x1b[94m",
];

impl View {
    /// For one form.
    pub fn new(form: Form) -> Self {
        Self { form, stamp: Stamp::new() }
    }

    /// Appends the line and its `\n` to `out`.
    pub fn write(&mut self, line: &Line, out: &mut Vec<u8>) {
        self.write_of(None, line, out);
    }

    /// As [`View::write`], with the deploy that the line is of: `shop/production` before its
    /// source, or a key `deploy` of its own.
    pub fn write_of(&mut self, deploy: Option<&str>, line: &Line, out: &mut Vec<u8>) {
        match self.form {
            Form::Text { color, terminal } => self.text(deploy, line, color, terminal, out),
            Form::Json => self.json(deploy, line, out),
        }
        out.push(b'\n');
    }

    fn time(&mut self, time: Micros, zone: &[u8], out: &mut Vec<u8>) {
        self.stamp.write(time, out);
        out.extend(zone);
    }

    fn text(
        &mut self,
        deploy: Option<&str>,
        line: &Line,
        color: bool,
        terminal: bool,
        out: &mut Vec<u8>,
    ) {
        if color {
            out.extend(color_of(&line.process));
        }
        self.time(line.time, b"+00:00", out);
        if let Some(deploy) = deploy {
            out.push(b' ');
            out.extend(deploy.as_bytes());
        }
        for part in [" ", line.source.as_str(), "[", &line.process, "]:"] {
            out.extend(part.as_bytes());
        }
        if color {
            out.extend(RESET);
        }
        out.push(b' ');
        if line.marks.continued {
            out.extend("…".as_bytes());
        }
        if terminal {
            harmless(&line.text, color, out);
        } else {
            out.extend(&line.text);
        }
        if line.marks.more {
            out.extend("…".as_bytes());
        }
    }

    fn json(&mut self, deploy: Option<&str>, line: &Line, out: &mut Vec<u8>) {
        out.extend(b"{\"time\":\"");
        self.time(line.time, b"Z", out);
        if let Some(deploy) = deploy {
            out.extend(b"\",\"deploy\":\"");
            // A deploy's path has no character that JSON would escape.
            out.extend(deploy.as_bytes());
        }
        write!(out, "\",\"source\":\"{}\",\"process\":", line.source).ok();
        quote(&line.process, out);
        write!(out, ",\"stream\":\"{}\"", line.stream.as_str()).ok();
        if let Some(release) = line.release {
            write!(out, ",\"release\":{release}").ok();
        }
        if line.marks.more {
            out.extend(b",\"partial\":true");
        }
        if line.marks.continued {
            out.extend(b",\"continued\":true");
        }
        out.extend(b",\"text\":");
        match std::str::from_utf8(&line.text) {
            Ok(text) => quote(text, out),
            Err(_) => {
                quote(&String::from_utf8_lossy(&line.text), out);
                out.extend(b",\"base64\":\"");
                base64(&line.text, out);
                out.push(b'"');
            }
        }
        out.push(b'}');
    }
}

pub(crate) fn quote(text: &str, out: &mut Vec<u8>) {
    // A string into a Vec cannot fail.
    serde_json::to_writer(out, text).ok();
}

/// The same colour for every process of a type, whatever else runs.
fn color_of(process: &str) -> &'static [u8] {
    let kind = process.rsplit_once('.').map_or(process, |(kind, _)| kind);
    let hash = kind.bytes().fold(0usize, |hash, b| hash.wrapping_mul(31).wrapping_add(b.into()));
    COLORS[hash % COLORS.len()]
}

fn harmless(text: &[u8], color: bool, out: &mut Vec<u8>) {
    let mut colored = false;
    let escape = |bytes: &[u8], out: &mut Vec<u8>| {
        for byte in bytes {
            write!(out, "\\x{byte:02x}").ok();
        }
    };
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(letter) = rest.chars().next() {
            let (head, tail) = rest.split_at(letter.len_utf8());
            rest = tail;
            if letter == '\x1b'
                && color
                && let Some(length) = sgr(tail)
            {
                out.push(0x1b);
                out.extend(&tail.as_bytes()[..length]);
                rest = &tail[length..];
                colored = true;
            } else if hides(letter) {
                escape(head.as_bytes(), out);
            } else {
                out.extend(head.as_bytes());
            }
        }
        escape(chunk.invalid(), out);
    }
    if colored {
        out.extend(RESET);
    }
}

/// Controls but the tab, and the letters that turn the order of text around.
fn hides(letter: char) -> bool {
    (letter.is_control() && letter != '\t')
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Length of the rest of a colour sequence: `[`, digits and `;`, `m`.
fn sgr(tail: &str) -> Option<usize> {
    let body = tail.strip_prefix('[')?;
    let end = body.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    body[end..].starts_with('m').then_some(end + 2)
}

pub(crate) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let at = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { letter } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests;
