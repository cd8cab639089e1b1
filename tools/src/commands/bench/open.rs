//! `quipu bench open`: how long it takes until a log takes appends, after a stop in order and after
//! a kill. Each start is a process of its own, as any start is.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::append::{self, Plan};
use super::events::Ids;
use super::measures::{Percentiles, histogram};
use super::{event_bytes, from_1_to};
use crate::failure::Failure;
use crate::files::drop_from_cache;
use crate::log_args::{LogArgs, status_of};
use crate::open_args::OpenArgs;
use crate::output::{Output, whisper};
use crate::session::Target;
use crate::table::write_facts;
use crate::units;
use start::{End, Start};

mod start;

const EXAMPLES: &str = "Examples:
  quipu bench open --log ./bench-log --times 20 --json
  quipu bench open --log ./bench-log --events 1000000 --aggregates 100000 --kills 10
  quipu bench open --log ./bench-log --read-aggregate --cold

With --events a log that has fewer is filled first, once: events of --event-bytes without
correlation and causation ids, in appends of 100, each event of another
aggregate. With --kills a process appends made-up events
until it is killed (SIGKILL), again and again, and each next start is measured: use a log that is
made for this.

A latency is from the call that opens the log to its return: then it takes appends. Memory is that
of the process right after, at most; the index is what ids and versions have of it.";

/// What to open, and how often.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    how: OpenArgs,
    /// Starts after a stop in order.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = from_1_to(1_000_000))]
    times: u64,
    /// Starts after a kill; each adds made-up events to the log.
    #[arg(long, value_name = "N", default_value_t = 0)]
    kills: u64,
    /// Fill the log up to so many events first.
    #[arg(long, value_name = "N", value_parser = from_1_to(100_000_000_000))]
    events: Option<u64>,
    /// Payload of an event that fills it: JSON that does not compress.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = event_bytes())]
    event_bytes: u64,
    /// Aggregates that it is filled with.
    #[arg(long, value_name = "A", default_value_t = 10_000, value_parser = from_1_to(100_000_000))]
    aggregates: u64,
    /// How ids of events are made.
    #[arg(long, value_enum, default_value_t = Ids::V7)]
    ids: Ids,
    /// Read an aggregate after each start in order: the first time, and again.
    #[arg(long)]
    read_aggregate: bool,
    /// Drop the log's files from the page cache before each start.
    #[arg(long)]
    cold: bool,
    /// Start once, and say how that went: what this command runs to measure it.
    #[arg(long, value_enum, hide = true)]
    start: Option<End>,
}

impl Args {
    fn log(&self) -> LogArgs {
        LogArgs { options: self.how.options(), ..self.log.clone() }
    }

    fn plan(&self) -> Plan {
        Plan {
            writers: 1,
            threads: 1,
            in_flight: 8,
            batch: 100,
            event_bytes: self.event_bytes,
            aggregates: self.aggregates,
            ids: self.ids,
            unlinked: true,
            spread: true,
            seconds: u64::from(u32::MAX),
            events: None,
            rate: None,
        }
    }
}

/// What starts have shown; what does not apply is left out.
#[derive(Serialize)]
struct Found {
    opens: u64,
    latency_us: Percentiles,
    #[serde(skip_serializing_if = "Option::is_none")]
    kills: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    killed_latency_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate_events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate_first_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate_again_us: Option<Percentiles>,
    /// At the last start, as are the next four.
    events: u64,
    active_events: u64,
    aggregates: u64,
    segments: u64,
    bytes_on_disk: u64,
    /// The most at any start.
    index_bytes: u64,
    rss_bytes: u64,
    peak_rss_bytes: u64,
    /// Of all starts that were measured.
    cpu_seconds: f64,
}

/// Fills the log if it is to be filled, starts it, and prints what was measured.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    if let Some(end) = args.start {
        return start::run(args, end, out);
    }
    match args.events {
        Some(events) => fill(args, events)?,
        None => args.log().open_to_read()?.close(),
    }
    print(&measure(args)?, out)
}

fn fill(args: &Args, events: u64) -> Result<(), Failure> {
    let log = args.log().open()?;
    let missing = events.saturating_sub(status_of(&log)?.last_position.0);
    if missing > 0 {
        whisper(format_args!("filling the log: {} to come", units::plural(missing, "event")));
        let plan = Plan { events: Some(missing), ..args.plan() };
        append::measure(&plan, Target::Log(&log))?;
    }
    log.close();
    Ok(())
}

fn measure(args: &Args) -> Result<Found, Failure> {
    // Not counted: the log may not have been closed in order.
    start(args, End::Close, None)?;
    let in_order = || start(args, End::Close, Some(true));
    let closed: Vec<Start> = (0..args.times).map(|_| in_order()).collect::<Result<_, _>>()?;
    let mut killed = Vec::new();
    if args.kills > 0 {
        start(args, End::Kill, Some(true))?;
        for left in (0..args.kills).rev() {
            let end = if left == 0 { End::Close } else { End::Kill };
            killed.push(start(args, end, Some(false))?);
        }
    }
    found(&closed, &killed).ok_or_else(|| Failure::Usage("nothing was started".to_owned()))
}

/// One start, of a log that was closed in order or not, as far as that is known.
fn start(args: &Args, end: End, was_closed: Option<bool>) -> Result<Start, Failure> {
    if args.cold {
        drop_from_cache(&args.log.log)?;
    }
    let start = start::in_a_process(end)?;
    match was_closed {
        Some(expected) if expected != start.clean => Err(Failure::No(format!(
            "somebody else works on the log: it was {}closed in order",
            if start.clean { "" } else { "not " }
        ))),
        _ => Ok(start),
    }
}

fn found(closed: &[Start], killed: &[Start]) -> Option<Found> {
    let all = || closed.iter().chain(killed);
    let last = all().last()?;
    let most = |of: fn(&Start) -> u64| all().map(of).max().unwrap_or(0);
    let reads: Vec<_> = closed.iter().filter_map(|start| start.aggregate.as_ref()).collect();
    Some(Found {
        opens: closed.len() as u64,
        latency_us: percentiles(closed.iter().map(|start| start.open_us))?,
        kills: Some(killed.len() as u64).filter(|kills| *kills > 0),
        killed_latency_us: percentiles(killed.iter().map(|start| start.open_us)),
        aggregate_events: reads.iter().map(|read| read.events).max(),
        aggregate_first_us: percentiles(reads.iter().map(|read| read.first_us)),
        aggregate_again_us: percentiles(reads.iter().map(|read| read.again_us)),
        events: last.events,
        active_events: last.active_events,
        aggregates: last.aggregates,
        segments: last.segments,
        bytes_on_disk: last.bytes_on_disk,
        index_bytes: most(|start| start.index_bytes),
        rss_bytes: most(|start| start.rss_bytes),
        peak_rss_bytes: most(|start| start.peak_rss_bytes),
        cpu_seconds: all().map(|start| start.cpu_seconds).sum(),
    })
}

fn percentiles(micros: impl Iterator<Item = u64>) -> Option<Percentiles> {
    let mut latencies: Histogram<u64> = histogram();
    micros.for_each(|micros| latencies.saturating_record(micros.max(1)));
    (!latencies.is_empty()).then(|| Percentiles::of(&latencies))
}

fn print(found: &Found, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.object(found);
    }
    let mut facts = vec![
        ("starts in order", units::count(found.opens)),
        ("until it takes appends", found.latency_us.text()),
    ];
    facts.extend(found.kills.map(|kills| ("starts after a kill", units::count(kills))));
    facts.extend(found.killed_latency_us.map(|it| ("until it takes appends", it.text())));
    facts.extend(found.aggregate_events.map(|it| ("read an aggregate of", events(it))));
    facts.extend(found.aggregate_first_us.map(|it| ("the first time", it.text())));
    facts.extend(found.aggregate_again_us.map(|it| ("and again", it.text())));
    facts.extend([
        ("events", units::count(found.events)),
        ("in the active segment", units::count(found.active_events)),
        ("aggregates", units::count(found.aggregates)),
        ("segments", units::count(found.segments)),
        ("on disk", units::bytes(found.bytes_on_disk)),
        ("index in memory", units::bytes(found.index_bytes)),
        ("memory", units::bytes(found.rss_bytes)),
        ("peak memory", units::bytes(found.peak_rss_bytes)),
        ("processor", format!("{:.2} s", found.cpu_seconds)),
    ]);
    write_facts(out, facts)
}

fn events(number: u64) -> String {
    format!("up to {}", units::plural(number, "event"))
}
