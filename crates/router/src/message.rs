//! What a head means: where the request goes, where its body ends, whether the connection stays.
//!
//! Everything ambiguous is refused, since the process might read it otherwise: two hosts, two
//! lengths, a length beside chunks, a coding that is not `chunked` alone (RFC 9112 §3.2, §6).

use bytes::Bytes;

use crate::framing::Framing;
use crate::head::{Bad, Fields, RequestHead, ResponseHead};

/// A request that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    /// The host asked for, port and all; `None` where HTTP/1.0 named none.
    pub(crate) host: Option<String>,
    /// Path and query, or `*`.
    pub(crate) path: Bytes,
    pub(crate) framing: Framing,
    /// The client wants, or can do, no more on this connection.
    pub(crate) close: bool,
    /// The client asks for another protocol and may get it.
    pub(crate) upgrade: bool,
}

impl Request {
    pub(crate) fn understand(head: RequestHead) -> Result<Self, Bad> {
        let framing = request_framing(&head)?;
        let (host, path) = destination(&head)?;
        let fields = &head.fields;
        let modern = head.minor > 0;
        let close = fields.lists("connection", "close")
            || !modern && !fields.lists("connection", "keep-alive");
        // HTTP/2 in the clear is not spoken to processes, and a tunnel of it would hide requests.
        let h2c = |item: &[u8]| item.to_ascii_lowercase().starts_with(b"h2");
        let upgrade = modern
            && framing == Framing::Empty
            && fields.lists("connection", "upgrade")
            && fields.list("upgrade").next().is_some()
            && !fields.list("upgrade").any(h2c);
        Ok(Self { host, path, framing, close, upgrade, head })
    }

    pub(crate) fn is_head(&self) -> bool {
        &*self.head.method == b"HEAD"
    }

    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::Empty | Framing::Length(0))
    }

    /// Whether it may be sent again over another connection: idempotent (RFC 9110 §9.2.2), and
    /// without a body that is gone once it was sent.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.framing == Framing::Empty
            && !self.upgrade
            && matches!(
                &*self.head.method,
                b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
            )
    }
}

fn request_framing(head: &RequestHead) -> Result<Framing, Bad> {
    let chunked = coding(&head.fields, head.minor)?;
    let mut lengths = head.fields.all("content-length");
    match (chunked, lengths.next(), lengths.next()) {
        (true, Some(_), _) => Err(Bad("both Content-Length and Transfer-Encoding")),
        (_, _, Some(_)) => Err(Bad("more than one Content-Length")),
        (true, None, None) => Ok(Framing::Chunked),
        (false, None, None) => Ok(Framing::Empty),
        // A length of nothing is still told to the process, which may insist on one.
        (false, Some(length), None) => Ok(Framing::Length(length_of(length)?)),
    }
}

/// Whether the body comes in chunks.
fn coding(fields: &Fields, minor: u8) -> Result<bool, Bad> {
    let mut codings = fields.all("transfer-encoding");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(_), _) if minor == 0 => Err(Bad("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Bad("Transfer-Encoding other than chunked")),
    }
}

fn length_of(text: &[u8]) -> Result<u64, Bad> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
        .ok_or(Bad("bad Content-Length"))
}

fn destination(head: &RequestHead) -> Result<(Option<String>, Bytes), Bad> {
    let mut hosts = head.fields.all("host");
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Bad("more than one Host")),
        (None, None) if head.minor > 0 => return Err(Bad("no Host")),
        (None, None) => None,
        (Some(host), None) => Some(checked_host(host)?),
    };
    let target = &head.target;
    if &*head.method == b"CONNECT" {
        return Err(Bad("CONNECT"));
    }
    if target.first() == Some(&b'/') || &**target == b"*" && &*head.method == b"OPTIONS" {
        return Ok((host, target.clone()));
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme)))
        .ok_or(Bad("bad request target"))?;
    let rest = &target[scheme.len()..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = checked_host(&rest[..end])?;
    if authority.is_empty() {
        return Err(Bad("bad request target"));
    }
    if host.as_ref().is_some_and(|host| !host.eq_ignore_ascii_case(&authority)) {
        return Err(Bad("Host differs from the request target"));
    }
    let path = match rest.get(end) {
        Some(b'/') => target.slice(scheme.len() + end..),
        _ => [b"/", &rest[end..]].concat().into(),
    };
    Ok((Some(authority), path))
}

/// A host and port in the characters of RFC 3986 §3.2, without a user.
fn checked_host(host: &[u8]) -> Result<String, Bad> {
    let plain = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'['
                    | b']'
            )
    };
    // What stands in brackets is an IPv6 address, and has colons of its own.
    let is_port = |port: &str| port.contains(']') || port.bytes().all(|byte| byte.is_ascii_digit());
    let is_right = |text: &&str| {
        host.iter().all(plain) && text.rsplit_once(':').is_none_or(|(_, port)| is_port(port))
    };
    let text = std::str::from_utf8(host).ok().filter(is_right);
    Ok(text.ok_or(Bad("bad Host"))?.to_owned())
}

/// An answer that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) head: ResponseHead,
    pub(crate) framing: Framing,
    /// The connection may serve another request once the body is over.
    pub(crate) keeps_open: bool,
}

impl Response {
    /// `to_head`: the request was a `HEAD`.
    pub(crate) fn understand(head: ResponseHead, to_head: bool) -> Result<Self, Bad> {
        let chunked = coding(&head.fields, head.minor)?;
        let mut lengths = head.fields.list("content-length").map(length_of);
        let length = lengths.next().transpose()?;
        for other in lengths {
            if Some(other?) != length {
                return Err(Bad("more than one Content-Length"));
            }
        }
        if chunked && length.is_some() {
            return Err(Bad("both Content-Length and Transfer-Encoding"));
        }
        let framing = match (head.status, chunked, length) {
            _ if to_head => Framing::Empty,
            (100..=199 | 204 | 304, _, _) => Framing::Empty,
            (_, true, _) => Framing::Chunked,
            (_, false, Some(length)) => Framing::Length(length),
            (_, false, None) => Framing::Close,
        };
        let fields = &head.fields;
        let keeps_open = framing != Framing::Close
            && !fields.lists("connection", "close")
            && (head.minor > 0 || fields.lists("connection", "keep-alive"));
        Ok(Self { head, framing, keeps_open })
    }
}

#[cfg(test)]
mod tests;
