//! Counts of how long things took, in the buckets of Prometheus.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper edges in milliseconds, and one more bucket for what is longer.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    edges: [u64; N],
    buckets: [AtomicU64; N],
    longer: AtomicU64,
    micros: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counted {
    /// Upper edge in seconds → how many were not longer.
    pub(crate) up_to: Vec<(f64, u64)>,
    pub(crate) count: u64,
    /// In seconds.
    pub(crate) sum: f64,
}

impl<const N: usize> Histogram<N> {
    pub(crate) const fn new(edges: [u64; N]) -> Self {
        Self {
            edges,
            buckets: [const { AtomicU64::new(0) }; N],
            longer: AtomicU64::new(0),
            micros: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, took: Duration) {
        let place = self.edges.iter().position(|&edge| took <= Duration::from_millis(edge));
        let bucket = place.and_then(|place| self.buckets.get(place)).unwrap_or(&self.longer);
        bucket.fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn counted(&self) -> Counted {
        let mut count = 0;
        let both = self.edges.iter().zip(&self.buckets);
        let up_to = both.map(|(&edge, bucket)| {
            count += bucket.load(Relaxed);
            (Duration::from_millis(edge).as_secs_f64(), count)
        });
        let up_to = up_to.collect();
        count += self.longer.load(Relaxed);
        let sum = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        Counted { up_to, count, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_in_its_bucket_and_those_above() {
        let histogram = Histogram::new([10, 100]);
        for millis in [0, 10, 11, 100, 101, 5000] {
            histogram.add(Duration::from_millis(millis));
        }
        let counted = histogram.counted();
        assert_eq!(counted.up_to, [(0.01, 2), (0.1, 4)]);
        assert_eq!((counted.count, counted.sum), (6, 5.222));
    }
}
