//! A record's head in bytes.

use crate::line::{Marks, Micros, Source, Stream};

pub(super) const LENGTH: usize = 58;
pub(super) const MAGIC: &[u8; 4] = b"TLR2";
/// No record is longer: what claims to be is damage.
pub(super) const MAX_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Bytes behind the head: the name and the text.
    pub(super) length: u32,
    pub(super) writer: u64,
    /// Number of its first line among the writer's.
    pub(super) first: u64,
    /// Bytes that the writer took in before it, line ends included.
    pub(super) before: u64,
    pub(super) time: Micros,
    pub(super) lines: u32,
    /// 0 where it is of none.
    pub(super) release: u32,
    pub(super) source: Source,
    pub(super) stream: Stream,
    pub(super) marks: Marks,
    /// Bytes of the name.
    pub(super) name: u8,
    /// CRC-32 of the name and the text.
    pub(super) sum: u32,
}

/// CRC-32 of a body in pieces.
pub(super) fn sum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

impl Record {
    pub(super) fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.writer.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.before.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.lines.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.release.to_le_bytes());
        bytes[48] = u8::from(self.stream == Stream::Err)
            | u8::from(self.source == Source::Tolv) << 1
            | self.marks.to_bits() << 2;
        bytes[49] = self.name;
        bytes[50..54].copy_from_slice(&self.sum.to_le_bytes());
        let check = check(&bytes);
        bytes[54..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Nothing where the bytes are not a record's head.
    pub(super) fn from_bytes(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (writer, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (before, rest) = rest.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (lines, rest) = rest.split_first_chunk()?;
        let (release, rest) = rest.split_first_chunk()?;
        let ([flags, name], rest) = rest.split_first_chunk()?;
        let (sum, checked) = rest.split_first_chunk()?;
        let record = Self {
            length: u32::from_le_bytes(*length),
            writer: u64::from_le_bytes(*writer),
            first: u64::from_le_bytes(*first),
            before: u64::from_le_bytes(*before),
            time: Micros(i64::from_le_bytes(*time)),
            lines: u32::from_le_bytes(*lines),
            release: u32::from_le_bytes(*release),
            source: if flags & 2 == 0 { Source::App } else { Source::Tolv },
            stream: if flags & 1 == 0 { Stream::Out } else { Stream::Err },
            marks: Marks::from_bits(flags >> 2),
            name: *name,
            sum: u32::from_le_bytes(*sum),
        };
        let sound = magic == MAGIC
            && checked == check(bytes).to_le_bytes()
            && record.length as usize <= MAX_BYTES
            && u32::from(record.name) <= record.length;
        sound.then_some(record)
    }
}

/// FNV-1a of all but the check itself.
fn check(bytes: &[u8; LENGTH]) -> u32 {
    bytes[..LENGTH - 4]
        .iter()
        .fold(0x811c_9dc5_u32, |hash, &b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}
