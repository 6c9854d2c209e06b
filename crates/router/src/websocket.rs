//! Where the frames of a WebSocket begin and end (RFC 6455 §5.2), so that a close frame can be put
//! between two of them. Does no I/O: payloads are counted and never held.

use std::hash::{BuildHasher, RandomState};

use crate::pump::Direction;

/// The server goes away and does not come back (RFC 6455 §7.4.1).
pub(crate) const GOING_AWAY: u16 = 1001;
/// The server restarts: connecting again will do (IANA's registry of close codes).
pub(crate) const SERVICE_RESTART: u16 = 1012;

/// The longest header without its mask: two bytes and a length of 64 bits.
const MAX_HEADER_BYTES: usize = 10;
const MASK_BYTES: u64 = 4;
/// A control frame has at most this much payload (RFC 6455 §5.5).
const MAX_CONTROL_BYTES: u8 = 125;
/// In a frame's second byte.
const MASKED: u8 = 0x80;
/// The last frame of its message, with the opcode of a close frame.
const FIN_CLOSE: u8 = 0x88;

/// The bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotFrames;

/// One direction of a WebSocket, as far as its bytes are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames {
    direction: Direction,
    /// The current frame's header, without its mask.
    header: [u8; MAX_HEADER_BYTES],
    /// How many bytes of it are known.
    known: usize,
    /// Bytes of the mask and the payload that are still to come.
    left: u64,
    has_close: bool,
}

impl Frames {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, header: [0; MAX_HEADER_BYTES], known: 0, left: 0, has_close: false }
    }

    /// Whether every frame that has begun is complete.
    pub(crate) fn is_between(&self) -> bool {
        self.known == 0
    }

    /// Whether a close frame is complete: nothing may follow it.
    pub(crate) fn has_close(&self) -> bool {
        self.has_close
    }

    /// Takes all of `bytes` into account.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<(), NotFrames> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.has_close {
            rest = &rest[self.follow_frame(rest)?..];
        }
        Ok(())
    }

    /// How many of `bytes` belong to the frame that has begun; none between two frames.
    pub(crate) fn rest_of_frame(&self, bytes: &[u8]) -> Result<usize, NotFrames> {
        match self.is_between() {
            true => Ok(0),
            false => Self::follow_frame(&mut { *self }, bytes),
        }
    }

    /// Takes what belongs to the current frame, or to the next one, into account: how many bytes.
    fn follow_frame(&mut self, bytes: &[u8]) -> Result<usize, NotFrames> {
        let mut used = 0;
        while let Some(&byte) = bytes.get(used) {
            if self.left > 0 {
                let here = bytes.len() - used;
                let taken = usize::try_from(self.left).map_or(here, |left| left.min(here));
                self.left -= taken as u64;
                used += taken;
            } else {
                self.header[self.known] = byte;
                self.known += 1;
                used += 1;
                match self.length()? {
                    Some(length) => self.left = length,
                    None => continue,
                }
            }
            if self.left == 0 {
                self.has_close = self.header[0] == FIN_CLOSE;
                self.known = 0;
                break;
            }
        }
        Ok(used)
    }

    /// How much follows the header, once that is complete.
    fn length(&self) -> Result<Option<u64>, NotFrames> {
        let header = &self.header[..self.known];
        let opcode = header[0] & 0x0f;
        let is_control = opcode >= 8;
        if !matches!(opcode, 0..=2 | 8..=10) || is_control && header[0] & 0x80 == 0 {
            return Err(NotFrames);
        }
        let Some(&second) = header.get(1) else { return Ok(None) };
        let short = second & !MASKED;
        // A client masks what it sends, and a server does not (RFC 6455 §5.1).
        let is_masked = second & MASKED != 0;
        if is_masked != (self.direction == Direction::Up) || is_control && short > MAX_CONTROL_BYTES
        {
            return Err(NotFrames);
        }
        let extended = &header[2..];
        let payload = match short {
            126 if extended.len() < 2 => return Ok(None),
            127 if extended.len() < 8 => return Ok(None),
            126 | 127 => extended.iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
            short => short.into(),
        };
        if payload >> 63 != 0 {
            return Err(NotFrames);
        }
        Ok(Some(payload + if is_masked { MASK_BYTES } else { 0 }))
    }
}

/// A close frame for the receiver of `direction`: masked for a process, whose client the router is.
pub(crate) fn close_frame(direction: Direction, code: u16) -> Vec<u8> {
    let reason: &[u8] = match code {
        SERVICE_RESTART => b"service restart",
        _ => b"going away",
    };
    let mut payload = [&code.to_be_bytes(), reason].concat();
    let length = u8::try_from(payload.len()).unwrap_or(MAX_CONTROL_BYTES);
    match direction {
        Direction::Down => [&[FIN_CLOSE, length], &*payload].concat(),
        Direction::Up => {
            let [a, b, c, d, ..] = RandomState::new().hash_one(code).to_be_bytes();
            let mask = [a, b, c, d];
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            [&[FIN_CLOSE, MASKED | length], &mask[..], &*payload].concat()
        }
    }
}

#[cfg(test)]
mod tests;
