//! Tries that are made again.

use std::time::Duration;

use super::AWAY;

/// How long to wait before the next try.
pub(super) struct Patience {
    pub(super) pause: Duration,
    /// Whether it was said why.
    pub(super) said: bool,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { pause: AWAY.0, said: false }
    }
}
