//! Waiting between two tries.

use std::time::Duration;

use super::AWAY;
use crate::error::{Error, Kind};

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

/// Whether it is worth another try, or the platform ends.
pub(in super::super) fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Stopping) || error.kind() == Kind::Unavailable
}
