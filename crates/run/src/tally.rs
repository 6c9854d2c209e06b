//! What each process has written, and what of it the log could not take.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tolv_logs::store::Count;

/// Output of one process type's process, over all its starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Taken in from it.
    pub written: Count,
    /// Neither the disk nor the memory took it.
    pub lost: Count,
}

/// The counts of an engine's processes since it began.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Of starts that are over.
    ended: BTreeMap<Arc<str>, Written>,
    /// Writer → of whom, and what it said last.
    running: HashMap<u64, (Arc<str>, Written)>,
}

impl Tally {
    /// A writer has come this far.
    pub(crate) fn set(&self, writer: u64, process: &Arc<str>, written: Written) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.running.insert(writer, (Arc::clone(process), written));
    }

    /// At least this much of a writer is in the log: it rings once, and writes on.
    pub(crate) fn seen(&self, writer: u64, count: Count) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, written)) = counts.running.get_mut(&writer)
            && count.lines > written.written.lines
        {
            written.written = count;
        }
    }

    /// A writer is done; this is the last that it said.
    pub(crate) fn end(&self, writer: u64, process: &Arc<str>, written: Option<Written>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = counts.running.remove(&writer).map(|(_, written)| written);
        let Some(last) = written.or(before) else { return };
        let sum = counts.ended.entry(Arc::clone(process)).or_default();
        sum.written += last.written;
        sum.lost += last.lost;
    }

    /// By process.
    pub(crate) fn all(&self) -> BTreeMap<Arc<str>, Written> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = counts.ended.clone();
        for (process, written) in counts.running.values() {
            let sum = all.entry(Arc::clone(process)).or_default();
            sum.written += written.written;
            sum.lost += written.lost;
        }
        all
    }
}
