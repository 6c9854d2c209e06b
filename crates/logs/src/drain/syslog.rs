//! Syslog messages (RFC 5424), each behind its length (RFC 6587, octet counting).
//!
//! ```text
//! 77 <14>1 2026-01-01T12:00:00.123456Z shop.production app web.1 - - GET /cart 200
//!    PRI        time                   HOSTNAME    APP-NAME PROCID MSGID SD  MSG
//! ```
//!
//! Strict: facility user; severity info for standard output and the platform, warning for standard
//! error (where many programs write all that they say), error for the platform's error lines. A
//! text with letters beyond ASCII begins with a byte order mark, as the RFC wants it; bytes that
//! are not UTF-8 go as they are, without it.
//!
//! Heroku's form, which log services know: no STRUCTURED-DATA, no mark, a line feed behind each
//! message, and the priorities that Heroku's processes, router and platform have.

use std::io::Write as _;

use tolv_model::name::Deploy;

use super::Form;
use crate::line::{Line, Source, Stream};
use crate::stamp::Stamp;

const BOM: &[u8] = "\u{feff}".as_bytes();
/// RFC 5424's longest HOSTNAME and PROCID.
const HOST: usize = 255;
const PROCESS: usize = 128;

#[derive(Debug)]
pub(super) struct Encoder {
    form: Form,
    /// HOSTNAME, with the blank behind it.
    host: Vec<u8>,
    stamp: Stamp,
    head: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(form: Form, deploy: &Deploy) -> Self {
        let mut host = Vec::new();
        // No name of an app has a dot in it.
        name(&format!("{}.{}", deploy.app, deploy.name), HOST, &mut host);
        host.push(b' ');
        Self { form, host, stamp: Stamp::new(), head: Vec::new() }
    }

    pub(super) fn message(&mut self, line: &Line, out: &mut Vec<u8>) {
        let head = &mut self.head;
        head.clear();
        // Writing into memory cannot fail.
        write!(head, "<{}>1 ", priority(self.form, line)).ok();
        self.stamp.write(line.time, head);
        head.extend(match self.form {
            Form::Strict => b"Z ".as_slice(),
            Form::Heroku => b"+00:00 ",
        });
        head.extend(&self.host);
        head.extend(line.source.as_str().as_bytes());
        head.push(b' ');
        name(&line.process, PROCESS, head);
        let (behind, end): (&[u8], &[u8]) = match self.form {
            Form::Strict => (b" - - ", b""),
            Form::Heroku => (b" - ", b"\n"),
        };
        head.extend(behind);
        if self.form == Form::Strict && !line.text.is_ascii() && str::from_utf8(&line.text).is_ok()
        {
            head.extend(BOM);
        }
        write!(out, "{} ", head.len() + line.text.len() + end.len()).ok();
        out.extend(&*head);
        out.extend(&line.text);
        out.extend(end);
    }
}

/// Facility times 8, and severity.
fn priority(form: Form, line: &Line) -> u8 {
    let is_error = line.source == Source::Tolv
        && (line.text.starts_with(b"Error ") || line.text.starts_with(b"at=error "));
    let severity = match line.stream {
        _ if is_error => 3,
        Stream::Out => 6,
        Stream::Err => 4,
    };
    let facility = match (form, line.source) {
        (Form::Strict, _) => 1,
        (Form::Heroku, Source::App) => 23,
        (Form::Heroku, Source::Tolv) if &*line.process == "router" => 19,
        (Form::Heroku, Source::Tolv) => 5,
    };
    facility * 8 + severity
}

/// A name of visible ASCII letters alone.
fn name(text: &str, most: usize, out: &mut Vec<u8>) {
    let legal = |letter: char| if letter.is_ascii_graphic() { letter } else { '?' };
    if text.is_empty() {
        out.push(b'-');
    }
    out.extend(text.chars().map(legal).take(most).filter_map(|letter| u8::try_from(letter).ok()));
}

#[cfg(test)]
mod tests;
