//! A record's header in bytes.

use crate::line::{Marks, Micros, Stream};

pub(super) const LENGTH: usize = 34;
pub(super) const MAGIC: &[u8; 4] = b"TLR1";
/// No record is longer: what claims to be is damage.
pub(super) const MAX_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) length: u32,
    pub(super) first: u64,
    pub(super) time: Micros,
    pub(super) lines: u32,
    pub(super) stream: Stream,
    pub(super) marks: Marks,
}

impl Record {
    pub(super) fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.lines.to_le_bytes());
        bytes[28] = u8::from(self.stream == Stream::Err);
        bytes[29] = self.marks.to_bits();
        let check = check(&bytes);
        bytes[30..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Nothing where the bytes are not a record's header.
    pub(super) fn from_bytes(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (lines, rest) = rest.split_first_chunk()?;
        let [stream, marks, sum @ ..] = rest else { return None };
        let record = Self {
            length: u32::from_le_bytes(*length),
            first: u64::from_le_bytes(*first),
            time: Micros(i64::from_le_bytes(*time)),
            lines: u32::from_le_bytes(*lines),
            stream: if *stream == 0 { Stream::Out } else { Stream::Err },
            marks: Marks::from_bits(*marks),
        };
        let sound = magic == MAGIC
            && sum == check(bytes).to_le_bytes()
            && record.length as usize <= MAX_BYTES;
        sound.then_some(record)
    }
}

/// FNV-1a of all but the check itself.
fn check(bytes: &[u8; LENGTH]) -> u32 {
    bytes[..LENGTH - 4]
        .iter()
        .fold(0x811c_9dc5_u32, |hash, &b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}
