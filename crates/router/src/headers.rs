//! Heads as they are sent on: hop-by-hop fields taken out, the router's own put in.

use std::net::IpAddr;

use crate::access::Protocol;
use crate::framing::Framing;
use crate::head::Fields;
use crate::message::{Request, Response};

/// What the request's own bytes do not tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// What the peer says of the client is believed.
    pub(crate) trusted: bool,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// When the request came, in milliseconds of Unix time.
    pub(crate) start: u128,
    pub(crate) request_id: &'a str,
    /// `X-Forwarded-For` in full, the peer last.
    pub(crate) forwarded: &'a [u8],
}

/// Fields of one connection (RFC 9110 §7.6.1), and what the router writes itself.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
];

/// Fields that a client cannot have taken out by naming them in `Connection`.
const NOT_NOMINATED: [&str; 6] =
    ["authorization", "cookie", "forwarded", "host", "via", "x-forwarded-for"];

/// Fields of a request that the router sets, and `Proxy`, which would become the process's
/// `HTTP_PROXY`. Compared with `_` as `-`, as CGI-like interfaces see them.
const OWN: [&str; 8] = [
    "host",
    "proxy",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
    "x-request-start",
];

/// What frames a request, spelled with `_`: the real ones are hop by hop.
const FRAMES: [&str; 2] = ["content-length", "transfer-encoding"];

/// Own fields that a trusted peer's word stands for.
const BELIEVED: [&str; 4] =
    ["x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-request-start"];

fn is_in(names: &[&str], name: &[u8]) -> bool {
    names.iter().any(|listed| name.eq_ignore_ascii_case(listed.as_bytes()))
}

fn is_own(name: &[u8]) -> bool {
    let same = |own: &str| {
        own.len() == name.len()
            && own
                .bytes()
                .zip(name)
                .all(|(own, &byte)| own == byte.to_ascii_lowercase() || own == b'-' && byte == b'_')
    };
    OWN.iter().chain(&FRAMES).any(|own| same(own))
}

/// Whether a trailer field may be passed on: none that frames, routes or names a client.
pub(crate) fn may_trail(name: &[u8]) -> bool {
    !is_in(&HOP_BY_HOP, name)
        && !is_own(name)
        && !is_in(&NOT_NOMINATED, name)
        && !is_in(&["content-encoding", "content-range", "content-type", "expect", "trailer"], name)
}

/// Appends `name: value` and the line's end.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The fields that pass: in order, spelled as they came.
fn passing(fields: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    let nominated: Vec<&[u8]> =
        fields.list("connection").filter(|name| !is_in(&NOT_NOMINATED, name)).collect();
    fields.iter().filter(move |(name, _)| {
        !is_in(&HOP_BY_HOP, name)
            && !nominated.iter().any(|nominated| name.eq_ignore_ascii_case(nominated))
    })
}

/// `X-Forwarded-For` as it came, and `peer`.
pub(crate) fn forwarded_for(fields: &Fields, peer: IpAddr) -> Vec<u8> {
    let mut chain = Vec::new();
    for value in fields.all("x-forwarded-for").filter(|value| !value.is_empty()) {
        chain.extend_from_slice(value);
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.to_string().as_bytes());
    chain
}

/// The head of a request as the process gets it.
pub(crate) fn request(out: &mut Vec<u8>, request: &Request, origin: &Origin<'_>) {
    let head = &request.head;
    let fields = &head.fields;
    out.extend_from_slice(&head.method);
    out.push(b' ');
    out.extend_from_slice(&request.path);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let host = request.host.as_deref().unwrap_or_default().as_bytes();
    field(out, b"Host", host);
    // HTTP/1.0 has no interim answers, so nobody may wait for one.
    let drop_expect = |name: &[u8]| head.minor == 0 && name.eq_ignore_ascii_case(b"expect");
    for (name, value) in passing(fields).filter(|(name, _)| !is_own(name) && !drop_expect(name)) {
        field(out, name, value);
    }
    match request.framing {
        Framing::Length(length) => field(out, b"Content-Length", length.to_string().as_bytes()),
        Framing::Chunked => field(out, b"Transfer-Encoding", b"chunked"),
        Framing::Empty | Framing::Close => {}
    }
    if request.upgrade {
        for protocol in fields.all("upgrade") {
            field(out, b"Upgrade", protocol);
        }
        field(out, b"Connection", b"Upgrade");
    } else if fields.lists("te", "trailers") {
        field(out, b"TE", b"trailers");
        field(out, b"Connection", b"TE");
    }
    field(out, b"X-Forwarded-For", origin.forwarded);
    let start = origin.start.to_string();
    let port = origin.port.to_string();
    for (name, value) in [
        (&b"X-Forwarded-Proto"[..], origin.protocol.as_str().as_bytes()),
        (b"X-Forwarded-Port", port.as_bytes()),
        (b"X-Forwarded-Host", host),
        (b"X-Request-Start", start.as_bytes()),
    ] {
        let believed = BELIEVED
            .iter()
            .find(|own| origin.trusted && name.eq_ignore_ascii_case(own.as_bytes()))
            .and_then(|own| fields.first(own));
        field(out, name, believed.unwrap_or(value));
    }
    field(out, b"X-Request-Id", origin.request_id.as_bytes());
    field(out, b"Via", if head.minor == 0 { b"1.0 tolv" } else { b"1.1 tolv" });
    out.extend_from_slice(b"\r\n");
}

/// What an answer's head says of the client's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// The client spoke HTTP/1.1.
    pub(crate) modern: bool,
    /// The connection ends with this answer.
    pub(crate) close: bool,
    /// The request was a `HEAD`.
    pub(crate) to_head: bool,
}

/// The head of a final answer as the client gets it.
pub(crate) fn response(out: &mut Vec<u8>, response: &Response, client: Client) {
    status_line(out, response.head.status, &response.head.reason);
    let fields = &response.head.fields;
    for (name, value) in passing(fields) {
        field(out, name, value);
    }
    match response.framing {
        Framing::Length(length) => field(out, b"Content-Length", length.to_string().as_bytes()),
        Framing::Chunked | Framing::Close if client.modern => {
            field(out, b"Transfer-Encoding", b"chunked");
        }
        Framing::Chunked | Framing::Close => {}
        // A length that the body would have had. Nothing of the kind may stand in a 204.
        Framing::Empty if response.head.status != 204 => {
            if let Some(length) = fields.list("content-length").next() {
                field(out, b"Content-Length", length);
            } else if client.to_head
                && client.modern
                && fields.lists("transfer-encoding", "chunked")
            {
                field(out, b"Transfer-Encoding", b"chunked");
            }
        }
        Framing::Empty => {}
    }
    if client.close {
        field(out, b"Connection", b"close");
    } else if !client.modern {
        field(out, b"Connection", b"keep-alive");
    }
    out.extend_from_slice(b"\r\n");
}

/// The head of an interim answer (1xx).
pub(crate) fn interim(out: &mut Vec<u8>, response: &Response) {
    status_line(out, response.head.status, &response.head.reason);
    for (name, value) in passing(&response.head.fields) {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// The head of `101 Switching Protocols`.
pub(crate) fn switching(out: &mut Vec<u8>, response: &Response) {
    status_line(out, response.head.status, &response.head.reason);
    for (name, value) in passing(&response.head.fields) {
        field(out, name, value);
    }
    for protocol in response.head.fields.all("upgrade") {
        field(out, b"Upgrade", protocol);
    }
    field(out, b"Connection", b"Upgrade");
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(format!("HTTP/1.1 {status} ").as_bytes());
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
