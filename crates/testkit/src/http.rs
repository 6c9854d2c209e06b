//! A tiny HTTP/1.1 client: one request, one connection, one answer.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long [`get`] waits for a connection, and for each piece of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// As in `200`.
    pub status: u16,
    /// Names in lower case, and values, in their order.
    pub headers: Vec<(String, String)>,
    /// Everything after the headers, chunks put together.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| &value[..])
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A `GET` request to a host at an address.
///
/// # Errors
///
/// Those of [`send`].
pub fn get(address: SocketAddr, host: &str, target: &str) -> io::Result<Response> {
    send(address, "GET", target, &[("Host", host)], TIMEOUT)
}

/// As [`get`], over a connection that is there.
///
/// # Errors
///
/// Those of [`send`].
pub fn get_over(stream: TcpStream, host: &str, target: &str) -> io::Result<Response> {
    send_over(stream, "GET", target, &[("Host", host)], TIMEOUT)
}

/// Any request without a body. `Connection: close` is added, `Host` is not.
///
/// An error is returned and not a panic: a test polls until a server answers.
///
/// # Errors
///
/// What the socket says; `TimedOut` or `WouldBlock` after the time-out; `UnexpectedEof` for an
/// answer that was cut off; `InvalidData` for what is no answer.
pub fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    timeout: Duration,
) -> io::Result<Response> {
    send_over(TcpStream::connect_timeout(&address, timeout)?, method, target, headers, timeout)
}

fn send_over(
    mut stream: TcpStream,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    timeout: Duration,
) -> io::Result<Response> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer, method == "HEAD")
}

/// Reads a whole answer, as it came over a connection that was then closed.
///
/// # Errors
///
/// Those of [`send`] that are about the answer.
pub fn parse(answer: &[u8], head_only: bool) -> io::Result<Response> {
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is cut off");
    let wrong = |what: &str| {
        let text = format!("{what}: {:?}", String::from_utf8_lossy(answer));
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let end = find(answer, b"\r\n\r\n").ok_or_else(cut)?;
    let head = str::from_utf8(&answer[..end]).map_err(|_| wrong("the head is not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
    let status: u16 = status.ok_or_else(|| wrong("no status line"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("a header without `:`"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let rest = &answer[end + 4..];
    if (100..200).contains(&status) && status != 101 {
        return parse(rest, head_only);
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if head_only || matches!(status, 204 | 304) {
        return Ok(response);
    }
    response.body = if response.header("transfer-encoding") == Some("chunked") {
        unchunked(rest).ok_or_else(cut)?
    } else if let Some(length) = response.header("content-length") {
        let length: usize = length.parse().map_err(|_| wrong("a wrong Content-Length"))?;
        rest.get(..length).ok_or_else(cut)?.to_vec()
    } else {
        rest.to_vec()
    };
    Ok(response)
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = find(rest, b"\r\n")?;
        let size = str::from_utf8(&rest[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests;
