//! How often something was how large: counted without a lock, on any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of values, each under the first bound that it does not exceed.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [u64; N],
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

/// A histogram's counts at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Each bound, and how many values are at most as large and above the bound before.
    pub buckets: Vec<(u64, u64)>,
    /// Values above the last bound.
    pub beyond: u64,
    /// Sum of all values.
    pub sum: u64,
}

impl<const N: usize> Histogram<N> {
    /// An empty one with these bounds, which rise.
    #[must_use]
    pub const fn new(bounds: [u64; N]) -> Self {
        let counts = [const { AtomicU64::new(0) }; N];
        Self { bounds, counts, beyond: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    pub(crate) fn count(&self, value: u64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(index).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn distribution(&self) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Distribution {
            buckets: self.bounds.into_iter().zip(counts).collect(),
            beyond: self.beyond.load(Ordering::Relaxed),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_under_the_first_bound_that_it_does_not_exceed() {
        let histogram = Histogram::new([10, 20]);
        for value in [0, 10, 11, 20, 21, 1_000] {
            histogram.count(value);
        }
        let expected = Distribution { buckets: vec![(10, 2), (20, 2)], beyond: 2, sum: 1_062 };
        assert_eq!(histogram.distribution(), expected);
    }
}
