//! How many refs a push names, counted while it arrives: git would take any number.

use super::body::BodyError;
use super::hook::{MAX_COMMAND_BYTES, MAX_COMMANDS};

/// The beginning of a push: a packet (gitprotocol-common) for each ref, up to a flush; then its pack.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// The packet's length as far as it is known, and its first bytes.
    head: Vec<u8>,
    /// Bytes of the packet that are still to come.
    left: usize,
    refs: usize,
    bytes: usize,
    is_over: bool,
}

/// Letters of a packet's length, and of what tells a shallow boundary from a ref.
const LENGTH: usize = 4;
const SHALLOW: &[u8] = b"shallow ";

impl Commands {
    /// Takes what has arrived next.
    pub(super) fn take(&mut self, mut arrived: &[u8]) -> Result<(), BodyError> {
        while !self.is_over && !arrived.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(arrived.len());
                let wanted = (LENGTH + SHALLOW.len()).saturating_sub(self.head.len());
                self.head.extend_from_slice(&arrived[..skipped.min(wanted)]);
                arrived = &arrived[skipped..];
                self.left -= skipped;
                self.bytes += skipped;
                if self.bytes > MAX_COMMAND_BYTES {
                    return Err(BodyError::LongRefs);
                }
            } else {
                let missing = (LENGTH - self.head.len()).min(arrived.len());
                self.head.extend_from_slice(&arrived[..missing]);
                arrived = &arrived[missing..];
                if self.head.len() < LENGTH {
                    return Ok(());
                }
                let length = std::str::from_utf8(&self.head).ok();
                let length = length.and_then(|hex| usize::from_str_radix(hex, 16).ok());
                // A flush; of nonsense git says what it is.
                let Some(left @ 1..) = length.and_then(|length| length.checked_sub(LENGTH)) else {
                    self.is_over = true;
                    return Ok(());
                };
                self.left = left;
            }
            if self.left == 0 {
                self.refs += usize::from(!self.head[LENGTH..].starts_with(SHALLOW));
                self.head.clear();
                if self.refs > MAX_COMMANDS {
                    return Err(BodyError::ManyRefs);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(refs: usize, name: usize) -> Vec<u8> {
        let line = |text: &str| format!("{:04x}{text}", text.len() + 4);
        let mut push = line("shallow 0123");
        for n in 0..refs {
            push.push_str(&line(&format!("{n} {}", "x".repeat(name))));
        }
        format!("{push}0000PACK0005xx").into_bytes()
    }

    fn taken(push: &[u8], piece: usize) -> Result<usize, BodyError> {
        let mut commands = Commands::default();
        push.chunks(piece).try_for_each(|piece| commands.take(piece))?;
        Ok(commands.refs)
    }

    #[test]
    fn the_refs_of_a_push_are_counted_however_it_arrives() {
        for piece in [1, 3, 7, 100, 1 << 20] {
            assert_eq!(taken(&push(3, 9), piece).unwrap(), 3);
            assert_eq!(taken(&push(MAX_COMMANDS, 9), piece).unwrap(), MAX_COMMANDS);
            assert!(matches!(taken(&push(MAX_COMMANDS + 1, 9), piece), Err(BodyError::ManyRefs)));
            assert!(matches!(taken(&push(100, 60_000), piece), Err(BodyError::LongRefs)));
        }
        for nonsense in [&b""[..], b"00", b"0000", b"zzzz", b"0001", b"0004", b"\xff\xff\xff\xff"] {
            assert_eq!(taken(nonsense, 2).unwrap(), 0, "{nonsense:?}");
        }
    }
}
