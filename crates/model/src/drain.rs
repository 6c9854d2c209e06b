//! What is known of the lines on their way to a drain, and when to try again: without I/O.
//!
//! A receiver over HTTP says what it has taken. One over TCP says nothing: its machine
//! acknowledges bytes that its program may never read. So there lines stay *under way* for a while
//! after they were written, and are written again when the connection breaks.
//!
//! ```text
//!            wrote                     confirm, or: acknowledged and old enough
//!  stored ─────────▶ under way ──────────────────────────────────────────────▶ settled
//!                        │                                                        │
//!                        └── broke: written again from the settled point ◀────────┘
//! ```
//!
//! The end of the platform is no end of the receiver, which reads what its machine has. So the
//! next start goes on at the *acknowledged* point, and takes the settled one only where the
//! receiver is not there: it may have ended with what it had not read.
//!
//! # Invariants
//!
//! * `settled` is never ahead of `acknowledged`, nor that of `head`, nor that of `tried`.
//! * Each line goes out at least once, and what goes out again is counted, whoever ended: it lies
//!   between the point from which sending begins again and what was tried before.

use std::collections::VecDeque;
use std::time::Duration;

use crate::unit::Millis;

/// After this long on a connection that still holds, a receiver has read what its machine
/// acknowledged.
pub const SETTLED: Duration = Duration::from_secs(10);
/// And however slow it reads, it has read what was acknowledged before so many bytes more:
/// above Linux' largest receive buffer (6 MiB).
pub const BUFFERED: u64 = 8 << 20;

/// A place in the log, and what became of the lines before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point<P> {
    /// Where.
    pub place: P,
    /// Lines that were sent.
    pub sent: u64,
    /// Lines that could not be sent any more, or that the receiver refused.
    pub dropped: u64,
}

/// The lines of one drain.
#[derive(Clone, Debug)]
pub struct Flow<P> {
    settled: Point<P>,
    acknowledged: Point<P>,
    head: Point<P>,
    /// Lines that were sent, or began to be.
    tried: u64,
    /// The most lines that were sent, on this connection or one before: it never goes back.
    reached: u64,
    under_way: VecDeque<Mark<P>>,
    /// How many of them, from the front, are known to be acknowledged.
    known: usize,
    /// Bytes that were written on this connection.
    written: u64,
    retried: u64,
}

/// The end of one write.
#[derive(Clone, Debug)]
struct Mark<P> {
    /// When it was written, and once that is known, when it was acknowledged.
    at: Millis,
    written: u64,
    point: Point<P>,
}

impl<P: Clone> Flow<P> {
    /// Begins at a point that is settled; `retried` lines were sent more than once before.
    pub fn new(settled: Point<P>, retried: u64) -> Self {
        let (acknowledged, head, tried) = (settled.clone(), settled.clone(), settled.sent);
        let (reached, under_way) = (settled.sent, VecDeque::new());
        Self {
            settled,
            acknowledged,
            head,
            tried,
            reached,
            under_way,
            known: 0,
            written: 0,
            retried,
        }
    }

    /// Goes on where another platform ended, which knew that `acknowledged` was at the receiver's
    /// machine and had tried to send up to `tried` lines: those between are sent again.
    #[must_use]
    pub fn resume(mut self, acknowledged: Point<P>, tried: u64) -> Self {
        // The acknowledged may be older than the settled, where it could not be kept.
        if acknowledged.sent + acknowledged.dropped > self.settled.sent + self.settled.dropped {
            self.head = acknowledged.clone();
            self.under_way.push_back(Mark {
                at: Millis(0),
                written: 0,
                point: acknowledged.clone(),
            });
            self.known = 1;
            self.acknowledged = acknowledged;
        }
        self.retried += tried.saturating_sub(self.head.sent);
        self.reached = tried.max(self.head.sent);
        self.tried = self.head.sent;
        self
    }

    /// So many lines were sent before, by any platform: the count goes on from there.
    #[must_use]
    pub fn counting_from(mut self, sent: u64) -> Self {
        self.reached = self.reached.max(sent);
        self
    }

    /// What is sure.
    pub fn settled(&self) -> &Point<P> {
        &self.settled
    }

    /// What the receiver's machine has.
    pub fn acknowledged_point(&self) -> &Point<P> {
        &self.acknowledged
    }

    /// Lines that were sent, or began to be, on the way to the last of them.
    pub fn tried(&self) -> u64 {
        self.tried
    }

    /// Lines that were sent at least once, whatever of them is sent again.
    pub fn sent(&self) -> u64 {
        self.reached.max(self.head.sent)
    }

    /// How old the oldest write is that the receiver's machine has not acknowledged.
    pub fn waits_for(&self, now: Millis) -> Option<Duration> {
        self.under_way.get(self.known).map(|mark| now.since(mark.at))
    }

    /// What was written so far.
    pub fn head(&self) -> &Point<P> {
        &self.head
    }

    /// Lines that were sent more than once.
    pub fn retried(&self) -> u64 {
        self.retried
    }

    /// `lines` behind the head are about to be sent.
    pub fn tries(&mut self, lines: u64) {
        self.tried = self.tried.max(self.head.sent + lines);
    }

    /// None of the lines behind `tried` was sent after all.
    pub fn tried_in_vain(&mut self, tried: u64) {
        self.tried = tried.max(self.head.sent);
    }

    /// `sent` lines in `bytes` were written, which are all up to `place` but `dropped` ones.
    pub fn wrote(&mut self, now: Millis, bytes: u64, place: P, sent: u64, dropped: u64) {
        self.written += bytes;
        let (sent, dropped) = (self.head.sent + sent, self.head.dropped + dropped);
        self.head = Point { place, sent, dropped };
        self.reached = self.reached.max(sent);
        self.tried = self.tried.max(sent);
        let (written, point) = (self.written, self.head.clone());
        self.under_way.push_back(Mark { at: now, written, point });
    }

    /// The receiver's machine has all but the last `unacknowledged` bytes; whether that settles
    /// anything.
    pub fn acknowledged(&mut self, now: Millis, unacknowledged: u64) -> bool {
        let acknowledged = self.written.saturating_sub(unacknowledged);
        while let Some(mark) = self.under_way.get_mut(self.known)
            && mark.written <= acknowledged
        {
            mark.at = now;
            self.acknowledged = mark.point.clone();
            self.known += 1;
        }
        let before = self.under_way.len();
        while self.known > 0
            && let Some(mark) = self.under_way.front()
            && now.since(mark.at) >= SETTLED
            && (unacknowledged == 0 || mark.written + BUFFERED <= acknowledged)
            && let Some(mark) = self.under_way.pop_front()
        {
            self.settled = mark.point;
            self.known -= 1;
        }
        self.under_way.len() < before
    }

    /// The receiver has everything.
    pub fn confirm(&mut self) {
        self.settled = self.head.clone();
        self.acknowledged = self.head.clone();
        self.under_way.clear();
        self.known = 0;
    }

    /// The connection is gone: what is under way is to be written again, from the settled point.
    pub fn broke(&mut self) {
        self.retried += self.tried - self.settled.sent;
        self.tried = self.settled.sent;
        self.acknowledged = self.settled.clone();
        self.head = self.settled.clone();
        self.under_way.clear();
        (self.known, self.written) = (0, 0);
    }

    /// `lines` are sent once more.
    pub fn sends_again(&mut self, lines: u64) {
        self.retried += lines;
    }
}

/// Pauses between tries: doubling from half a second to a minute, each at random between its half
/// and its whole, so that the drains of a receiver that comes back do not come all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

/// The first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// The longest that a receiver may ask for (`Retry-After`).
const ASKED: Duration = Duration::from_secs(300);

impl Backoff {
    /// Another failure: how long to wait. `random` is any number, `asked` what the receiver asked
    /// for.
    pub fn failed(&mut self, random: u64, asked: Option<Duration>) -> Duration {
        let doubled = PAUSE.0.saturating_mul(1 << self.failures.min(16)).min(PAUSE.1);
        self.failures = self.failures.saturating_add(1);
        let half = doubled / 2;
        let more = u64::try_from(half.as_millis()).unwrap_or(0) + 1;
        let pause = half + Duration::from_millis(random % more);
        pause.max(asked.unwrap_or_default().min(ASKED))
    }

    /// It works.
    pub fn worked(&mut self) {
        self.failures = 0;
    }

    /// Failures since it worked.
    pub fn failures(self) -> u32 {
        self.failures
    }
}

/// What an HTTP status says of the lines that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has them.
    Taken,
    /// To be sent again later.
    Later,
    /// To be sent again in smaller pieces.
    Smaller,
    /// Never to be sent again: they are dropped.
    Never,
}

impl Verdict {
    /// Of a status. OTLP alone defines one that says never: 400, bad data. Of others it is the
    /// operator's to mend, and the lines wait for that.
    pub fn of(status: u16, is_otlp: bool) -> Self {
        match status {
            200..=299 => Self::Taken,
            413 => Self::Smaller,
            400 if is_otlp => Self::Never,
            _ => Self::Later,
        }
    }
}

#[cfg(test)]
mod tests;
