//! The access line: one per request, written when its answer has ended.
//!
//! A request decides the text of several values. None of them can end its value, forge a key or
//! put a control byte on a terminal: quoted values escape `"`, `\`, every control byte and every
//! byte outside ASCII; values without quotes fall back to quotes when they are not plain.

use std::fmt;
use std::time::Duration;

use tolv_model::name::ProcessName;

/// Why a request had no ordinary end. The codes are Heroku's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The app crashed.
    H10,
    /// The host has as many requests in flight as it may have.
    H11,
    /// The process did not answer in time.
    H12,
    /// The process closed the connection without an answer.
    H13,
    /// There is no web process.
    H14,
    /// Nothing came from the process for too long, in the middle of its answer.
    H15,
    /// The process closed the connection in the middle of its answer.
    H18,
    /// The process could not be connected to in time.
    H19,
    /// The request waited for a process to boot, too long or among too many.
    H20,
    /// The process refused the connection.
    H21,
    /// The process's answer is not HTTP.
    H25,
    /// The request is not HTTP, or over a limit.
    H26,
    /// The client went away before the answer had ended.
    H27,
    /// The client neither sent nor took a byte for too long.
    H28,
    /// No route for the request's host.
    H31,
    /// Maintenance mode is on.
    H80,
    /// The platform's own fault: the router was stopped in the middle of the request.
    H99,
}

impl Code {
    /// The status an answer with this code has, and the access line of a request that got none.
    pub fn status(self) -> u16 {
        match self {
            Self::H25 => 502,
            Self::H26 => 400,
            Self::H27 | Self::H28 => 499,
            Self::H31 => 421,
            Self::H10
            | Self::H11
            | Self::H12
            | Self::H13
            | Self::H14
            | Self::H15
            | Self::H18
            | Self::H19
            | Self::H20
            | Self::H21
            | Self::H80
            | Self::H99 => 503,
        }
    }

    /// What happened, in Heroku's words where it has some.
    pub fn description(self) -> &'static str {
        match self {
            Self::H10 => "App crashed",
            Self::H11 => "Backlog too deep",
            Self::H12 => "Request timeout",
            Self::H13 => "Connection closed without response",
            Self::H14 => "No web processes running",
            Self::H15 => "Idle connection",
            Self::H18 => "Server Request Interrupted",
            Self::H19 => "Backend connection timeout",
            Self::H20 => "App boot timeout",
            Self::H21 => "Backend connection refused",
            Self::H25 => "HTTP Restriction",
            Self::H26 => "Request Error",
            Self::H27 => "Client Request Interrupted",
            Self::H28 => "Client Connection Idle",
            Self::H31 => "Misdirected Request",
            Self::H80 => "Maintenance mode",
            Self::H99 => "Platform error",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What the client spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Protocol {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// One request, as it ended. `Display` is the contract's line, without a line's end.
///
/// Texts are bytes as the client sent them; empty when the request was not understood.
#[derive(Clone, Debug)]
pub struct AccessLine {
    /// Why it failed; `None` is `at=info`.
    pub code: Option<Code>,
    /// A sentence's worth more than [`Code::description`], for the operator alone.
    pub detail: Option<&'static str>,
    /// Method.
    pub method: Vec<u8>,
    /// Path and query.
    pub path: Vec<u8>,
    /// The host asked for.
    pub host: Vec<u8>,
    /// `X-Request-Id` as the process saw it.
    pub request_id: String,
    /// `X-Forwarded-For` as the process saw it.
    pub forwarded: Vec<u8>,
    /// Who answered.
    pub process: Option<ProcessName>,
    /// Time to connect; zero on a connection used before.
    pub connect: Duration,
    /// Time from the whole head to the last byte of the answer.
    pub service: Duration,
    /// The status the client was sent, or the code's own if it was sent none.
    pub status: u16,
    /// Bytes of body sent to the client.
    pub bytes: u64,
    /// What the client spoke.
    pub protocol: Protocol,
}

impl fmt::Display for AccessLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => {
                f.write_str("at=info")?;
                if let Some(detail) = self.detail {
                    write!(f, " desc=\"{detail}\"")?;
                }
            }
            Some(code) => {
                write!(f, "at=error code={code} desc=\"{}", code.description())?;
                if let Some(detail) = self.detail {
                    write!(f, ": {detail}")?;
                }
                f.write_str("\"")?;
            }
        }
        write!(
            f,
            " method={} path={} host={} request_id={} fwd={}",
            Plain(&self.method),
            Quoted(&self.path),
            Plain(&self.host),
            Plain(self.request_id.as_bytes()),
            Quoted(&self.forwarded),
        )?;
        f.write_str(" process=")?;
        if let Some(process) = &self.process {
            write!(f, "{process}")?;
        }
        write!(
            f,
            " connect={}ms service={}ms status={} bytes={} protocol={}",
            self.connect.as_millis(),
            self.service.as_millis(),
            self.status,
            self.bytes,
            self.protocol.as_str(),
        )
    }
}

/// A value in quotes.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for &byte in self.0 {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_str("\"")
    }
}

/// A value without quotes, if it is plain.
struct Plain<'a>(&'a [u8]);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: &u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\' | b'=');
        match std::str::from_utf8(self.0) {
            Ok(text) if self.0.iter().all(plain) => f.write_str(text),
            _ => Quoted(self.0).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
