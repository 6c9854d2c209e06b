//! Which process gets the next request: the one with the fewest in flight.
//!
//! Pure: counts in, an index out. There is no affinity to a client, on purpose: a process shares
//! nothing, so any of them will do.

/// What is known of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests it is answering.
    pub(crate) in_flight: usize,
    /// A connection to it failed a moment ago, or it answers nothing.
    pub(crate) quarantined: bool,
    /// This very request has tried it.
    pub(crate) tried: bool,
}

/// The index of the candidate to use; `None` when every one of them has been tried.
///
/// A quarantined one is used only if there is no other: a failure that we guess at is no reason
/// to refuse a request. Ties go round, from `turn` on.
pub(crate) fn choose(loads: &[Load], turn: usize) -> Option<usize> {
    let count = loads.len();
    (0..count)
        .map(|step| (turn % count + step) % count)
        .filter(|&index| !loads[index].tried)
        .min_by_key(|&index| (loads[index].quarantined, loads[index].in_flight))
}

#[cfg(test)]
mod tests;
