//! Heads of requests and answers: found in a buffer, taken apart, nothing more.
//!
//! Strict where two readers could disagree: a request's line ends in CR LF and nothing else, a
//! name is a token right before its colon, no line is folded. An answer may end its lines in a
//! bare LF, as RFC 9112 §2.2 lets a recipient accept: it is written anew before it goes on.

use std::ops::Range;

use bytes::Bytes;

/// Bytes that break the rules, and which rule, in a few words for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Bad(pub(crate) &'static str);

/// What a head may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) line: usize,
    pub(crate) headers: usize,
    pub(crate) head: usize,
}

/// Whose head it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Process,
}

/// Looks for the end of a head that arrives in pieces; no byte is looked at twice.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    seen: usize,
    line: usize,
    lines: usize,
}

impl Scanner {
    /// The length of the head in `bytes`, which begin with it, once all of it is there.
    ///
    /// Call again with the same bytes and more. Limits are told before the head is whole.
    pub(crate) fn find(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        sender: Sender,
    ) -> Result<Option<usize>, Bad> {
        if self.seen == 0
            && sender == Sender::Client
            && bytes.first().is_some_and(|b| !is_token(*b))
        {
            return Err(Bad("no method"));
        }
        // Told at once, for a process that speaks something else might wait for us to speak.
        if sender == Sender::Process
            && bytes.iter().zip(b"HTTP/1.").any(|(byte, http)| byte != http)
        {
            return Err(Bad("not HTTP/1"));
        }
        while let Some(feed) = bytes[self.seen..].iter().position(|byte| *byte == b'\n') {
            let end = self.seen + feed;
            let line = match bytes[self.line..end].strip_suffix(b"\r") {
                Some(line) => line,
                None if sender == Sender::Client => return Err(Bad("bare line feed")),
                None => &bytes[self.line..end],
            };
            check(line.len(), self.line, limits, sender)?;
            self.seen = end + 1;
            self.line = end + 1;
            if line.is_empty() {
                return Ok(Some(end + 1));
            }
            self.lines += 1;
            if self.lines > limits.headers + 1 {
                return Err(Bad("too many headers"));
            }
        }
        self.seen = bytes.len();
        // One byte of leeway: the CR of a line that is not over yet.
        check((self.seen - self.line).saturating_sub(1), self.line, limits, sender)?;
        if bytes.len() >= limits.head {
            return Err(Bad("head too long"));
        }
        Ok(None)
    }
}

fn check(length: usize, start: usize, limits: &Limits, sender: Sender) -> Result<(), Bad> {
    if sender == Sender::Process || length <= limits.line {
        Ok(())
    } else if start == 0 {
        Err(Bad("request line too long"))
    } else {
        Err(Bad("header line too long"))
    }
}

/// Header fields, in order, as they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    raw: Bytes,
    spans: Vec<(Range<usize>, Range<usize>)>,
}

impl Fields {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|(name, value)| (&self.raw[name.clone()], &self.raw[value.clone()]))
    }

    /// The values of every field named `name`, which is in lower case.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    pub(crate) fn first<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The items of a list field, over all its lines, without white space and empty ones.
    pub(crate) fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty())
    }

    /// Whether a list field has `item`, which is in lower case.
    pub(crate) fn lists<'a>(&'a self, name: &'a str, item: &str) -> bool {
        self.list(name).any(|listed| listed.eq_ignore_ascii_case(item.as_bytes()))
    }

    /// Takes field lines apart; `lines` is a range of `raw` that ends with the empty line.
    pub(crate) fn parse(raw: Bytes, lines: Range<usize>) -> Result<Self, Bad> {
        let mut spans = Vec::with_capacity(16);
        let mut at = lines.start;
        while let Some((line, next)) = next_line(&raw, at, lines.end) {
            at = next;
            if line.is_empty() {
                break;
            }
            spans.push(field(&raw, line)?);
        }
        Ok(Self { raw, spans })
    }
}

/// The line at `at` without its end, and where the next one begins.
fn next_line(raw: &[u8], at: usize, end: usize) -> Option<(Range<usize>, usize)> {
    let feed = at + raw.get(at..end)?.iter().position(|byte| *byte == b'\n')?;
    let stop = if feed > at && raw[feed - 1] == b'\r' { feed - 1 } else { feed };
    Some((at..stop, feed + 1))
}

fn field(raw: &[u8], line: Range<usize>) -> Result<(Range<usize>, Range<usize>), Bad> {
    let text = &raw[line.clone()];
    if matches!(text.first(), Some(b' ' | b'\t')) {
        return Err(Bad("folded header line"));
    }
    let colon = text.iter().position(|byte| *byte == b':').ok_or(Bad("header without a colon"))?;
    if colon == 0 || !text[..colon].iter().all(|byte| is_token(*byte)) {
        return Err(Bad("bad header name"));
    }
    let value = &text[colon + 1..];
    if value.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(Bad("control byte in a header"));
    }
    let lead = value.len() - value.trim_ascii_start().len();
    let start = line.start + colon + 1 + lead;
    let name = line.start..line.start + colon;
    Ok((name, start..start + value.trim_ascii().len()))
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// A request's head.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Bytes,
    pub(crate) target: Bytes,
    /// 0 or 1, of HTTP/1.
    pub(crate) minor: u8,
    pub(crate) fields: Fields,
}

impl RequestHead {
    /// Takes a head apart that [`Scanner::find`] found.
    pub(crate) fn parse(raw: Bytes) -> Result<Self, Bad> {
        let (line, rest) = next_line(&raw, 0, raw.len()).ok_or(Bad("no request line"))?;
        let text = &raw[line];
        let mut words = text.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Bad("bad request line"));
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(Bad("bad method"));
        }
        if target.is_empty() || target.iter().any(|byte| byte.is_ascii_control()) {
            return Err(Bad("bad request target"));
        }
        let minor = minor(version)?;
        let (method, target) = (raw.slice_ref(method), raw.slice_ref(target));
        let end = raw.len();
        Ok(Self { method, target, minor, fields: Fields::parse(raw, rest..end)? })
    }
}

/// An answer's head.
#[derive(Clone, Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) reason: Bytes,
    /// 0 or 1, of HTTP/1.
    pub(crate) minor: u8,
    pub(crate) fields: Fields,
}

impl ResponseHead {
    /// Takes a head apart that [`Scanner::find`] found.
    pub(crate) fn parse(raw: Bytes) -> Result<Self, Bad> {
        let (line, rest) = next_line(&raw, 0, raw.len()).ok_or(Bad("no status line"))?;
        let text = &raw[line];
        let mut words = text.splitn(3, |byte| *byte == b' ');
        let (Some(version), Some(status)) = (words.next(), words.next()) else {
            return Err(Bad("bad status line"));
        };
        let reason = words.next().unwrap_or_default();
        let status = match status {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(Bad("bad status")),
        };
        if reason.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(Bad("control byte in the status line"));
        }
        let minor = minor(version)?;
        let reason = raw.slice_ref(reason);
        let end = raw.len();
        Ok(Self { status, reason, minor, fields: Fields::parse(raw, rest..end)? })
    }
}

fn minor(version: &[u8]) -> Result<u8, Bad> {
    match version {
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(1),
        _ => Err(Bad("not HTTP/1")),
    }
}

#[cfg(test)]
mod tests;
