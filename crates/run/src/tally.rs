//! What each process has written, and what of it the log could not take.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;
use tolv_logs::store::Count;

use crate::child::Control;
use crate::protocol::Order;

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
pub(crate) struct Tally {
    counts: Mutex<Counts>,
    /// Somebody has answered.
    heard: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// Of starts that are over.
    ended: BTreeMap<Arc<str>, Written>,
    /// By writer.
    running: HashMap<u64, Running>,
}

/// A start that is not over.
#[derive(Debug)]
struct Running {
    process: Arc<str>,
    shim: Arc<Control>,
    /// What it said last.
    written: Written,
    /// Whether it was asked and has not answered.
    asked: bool,
}

/// For shims to answer how much they have written.
const ANSWER: Duration = Duration::from_millis(250);

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A writer begins.
    pub(crate) fn begin(&self, writer: u64, process: &Arc<str>, shim: Arc<Control>) {
        let (process, written) = (Arc::clone(process), Written::default());
        self.counts().running.insert(writer, Running { process, shim, written, asked: false });
    }

    /// A writer has come this far.
    pub(crate) fn set(&self, writer: u64, written: Written) {
        if let Some(running) = self.counts().running.get_mut(&writer) {
            running.written = written;
            running.asked = false;
        }
        self.heard.notify_waiters();
    }

    /// A writer is done; this is the last that it said.
    pub(crate) fn end(&self, writer: u64, process: &Arc<str>, written: Option<Written>) {
        {
            let mut counts = self.counts();
            let before = counts.running.remove(&writer).map(|running| running.written);
            if let Some(last) = written.or(before) {
                let sum = counts.ended.entry(Arc::clone(process)).or_default();
                sum.written += last.written;
                sum.lost += last.lost;
            }
        }
        self.heard.notify_waiters();
    }

    /// By process, as it is now: every shim is asked.
    pub(crate) async fn all(&self) -> BTreeMap<Arc<str>, Written> {
        for running in self.counts().running.values_mut() {
            running.asked = running.shim.order(&Order::Count);
        }
        let answered = async {
            loop {
                let heard = self.heard.notified();
                tokio::pin!(heard);
                heard.as_mut().enable();
                if self.counts().running.values().all(|running| !running.asked) {
                    return;
                }
                heard.await;
            }
        };
        // Of one that is stopped, what it said before counts.
        timeout(ANSWER, answered).await.ok();
        let counts = self.counts();
        let mut all = counts.ended.clone();
        for Running { process, written, .. } in counts.running.values() {
            let sum = all.entry(Arc::clone(process)).or_default();
            sum.written += written.written;
            sum.lost += written.lost;
        }
        all
    }
}
