//! The output of a run that waits for its reader: bounded, and never lost on the way.
//!
//! ```text
//!       base            acked                    end
//!        │ may be let go │ waits for its reader   │
//!  ──────┴───────────────┴────────────────────────┴──▶ bytes since the start, both streams
//! ```
//!
//! Reading from a place says that everything before it has arrived. What has not arrived is never
//! let go, so that a connection may break at any byte; a writer that has to wait asks for
//! [`Ring::room`]. A writer that may not wait lets the oldest go instead, which is counted.

use std::collections::VecDeque;

/// Bytes in a piece: what is let go is moved by no more than this.
const PIECE: usize = 64 * 1024;
/// Pieces: a writer that changes its stream at every byte has to wait too.
const PIECES: usize = 4096;

/// Bytes of both streams in the order they came, with the stream of each.
#[derive(Clone, Debug)]
pub struct Ring<S> {
    pieces: VecDeque<(S, Vec<u8>)>,
    base: u64,
    acked: u64,
    end: u64,
    capacity: usize,
}

/// What a read gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<S> {
    /// Where the bytes begin: behind the place asked for where those before are gone.
    pub from: u64,
    /// The bytes.
    pub pieces: Vec<(S, Vec<u8>)>,
}

impl<S: Copy + PartialEq> Ring<S> {
    /// An empty one that holds so many bytes.
    pub fn new(capacity: usize) -> Self {
        Self { pieces: VecDeque::new(), base: 0, acked: 0, end: 0, capacity }
    }

    /// How many bytes may be pushed without any being lost.
    pub fn room(&self) -> usize {
        if self.pieces.len() >= PIECES {
            return 0;
        }
        let waiting = usize::try_from(self.end - self.acked).unwrap_or(usize::MAX);
        self.capacity.saturating_sub(waiting)
    }

    /// Up to where everything has arrived.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// How many bytes there were so far.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends bytes; those that have arrived make room, as far as they are in the way.
    pub fn push(&mut self, stream: S, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        match self.pieces.back_mut() {
            Some((last, piece)) if *last == stream && piece.len() + bytes.len() <= PIECE => {
                piece.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back((stream, bytes.to_vec())),
        }
        self.let_go(self.acked);
    }

    /// As [`Ring::push`] for a writer that may not wait: the oldest bytes go, arrived or not.
    pub fn force(&mut self, stream: S, bytes: &[u8]) {
        self.push(stream, bytes);
        self.let_go(u64::MAX);
        while self.pieces.len() > PIECES
            && let Some((_, piece)) = self.pieces.pop_front()
        {
            self.base += piece.len() as u64;
        }
        self.acked = self.acked.max(self.base);
    }

    /// Bytes from a place on, `most` at most. Everything before the place has arrived.
    pub fn read(&mut self, from: u64, most: usize) -> Read<S> {
        let from = from.clamp(self.base, self.end);
        self.acked = self.acked.max(from);
        if self.pieces.len() >= PIECES / 2 {
            self.forget();
        }
        let (mut at, mut left) = (self.base, most);
        let mut pieces = Vec::new();
        for (stream, piece) in &self.pieces {
            let skip = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX);
            at += piece.len() as u64;
            let Some(rest) = piece.get(skip..).filter(|rest| !rest.is_empty()) else { continue };
            let part = &rest[..rest.len().min(left)];
            left -= part.len();
            pieces.push((*stream, part.to_vec()));
            if left == 0 {
                break;
            }
        }
        Read { from, pieces }
    }

    /// Lets go of what has arrived: nothing more will be read again from before.
    pub fn forget(&mut self) {
        let capacity = std::mem::take(&mut self.capacity);
        self.let_go(self.acked);
        self.capacity = capacity;
    }

    /// Brings the size below the capacity, by bytes before `limit`.
    fn let_go(&mut self, limit: u64) {
        while let Some((_, piece)) = self.pieces.front_mut() {
            let held = self.end - self.base;
            let over = held.saturating_sub(self.capacity as u64);
            let free = over.min(limit.saturating_sub(self.base));
            if free == 0 {
                return;
            }
            let count = usize::try_from(free).unwrap_or(usize::MAX).min(piece.len());
            if count == piece.len() {
                self.pieces.pop_front();
            } else {
                piece.drain(..count);
            }
            self.base += count as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(read: &Read<u8>) -> Vec<u8> {
        read.pieces.iter().flat_map(|(_, piece)| piece.clone()).collect()
    }

    #[test]
    fn what_has_not_arrived_can_be_read_again() {
        let mut ring = Ring::new(8);
        ring.push(1, b"abc");
        ring.push(2, b"def");
        assert_eq!(ring.room(), 2);
        let read = ring.read(0, 100);
        assert_eq!(read.pieces, [(1, b"abc".to_vec()), (2, b"def".to_vec())]);
        assert_eq!(ring.read(0, 4).pieces, [(1, b"abc".to_vec()), (2, b"d".to_vec())]);
        // The connection broke behind `abcd`.
        assert_eq!(ring.read(4, 100).pieces, [(2, b"ef".to_vec())]);
        assert_eq!((ring.room(), ring.acked(), ring.end()), (6, 4, 6));
        ring.push(2, b"ghijkl");
        assert_eq!((ring.room(), bytes(&ring.read(4, 100))), (0, b"efghijkl".to_vec()));
        let late = ring.read(0, 100);
        assert_eq!((late.from, bytes(&late)), (4, b"efghijkl".to_vec()));
        ring.read(12, 100);
        ring.forget();
        assert_eq!((ring.base, ring.pieces.len()), (12, 0));
    }

    #[test]
    fn a_writer_that_may_not_wait_drops_the_oldest() {
        let mut ring = Ring::new(4);
        ring.force(1, b"abc");
        ring.force(1, b"defghi");
        let read = ring.read(0, 100);
        assert_eq!((read.from, bytes(&read)), (5, b"fghi".to_vec()));
    }

    #[test]
    fn a_writer_that_changes_its_stream_at_every_byte_waits_too() {
        let mut ring = Ring::new(1 << 20);
        let mut count = 0_u64;
        while ring.room() > 0 {
            ring.push(count % 2, b"x");
            count += 1;
        }
        assert_eq!(count, PIECES as u64);
        assert_eq!(ring.read(0, 10).pieces.len(), 10);
        assert_eq!(ring.room(), 0);
        ring.read(count / 2, 10);
        assert!(ring.room() > 0);
        for _ in 0..PIECES {
            ring.force(2, b"y");
            ring.force(3, b"z");
        }
        assert_eq!(ring.read(0, 1).from, count + PIECES as u64);
    }

    proptest! {
        /// A reader whose answers get lost at will, and a writer that keeps to the room: every byte
        /// arrives once, in order, and the ring is never larger than it may be.
        #[test]
        fn every_byte_arrives_once(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0..40_usize, any::<u8>()), 1..200),
        ) {
            let mut ring = Ring::new(64);
            let (mut written, mut arrived) = (Vec::new(), Vec::new());
            for (writes, lost, len, byte) in steps {
                if writes {
                    let piece = vec![byte; len.min(ring.room())];
                    ring.push(byte % 2, &piece);
                    written.extend(piece);
                } else {
                    let read = ring.read(arrived.len() as u64, len);
                    prop_assert_eq!(read.from, arrived.len() as u64);
                    if !lost {
                        arrived.extend(bytes(&read));
                    }
                }
                prop_assert!(ring.end - ring.base <= 64);
                prop_assert_eq!(ring.end, written.len() as u64);
            }
            loop {
                let read = ring.read(arrived.len() as u64, 7);
                if read.pieces.is_empty() {
                    break;
                }
                arrived.extend(bytes(&read));
            }
            prop_assert_eq!(arrived, written);
        }
    }
}
