//! Lines as a drain's receiver wants them: addresses and encodings, without I/O.
//!
//! | address | what is sent |
//! |---|---|
//! | `syslog://`, `syslog+tls://` | RFC 5424 over TCP, each message behind its length (RFC 6587) |
//! | `https://`, `http://` | the same messages in the body of a POST, as Heroku's logplex sends them |
//! | `otlp+https://`, `otlp+http://` | the JSON of OpenTelemetry's protocol, in the body of a POST |

mod otlp;
mod syslog;
mod url;

use tolv_model::name::Deploy;
use tolv_model::slug::Digest;

pub use url::{DrainUrl, DrainUrlError, Form, Kind};

use crate::line::Line;

/// Writes lines for one drain.
#[derive(Debug)]
pub struct Encoder(Encoding);

#[derive(Debug)]
enum Encoding {
    Syslog(syslog::Encoder),
    Otlp(otlp::Encoder),
}

impl Encoder {
    /// For a drain of `deploy`.
    pub fn new(kind: Kind, deploy: &Deploy) -> Self {
        Self(match kind {
            Kind::Syslog(form) | Kind::Logplex(form) => {
                Encoding::Syslog(syslog::Encoder::new(form, deploy))
            }
            Kind::Otlp => Encoding::Otlp(otlp::Encoder::new(deploy)),
        })
    }

    /// The media type of a body.
    pub fn media_type(&self) -> &'static str {
        match self.0 {
            Encoding::Syslog(_) => "application/logplex-1",
            Encoding::Otlp(_) => "application/json",
        }
    }

    /// What comes before the first line of a body.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Encoding::Otlp(otlp) = &mut self.0 {
            otlp.begin(out);
        }
    }

    /// A line.
    pub fn line(&mut self, line: &Line, out: &mut Vec<u8>) {
        match &mut self.0 {
            Encoding::Syslog(syslog) => syslog.message(line, out),
            Encoding::Otlp(otlp) => otlp.record(line, out),
        }
    }

    /// What comes behind the last line of a body.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if let Encoding::Otlp(otlp) = &mut self.0 {
            otlp.end(out);
        }
    }
}

/// The line that stands, for the receiver, where lines are missing.
pub fn missing(process: &str, lines: u64) -> Line {
    let noun = if lines == 1 { "line" } else { "lines" };
    let text = format!("Error L10 (drain buffer overflow): {lines} {noun} of {process} dropped");
    Line::tolv("drain", text)
}

/// The name of the frame with the `lines` behind the first `skip` ones at `place` of a drain's log:
/// the same whenever it is sent again.
pub fn frame_id(drain: &str, place: &str, skip: usize, lines: usize) -> String {
    let digest = Digest::of(format!("{drain} {place} {skip} {lines}").as_bytes());
    digest.to_string().chars().take(32).collect()
}

/// How many records a receiver of OTLP refused, and why, in the answer to those it took.
pub fn refused(answer: &[u8]) -> Option<(u64, String)> {
    otlp::refused(answer)
}
