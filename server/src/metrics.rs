//! What operators' machines watch, in Prometheus' text format.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use quipu_engine::{Distribution, LogState, Status};

use crate::scheduling;
use crate::service::Service;

const STATES: [&str; 6] = ["writable", "read_only", "damaged", "no_space", "failed", "closed"];
const MICROS_A_SECOND: f64 = 1e6;

/// All metrics now. Asks the disk.
pub(crate) fn text(service: &Arc<Service>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("quipu");
    let status = service.log.status().ok();
    registry.register_collector(Box::new(Snapshot { service: Arc::clone(service), status }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

struct Snapshot {
    service: Arc<Service>,
    /// None if the disk does not say.
    status: Option<Status>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.log(&mut page)?;
        self.server(&mut page)?;
        match &self.status {
            Some(status) => disk(status, &mut page),
            None => Ok(()),
        }
    }
}

impl Snapshot {
    fn log(&self, page: &mut Page<'_>) -> fmt::Result {
        let log = self.service.log.shared();
        let counts = log.counters.counts();
        page.counter("appends", "Appends stored", counts.appends)?;
        page.counter("events", "Events stored", counts.events)?;
        page.counter("groups", "Groups of appends written", counts.groups)?;
        page.counter("duplicates", "Appends answered as duplicates", counts.duplicates)?;
        page.counter("conflicts", "Appends refused for a version or an id", counts.conflicts)?;
        let (sizes, flushes) = (log.counters.group_sizes(), log.counters.flush_us());
        page.histogram("group_size", "Size of groups", &Unit::Bytes, &sizes, 1.0)?;
        let what = "Duration of durable writes";
        page.histogram("flush_duration", what, &Unit::Seconds, &flushes, MICROS_A_SECOND)?;
        let (bytes, appends) = log.inbox.depth();
        page.gauge("queue_bytes", "Bytes of appends before the sequencer", bytes)?;
        page.gauge("queue_appends", "Appends before the sequencer", appends)?;
        page.gauge("watermark", "Position of the last durable event", log.watermark.current().0)?;
        page.one_of(
            "log_state",
            "state",
            "State of the log: 1 for what it is in",
            &STATES,
            state(&log.state()),
        )?;
        let damaged = usize::from(log.found_damage().is_some() || log.damage().is_some());
        page.gauge("log_damaged", "1 if damage was found, at the opening or by a read", damaged)?;
        let class = scheduling::class();
        page.one_of(
            "scheduling_class",
            "class",
            "Scheduling class of the threads that write",
            &[class],
            class,
        )
    }

    fn server(&self, page: &mut Page<'_>) -> fmt::Result {
        let (meter, load) = (&self.service.meter, self.service.load());
        let end = self.service.log.shared().watermark.current();
        let total = meter.connections_total.load(Ordering::Relaxed);
        let refused = meter.refused_total.load(Ordering::Relaxed);
        page.gauge("connections", "Connections open", load.connections)?;
        page.counter("connections_opened", "Connections served", total)?;
        page.counter("connections_refused", "Connections over the limit", refused)?;
        let failures = meter.accept_failures.load(Ordering::Relaxed);
        page.counter("accept_failures", "Connections not accepted by the system", failures)?;
        page.gauge("streams", "Reads and subscriptions open", load.streams)?;
        page.gauge("subscribers", "Subscriptions open", load.subscribers)?;
        page.gauge(
            "subscriber_lag_max_events",
            "Events that the subscriber furthest behind has yet to be sent",
            meter.lag_max(end),
        )?;
        page.gauge(
            "held_append_bytes",
            "Bytes of appends that are not answered",
            load.append_bytes,
        )?;
        page.gauge(
            "held_output_bytes",
            "Bytes of records that wait for sockets",
            load.output_bytes,
        )?;
        let (bytes_in, bytes_out) = (&meter.bytes_in, &meter.bytes_out);
        page.counter("received_bytes", "Bytes received", bytes_in.load(Ordering::Relaxed))?;
        page.counter("sent_bytes", "Bytes sent", bytes_out.load(Ordering::Relaxed))?;
        page.gauge(
            "stopping",
            "1 while the server stops in order",
            usize::from(self.service.stop.is_cancelled()),
        )
    }
}

fn disk(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    page.gauge("segments", "Segments", status.segments.len())?;
    let index = &status.index;
    page.gauge("index_runs", "Sorted runs of the index of ids and versions", index.runs)?;
    page.gauge("index_disk_bytes", "Bytes of the files of these runs", index.run_bytes)?;
    page.gauge("index_memory_bytes", "Bytes of the index in memory", index.memory_bytes)?;
    let waiting = index.waiting_segments;
    page.gauge("index_waiting_segments", "Sealed segments in no run yet", waiting)?;
    page.counter("index_reads", "Look-ups that read a run", index.reads)?;
    let help = "Microseconds that the clock is behind what was recorded last";
    page.gauge("clock_lag_us", help, status.clock_lag_us)?;
    page.gauge("disk_used_bytes", "Bytes of all files of the log", status.bytes_on_disk)?;
    page.gauge("disk_free_bytes", "Bytes free on its file system", status.free_bytes)
}

fn state(state: &LogState) -> &'static str {
    match state {
        LogState::Writable => "writable",
        LogState::ReadOnly => "read_only",
        LogState::Damaged(_) => "damaged",
        LogState::NoSpace(_) => "no_space",
        LogState::Closed => "closed",
        _ => "failed",
    }
}

/// The page being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let descriptor = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode(descriptor)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl TryInto<i64>) -> fmt::Result {
        let gauge = ConstGauge::new(value.try_into().unwrap_or(i64::MAX));
        let descriptor = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode(descriptor)
    }

    /// 1 for what is the case, 0 for what else might be.
    fn one_of(
        &mut self,
        name: &str,
        label: &str,
        help: &str,
        all: &[&str],
        now: &str,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for one in all {
            let labels = [(label, *one)];
            let gauge = ConstGauge::new(i64::from(*one == now));
            gauge.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        values: &Distribution,
        divisor: f64,
    ) -> fmt::Result {
        let scaled = |value: u64| precise(value) / divisor;
        let mut buckets: Vec<(f64, u64)> =
            values.buckets.iter().map(|(bound, count)| (scaled(*bound), *count)).collect();
        buckets.push((f64::MAX, values.beyond));
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut histogram =
            self.0.encode_descriptor(name, help, Some(unit), MetricType::Histogram)?;
        histogram.encode_histogram::<[(&str, &str); 0]>(scaled(values.sum), count, &buckets, None)
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are fractions; 53 bits are enough")]
fn precise(value: u64) -> f64 {
    value as f64
}
