//! What is measured of one system under one workload.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The figures of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) events: u64,
    pub(crate) seconds: f64,
    /// Of one append, or of the way to a live subscriber; of reading there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<Percentiles>,
    /// Processor time of the server; of an embedded system that of the whole process.
    pub(crate) cpu_seconds: f64,
    /// By how much its folder grew; absent where nothing was appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_bytes: Option<u64>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

/// What clients have done.
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) seconds: f64,
    pub(crate) latencies: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn nothing() -> Self {
        let latencies = Histogram::new_with_bounds(1, 600_000_000, 3);
        let latencies = latencies.expect("these bounds are valid");
        Self { events: 0, seconds: 0.0, latencies }
    }

    /// Records one append or delivery; what is beyond the bounds counts as the bound.
    pub(crate) fn record(&mut self, events: u64, latency: Duration) {
        self.events += events;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(micros.max(1));
    }

    /// Adds what another client did in the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.latencies += &other.latencies;
    }

    /// The percentiles of what was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        let max = self.latencies.max();
        (max > 0).then(|| Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), max })
    }
}
