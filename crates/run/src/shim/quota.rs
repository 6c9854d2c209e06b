//! When a process is at its memory limit (R14): a decision over time, without a clock or a file.
//!
//! ```text
//!           hint                 is at the limit: say so, look again
//!  Quiet ─────────▶ look ◀───────────────────────┐
//!    ▲               │ └── page cache fills it: look again, later and later, soon while it grows
//!    └───────────────┘ neither: the kernel tells of the next time, after a rest
//! ```

use std::time::{Duration, Instant};

use tolv_sandbox::MemoryUse;

/// Between two words about it, as Heroku's.
const AGAIN: Duration = Duration::from_secs(20);
/// Between two looks at one that grows where page cache fills its memory, which gives way.
const SOON: Duration = Duration::from_millis(100);
/// Most between two looks where page cache fills the memory, which is no trouble.
const SELDOM: Duration = Duration::from_secs(300);

/// The watch over one process's memory.
#[derive(Debug)]
pub(super) struct Quota {
    /// When to look; nothing while the kernel is to give a hint.
    pub(super) look_at: Option<Instant>,
    pause: Duration,
    /// What it held at the last look.
    held: u64,
    /// Whether a hint that meant nothing was some time ago: hints may come without end.
    is_rested: bool,
}

impl Default for Quota {
    fn default() -> Self {
        Self { look_at: None, pause: SOON, held: 0, is_rested: false }
    }
}

impl Quota {
    /// Whether it waits for a hint.
    pub(super) fn is_quiet(&self) -> bool {
        self.look_at.is_none()
    }

    /// The kernel gave one.
    pub(super) fn hint(&mut self, now: Instant) {
        self.look_at.get_or_insert(now);
    }

    /// Somebody has looked: whether it is at its limit, which is to be said.
    pub(super) fn looked(&mut self, now: Instant, found: Option<MemoryUse>) -> bool {
        let Some(found) = found else {
            // The kernel does not say: nothing will ever be known.
            self.look_at = None;
            return false;
        };
        if found.is_at_limit() {
            self.is_rested = true;
            self.pause = SOON;
            self.look_at = Some(now + AGAIN);
            return true;
        }
        if found.is_near() {
            self.is_rested = true;
            if found.held > self.held + found.limit / 100 {
                self.pause = SOON;
            }
            self.held = found.held;
            self.look_at = Some(now + self.pause);
            self.pause = (self.pause * 2).min(SELDOM);
        } else if self.is_rested {
            *self = Self::default();
        } else {
            self.is_rested = true;
            self.look_at = Some(now + AGAIN);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(held: u64, cache: u64) -> Option<MemoryUse> {
        Some(MemoryUse { held, cache, limit: 1000 })
    }

    #[test]
    fn what_is_at_its_limit_is_said_again_and_again() {
        let (mut quota, now) = (Quota::default(), Instant::now());
        assert!(quota.is_quiet());
        quota.hint(now);
        assert_eq!(quota.look_at, Some(now));
        assert!(quota.looked(now, of(990, 0)));
        // A hint meanwhile changes nothing.
        quota.hint(now + AGAIN / 2);
        assert_eq!(quota.look_at, Some(now + AGAIN));
        assert!(quota.looked(now + AGAIN, of(960, 40)));
        assert!(!quota.looked(now + 2 * AGAIN, of(100, 0)));
        assert!(quota.is_quiet());
    }

    #[test]
    fn page_cache_is_looked_at_less_and_less() {
        let (mut quota, now) = (Quota::default(), Instant::now());
        quota.hint(now);
        let mut pauses = Vec::new();
        for _ in 0..14 {
            assert!(!quota.looked(now, of(100, 890)));
            pauses.push((quota.look_at.unwrap() - now).as_millis());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[12..], [300_000; 2]);
        // One that grows is looked at soon.
        quota.looked(now, of(150, 840));
        assert_eq!(quota.look_at, Some(now + SOON));
        // What fills it then is found all the same, and begins anew.
        assert!(quota.looked(now, of(970, 30)));
        assert!(!quota.looked(now, of(100, 890)));
        assert_eq!(quota.look_at, Some(now + SOON));
    }

    #[test]
    fn a_hint_that_means_nothing_is_not_taken_at_once_again() {
        let (mut quota, now) = (Quota::default(), Instant::now());
        quota.hint(now);
        assert!(!quota.looked(now, of(10, 10)));
        assert_eq!(quota.look_at, Some(now + AGAIN));
        assert!(!quota.looked(now + AGAIN, of(10, 10)));
        assert!(quota.is_quiet());
    }

    #[test]
    fn where_the_kernel_does_not_say_nobody_looks_again() {
        let (mut quota, now) = (Quota::default(), Instant::now());
        quota.hint(now);
        assert!(!quota.looked(now, None));
        assert!(quota.is_quiet());
    }
}
