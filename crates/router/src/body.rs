//! Bodies: where they end, and how they are written.
//!
//! A [`Decoder`] takes bytes and gives data; an [`Encoder`] takes data and gives bytes. Between
//! them chunk sizes, extensions and trailers are read by the letter and written anew, so that
//! nothing a sender did to the framing survives.

use bytes::{Buf, Bytes, BytesMut};

use crate::framing::Framing;
use crate::head::{Bad, Fields, Limits, Scanner, Sender};

/// What the next bytes of a body are.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Some of the body.
    Data(Bytes),
    /// The body is over; the trailers it had.
    End(Fields),
    /// More bytes are needed.
    More,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Left(u64),
    ToClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// Longest chunk size line: a size, and extensions that nobody uses.
const CHUNK_LINE: usize = 1024;

/// Reads one body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    scanner: Scanner,
    limits: Limits,
}

impl Decoder {
    pub(crate) fn new(framing: Framing, limits: Limits) -> Self {
        let state = match framing {
            Framing::Empty => State::Done,
            Framing::Length(0) => State::Left(0),
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::ChunkSize,
            Framing::Close => State::ToClose,
        };
        Self { state, scanner: Scanner::default(), limits }
    }

    /// Takes the next piece off the front of `bytes`.
    pub(crate) fn next(&mut self, bytes: &mut BytesMut) -> Result<Piece, Bad> {
        loop {
            match self.state {
                State::Done | State::Left(0) => {
                    self.state = State::Done;
                    return Ok(Piece::End(Fields::default()));
                }
                _ if bytes.is_empty() => return Ok(Piece::More),
                State::ToClose => return Ok(Piece::Data(bytes.split().freeze())),
                State::Left(left) => {
                    let data = take(bytes, left);
                    self.state = State::Left(left - data.len() as u64);
                    return Ok(Piece::Data(data));
                }
                State::ChunkSize => {
                    let Some(feed) = bytes.iter().position(|byte| *byte == b'\n') else {
                        if bytes.len() > CHUNK_LINE {
                            return Err(Bad("chunk size line too long"));
                        }
                        return Ok(Piece::More);
                    };
                    let line = bytes[..feed].strip_suffix(b"\r").ok_or(Bad("bare line feed"))?;
                    let size = chunk_size(line)?;
                    bytes.advance(feed + 1);
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::Chunk(left) => {
                    let data = take(bytes, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Piece::Data(data));
                }
                State::ChunkEnd => match (bytes[0], bytes.get(1)) {
                    (b'\r', None) => return Ok(Piece::More),
                    (b'\r', Some(b'\n')) => {
                        bytes.advance(2);
                        self.state = State::ChunkSize;
                    }
                    _ => return Err(Bad("chunk longer than its size")),
                },
                State::Trailers => {
                    if let (b'\r', Some(b'\n')) = (bytes[0], bytes.get(1)) {
                        bytes.advance(2);
                        self.state = State::Done;
                        continue;
                    }
                    if bytes.len() == 1 && bytes[0] == b'\r' {
                        return Ok(Piece::More);
                    }
                    let found = self.scanner.find(bytes, &self.limits, Sender::Client);
                    let Some(length) = found.map_err(|_| Bad("bad trailers"))? else {
                        return Ok(Piece::More);
                    };
                    let raw = bytes.split_to(length).freeze();
                    self.state = State::Done;
                    return Ok(Piece::End(Fields::parse(raw, 0..length)?));
                }
            }
        }
    }

    /// Whether the body is whole when the sender closes now.
    pub(crate) fn ends_at_close(&self) -> bool {
        matches!(self.state, State::ToClose | State::Done | State::Left(0))
    }
}

fn take(bytes: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).map_or(bytes.len(), |most| most.min(bytes.len()));
    bytes.split_to(length).freeze()
}

/// A chunk size line without its end: a size in hexadecimal, extensions ignored.
fn chunk_size(line: &[u8]) -> Result<u64, Bad> {
    if line.len() > CHUNK_LINE {
        return Err(Bad("chunk size line too long"));
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    if digits == 0 || digits > 15 {
        return Err(Bad("bad chunk size"));
    }
    let rest = rest.trim_ascii_start();
    if !(rest.is_empty() && digits == line.len()) && rest.first() != Some(&b';')
        || rest.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t')
    {
        return Err(Bad("bad chunk size"));
    }
    let hex =
        |value: u64, byte: &u8| value * 16 + char::from(*byte).to_digit(16).map_or(0, u64::from);
    Ok(size.iter().fold(0, hex))
}

/// Writes one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// As it is: the length is told, or the connection's end tells it.
    Plain,
    /// In chunks.
    Chunked,
    /// Not at all: an answer to `HEAD`, or one that has no body.
    Nothing,
}

impl Encoder {
    /// Appends `data` to `out`.
    pub(crate) fn data(self, data: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Nothing => {}
            Self::Plain => out.extend_from_slice(data),
            Self::Chunked if data.is_empty() => {}
            Self::Chunked => {
                out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Appends the body's end, with those `trailers` that may be passed on.
    pub(crate) fn end(self, trailers: &Fields, out: &mut Vec<u8>) {
        if self != Self::Chunked {
            return;
        }
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| crate::headers::may_trail(name)) {
            crate::headers::field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
