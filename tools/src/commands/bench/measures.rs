//! What a benchmark found, under the names that all benchmarks share.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::failure::Failure;
use crate::files::{cpu_seconds, peak_rss_bytes};
use crate::output::Output;
use crate::table::write_facts;
use crate::units;
use crate::wait::{now, since};

/// The figures of one run; what does not apply is left out.
#[derive(Default, Serialize)]
pub(crate) struct Measures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) opens: Option<u64>,
    pub(crate) events: u64,
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) events_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mb_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) groups: Option<u64>,
    pub(crate) bytes_on_disk: u64,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) cpu_seconds: f64,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Measures {
    /// Adds what can be worked out from a number of events with `bytes` bytes in all.
    #[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
    pub(crate) fn rates(&mut self, bytes: u64) {
        self.events_per_s = Some(round(self.events as f64 / self.seconds));
        self.mb_per_s = Some(round(bytes as f64 / 1e6 / self.seconds));
    }

    /// Prints them.
    pub(crate) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        if out.is_json() {
            return out.object(self);
        }
        let mut facts = Vec::new();
        facts.extend(self.opens.map(|opens| ("opens", units::count(opens))));
        facts.push(("events", units::count(self.events)));
        facts.push(("seconds", format!("{:.2}", self.seconds)));
        facts.extend(self.events_per_s.map(|rate| ("events/s", thousands(rate))));
        facts.extend(self.mb_per_s.map(|rate| ("MB/s", format!("{rate:.1}"))));
        facts.extend(self.latency_us.map(|latency| ("latency", latency.text())));
        facts.extend(self.groups.map(|groups| ("groups", units::count(groups))));
        facts.push(("on disk", units::bytes(self.bytes_on_disk)));
        facts.push(("peak memory", units::bytes(self.peak_rss_bytes)));
        facts.push(("processor", format!("{:.2} s", self.cpu_seconds)));
        write_facts(out, facts)
    }
}

impl Percentiles {
    /// The percentiles of recorded microseconds.
    pub(crate) fn of(latencies: &Histogram<u64>) -> Self {
        Self {
            p50: latencies.value_at_quantile(0.5),
            p90: latencies.value_at_quantile(0.9),
            p99: latencies.value_at_quantile(0.99),
            p999: latencies.value_at_quantile(0.999),
            max: latencies.max(),
        }
    }

    /// The median of each over runs, of which there is at least one.
    pub(crate) fn medians(runs: &[Self]) -> Self {
        let median = |of: fn(&Self) -> u64| {
            let mut values: Vec<u64> = runs.iter().map(of).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        Self {
            p50: median(|it| it.p50),
            p90: median(|it| it.p90),
            p99: median(|it| it.p99),
            p999: median(|it| it.p999),
            max: median(|it| it.max),
        }
    }

    /// As people read them.
    pub(crate) fn text(self) -> String {
        let text = |micros| units::duration(Duration::from_micros(micros));
        format!(
            "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            text(self.p50),
            text(self.p90),
            text(self.p99),
            text(self.p999),
            text(self.max)
        )
    }
}

/// Measures a run from here to [`Meter::measures`].
pub(crate) struct Meter {
    started: Duration,
    cpu_seconds_before: f64,
}

impl Meter {
    /// Begins.
    pub(crate) fn start() -> Self {
        Self { started: now(), cpu_seconds_before: cpu_seconds() }
    }

    /// Time, processor time and memory so far.
    pub(crate) fn measures(&self) -> Measures {
        Measures {
            seconds: to_micros(since(self.started).as_secs_f64()),
            cpu_seconds: to_micros(cpu_seconds() - self.cpu_seconds_before),
            peak_rss_bytes: peak_rss_bytes(),
            ..Measures::default()
        }
    }
}

/// A histogram of microseconds, up to ten minutes with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("these bounds are valid")
}

/// Records a latency; what is beyond the bounds counts as the bound.
pub(crate) fn record(latencies: &mut Histogram<u64>, latency: Duration) {
    latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

fn to_micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// A rate to one digit after the point.
pub(crate) fn round(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive")]
fn thousands(rate: f64) -> String {
    units::count(rate as u64)
}
