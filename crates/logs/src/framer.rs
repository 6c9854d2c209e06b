//! Bytes of one stream to lines, without copying them.
//!
//! The reader of a pipe fills [`Framer::space`] and hands out [`Batch`]es: as many whole lines as
//! one read brought, as one slice. A line without its end waits for the rest at the front of the
//! buffer; one over [`MAX_LINE`] bytes leaves in pieces, marked.
//!
//! # Invariants
//!
//! * What goes in comes out, in order, minus the line ends: the pieces of a line, put together,
//!   are the line.
//! * A batch of more than one line has no marks: only a piece alone in its batch has.

use crate::line::Marks;

/// Longest piece of a line, in bytes.
pub const MAX_LINE: usize = 10_000;
/// Bytes that one read may bring at first, and at most: most processes say little.
const READ: (usize, usize) = (4 * 1024, 64 * 1024);

/// Whole lines, or one piece of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The lines with `\n` between them, none at the end.
    pub bytes: &'a [u8],
    /// How many lines there are.
    pub lines: u32,
    /// How a lone piece belongs to its line.
    pub marks: Marks,
}

/// Takes in one stream. See the [module](self).
#[derive(Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Bytes of an unfinished line, at the front of the buffer.
    held: usize,
    /// Bytes that the next read may bring.
    room: usize,
    /// Whether a piece of the unfinished line left already.
    continued: bool,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// For a stream at its start.
    pub fn new() -> Self {
        Self { buffer: Vec::new(), held: 0, room: READ.0, continued: false }
    }

    /// Where the next read may put its bytes; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        let end = self.held + self.room;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.held..end]
    }

    /// Whether a line is waiting for its end.
    pub fn is_pending(&self) -> bool {
        self.held > 0
    }

    /// Takes in the first `read` bytes of [`Framer::space`].
    pub fn filled(&mut self, read: usize, mut emit: impl FnMut(Batch<'_>)) {
        let end = (self.held + read).min(self.buffer.len());
        if read >= self.room {
            // There may be more than fits.
            self.room = (self.room * 4).min(READ.1);
        }
        let bytes = &self.buffer[..end];
        // Whole lines that have not left yet: `bytes[start..line]`, `lines` of them.
        let (mut start, mut line, mut lines) = (0, 0, 0);
        let give = |from: usize, to: usize, lines: u32, emit: &mut dyn FnMut(Batch<'_>)| {
            if lines > 0 {
                emit(Batch { bytes: &bytes[from..to - 1], lines, marks: Marks::default() });
            }
        };
        for newline in memchr::memchr_iter(b'\n', &bytes[self.held..]) {
            let newline = newline + self.held;
            if self.continued || newline - line > MAX_LINE {
                give(start, line, lines, &mut emit);
                let rest = long(&bytes[line..newline], &mut self.continued, false, &mut emit);
                emit(Batch {
                    bytes: rest,
                    lines: 1,
                    marks: Marks { continued: self.continued, ..Marks::default() },
                });
                self.continued = false;
                (start, lines) = (newline + 1, 0);
            } else {
                lines += 1;
            }
            line = newline + 1;
        }
        give(start, line, lines, &mut emit);
        let rest = long(&bytes[line..], &mut self.continued, true, &mut emit).len();
        self.buffer.copy_within(end - rest..end, 0);
        self.held = rest;
    }

    /// Gives out the unfinished line as far as it is: `ended` when the stream is over, else the
    /// piece is marked as going on.
    pub fn flush(&mut self, ended: bool, mut emit: impl FnMut(Batch<'_>)) {
        if self.held > 0 {
            let marks = Marks { more: !ended, continued: self.continued, long: false };
            emit(Batch { bytes: &self.buffer[..self.held], lines: 1, marks });
            self.continued = !ended;
            self.held = 0;
        }
    }
}

/// Gives out what is over [`MAX_LINE`] of one line in marked pieces; returns the rest.
fn long<'a>(
    mut line: &'a [u8],
    continued: &mut bool,
    open: bool,
    emit: &mut dyn FnMut(Batch<'_>),
) -> &'a [u8] {
    // An open line of exactly MAX_LINE bytes may still end here.
    debug_assert!(open || !line.contains(&b'\n'));
    while line.len() > MAX_LINE {
        let (piece, rest) = line.split_at(MAX_LINE);
        emit(Batch {
            bytes: piece,
            lines: 1,
            marks: Marks { more: true, continued: *continued, long: true },
        });
        *continued = true;
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests;
