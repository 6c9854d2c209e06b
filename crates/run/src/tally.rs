//! What each process has written, and what of it the log could not take. All one-offs of a type
//! are one account: there is no end of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::control::Control;
use crate::protocol::{Order, Written};

/// The counts of an engine's processes since it began; of those that it found running, since they
/// began.
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
    account: Arc<str>,
    /// The session alone keeps it open: a shim ends with it.
    shim: Weak<Control>,
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

    /// A writer begins, or goes on from what it has written.
    pub(crate) fn begin(
        &self,
        writer: u64,
        account: &Arc<str>,
        shim: Weak<Control>,
        written: Written,
    ) {
        let account = Arc::clone(account);
        self.counts().running.insert(writer, Running { account, shim, written, asked: false });
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
    pub(crate) fn end(&self, writer: u64, account: &Arc<str>, written: Option<Written>) {
        {
            let mut counts = self.counts();
            let before = counts.running.remove(&writer).map(|running| running.written);
            if let Some(last) = written.or(before) {
                let sum = counts.ended.entry(Arc::clone(account)).or_default();
                sum.written += last.written;
                sum.lost += last.lost;
            }
        }
        self.heard.notify_waiters();
    }

    /// By account, as it is now: every shim is asked.
    pub(crate) async fn all(&self) -> BTreeMap<Arc<str>, Written> {
        for running in self.counts().running.values_mut() {
            let shim = running.shim.upgrade();
            running.asked = shim.is_some_and(|shim| shim.order(Order::Count));
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
        for Running { account, written, .. } in counts.running.values() {
            let sum = all.entry(Arc::clone(account)).or_default();
            sum.written += written.written;
            sum.lost += written.lost;
        }
        all
    }
}
