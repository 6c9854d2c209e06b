//! Requests by the host that they were for, counted as they end.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tolv_router::{AccessLine, Code};

use crate::histogram::Histogram;

/// Upper edges of latencies, in milliseconds.
const LATENCIES: [u64; 13] =
    [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000];

/// The requests of each host that is a deploy's, and of all others together: who asks decides
/// about hosts, and must not make this grow.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    hosts: RwLock<HashMap<String, Arc<Requests>>>,
    others: Arc<Requests>,
}

/// The requests for one host.
#[derive(Debug)]
pub(crate) struct Requests {
    /// By the status's first digit; what has none of 1 to 5 is 0.
    statuses: [AtomicU64; 6],
    errors: Mutex<BTreeMap<Code, u64>>,
    pub(crate) latency: Histogram<13>,
    pub(crate) bytes: AtomicU64,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            statuses: Default::default(),
            errors: Mutex::default(),
            latency: Histogram::new(LATENCIES),
            bytes: AtomicU64::new(0),
        }
    }
}

impl Requests {
    fn add(&self, line: &AccessLine) {
        let class = usize::from(line.status / 100);
        let class = if class < self.statuses.len() { class } else { 0 };
        self.statuses[class].fetch_add(1, Relaxed);
        self.latency.add(line.service);
        self.bytes.fetch_add(line.bytes, Relaxed);
        if let Some(code) = line.code {
            let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            *errors.entry(code).or_default() += 1;
        }
    }

    /// `2xx` → how many.
    pub(crate) fn by_class(&self) -> Vec<(String, u64)> {
        let all = self.statuses.iter().enumerate().skip(1);
        all.map(|(class, count)| (format!("{class}xx"), count.load(Relaxed))).collect()
    }

    /// Those that failed, by code.
    pub(crate) fn errors(&self) -> BTreeMap<Code, u64> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Traffic {
    /// Counts for a host from here on.
    pub(crate) fn insert(&self, host: String) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).entry(host).or_default();
    }

    pub(crate) fn remove(&self, host: &str) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    /// Those of a host.
    pub(crate) fn of(&self, host: &str) -> Option<Arc<Requests>> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// Those for hosts that are no deploy's.
    pub(crate) fn others(&self) -> &Requests {
        &self.others
    }

    pub(crate) fn add(&self, host: Option<&str>, line: &AccessLine) {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        host.and_then(|host| hosts.get(host)).unwrap_or(&self.others).add(line);
    }
}
