//! `quipu bench replicate`: how fast read models follow a log, beside what Postgres alone can do.

mod calls;
mod lag;
mod process;
mod rivals;

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use quipu_client::{Embedded, EventStore, Options};
use quipu_replicator::{
    CallStatistics, Compliance, EventStoreMirror, OnFailure, Postgres, Projection, Replicator,
    UnfitJson,
};
use serde::Serialize;
use tempfile::TempDir;

use super::events::{EVENT_BYTES_MAX, EVENT_BYTES_MIN, Events, Ids, Kind, RandomText};
use super::from_1_to;
use super::measures::round;
use crate::commands::replicate::runtime;
use crate::failure::Failure;
use crate::output::{Output, whisper};
use crate::random::Random;
use crate::wait::{now, since};

/// Emptied and filled again for every round.
const SCHEMA: &str = "quipu_bench";
const APPEND_EVENTS: u64 = 500;
/// What one INSERT a transaction is measured with: more says no more.
const INSERTS_MAX: u64 = 5_000;

const EXAMPLES: &str = "Examples:
  quipu bench replicate --postgres postgres://postgres@localhost/bench
  quipu bench replicate --postgres URL --rate 20000 --seconds 30 --json
  quipu bench replicate --postgres URL --rate 100000 --runs 5
  quipu bench replicate --postgres URL --process --events 10000000 --runs 1

The median of --runs runs is shown, here with an order of its own in each, since what runs first
leaves Postgres another state than what runs second.
A temporary log is filled and replicated anew in each run. projections: compliance and call
statistics together, from events of calls. mirror: event_store, from events of --event-bytes. copy:
the same rows sent by a bare binary COPY from memory, in the same transactions. insert: one INSERT
and one transaction an event, committed as the server is set to.
With --rate: so many events of calls a second are offered to the log while compliance and call
statistics follow; an event's lag is from when the log took it to when Postgres had committed it,
and all events of a batch count with that of its first.
With --process: compliance and call statistics are filled by a `quipu replicate` of its own, from a
server in this process, so that its memory and processor time are nobody else's.
Tables are made, and dropped, in the schema quipu_bench.";

/// What to replicate, and where.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Address: `postgres://USER@HOST:PORT/DATABASE`; the port may be left out.
    #[arg(long, value_name = "URL")]
    postgres: String,
    /// Events in the log.
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = from_1_to(100_000_000))]
    events: u64,
    /// Payload of a mirrored event: JSON that does not compress.
    #[arg(long, value_name = "N", default_value_t = 1_024,
        value_parser = clap::value_parser!(u64).range(EVENT_BYTES_MIN..=EVENT_BYTES_MAX))]
    event_bytes: u64,
    /// How often each is measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = from_1_to(1_000))]
    runs: u64,
    /// Offer so many events a second instead, and measure the lag.
    #[arg(long, value_name = "R", value_parser = from_1_to(10_000_000))]
    rate: Option<u64>,
    /// Measure a replicator in a process of its own instead: its memory and processor time.
    #[arg(long, conflicts_with = "rate")]
    process: bool,
    /// How long to offer them.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = from_1_to(100_000))]
    seconds: u64,
}

/// The median of what was measured.
#[derive(Serialize)]
struct Figure {
    what: &'static str,
    events: u64,
    seconds: f64,
    events_per_s: f64,
    /// Events a second of the slowest and of the fastest run.
    slowest: f64,
    fastest: f64,
}

impl Figure {
    #[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
    fn of(what: &'static str, events: u64, rounds: &mut [Duration]) -> Self {
        rounds.sort_unstable();
        let rate = |round: Duration| round_rate(events as f64 / round.as_secs_f64());
        let median = rounds[rounds.len() / 2];
        let (slowest, fastest) = (rate(rounds[rounds.len() - 1]), rate(rounds[0]));
        let (seconds, events_per_s) = (median.as_secs_f64(), rate(median));
        Self { what, events, seconds, events_per_s, slowest, fastest }
    }
}

fn round_rate(rate: f64) -> f64 {
    round(rate)
}

/// Replicates, and prints what was measured.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let postgres = Postgres::new(&args.postgres, SCHEMA, None)?;
    match args.rate {
        _ if args.process => process::run(args, &postgres, out),
        Some(rate) => lag::run(args, rate, &postgres, out),
        None => catch_up(args, &postgres, out),
    }
}

fn catch_up(args: &Args, postgres: &Postgres, out: &mut Output) -> Result<(), Failure> {
    let of_calls = TemporaryLog::filled(args.events, calls::fill)?;
    let plain = TemporaryLog::filled(args.events, |log, events| fill(args, log, events))?;
    let runtime = runtime()?;
    let mut rounds: [Vec<Duration>; 4] = Default::default();
    for run in 0..args.runs {
        whisper(format_args!("run {} of {}", run + 1, args.runs));
        for step in 0..4 {
            // In turn forwards and backwards, so that none always comes behind the same other.
            let contestant = if run % 2 == 0 { step } else { 3 - step };
            let taken = runtime.block_on(async {
                match contestant {
                    0 => timed_catch_up(&of_calls.log, postgres, calls::projections()).await,
                    1 => timed_catch_up(&plain.log, postgres, mirror()).await,
                    2 => rivals::copy(&plain.log, postgres).await,
                    _ => rivals::insert(&plain.log, postgres, INSERTS_MAX).await,
                }
            })?;
            rounds[contestant].push(taken);
        }
    }
    runtime.block_on(drop_schema(postgres))?;
    let inserts = args.events.min(INSERTS_MAX);
    let whats = ["projections", "mirror", "copy", "insert"];
    let counts = [args.events, args.events, args.events, inserts];
    let figures: Vec<Figure> = (whats.into_iter().zip(counts).zip(&mut rounds))
        .map(|((what, events), rounds)| Figure::of(what, events, rounds))
        .collect();
    print(&figures, out)
}

fn print(figures: &[Figure], out: &mut Output) -> Result<(), Failure> {
    for figure in figures {
        if out.is_json() {
            out.object(figure)?;
            continue;
        }
        let Figure { what, seconds, events_per_s, slowest, fastest, .. } = figure;
        out.line(format_args!(
            "{what:12} {events_per_s:>10.0} events/s ({slowest:.0} to {fastest:.0}; {seconds:.2} s)"
        ))?;
    }
    let of =
        |what: &str| figures.iter().find(|it| it.what == what).map_or(0.0, |it| it.events_per_s);
    let (copy, insert) = (of("mirror") / of("copy"), of("mirror") / of("insert"));
    if out.is_json() {
        return out
            .object(&serde_json::json!({"mirror_of_copy": copy, "mirror_of_insert": insert}));
    }
    out.line(format_args!("the mirror is {copy:.2} times the copy, {insert:.1} times the inserts"))
}

fn mirror() -> Vec<Arc<dyn Projection>> {
    vec![Arc::new(EventStoreMirror::new(UnfitJson::Bytes, OnFailure::Stop))]
}

/// How long it takes until empty tables hold the whole log.
async fn timed_catch_up(
    log: &Embedded,
    postgres: &Postgres,
    projections: Vec<Arc<dyn Projection>>,
) -> Result<Duration, Failure> {
    drop_schema(postgres).await?;
    let store: Arc<dyn EventStore> = Arc::new(log.clone());
    let replicator = Replicator::new(store, postgres.clone(), projections);
    replicator.make_tables().await?;
    let started = now();
    let summary = replicator.catch_up().await?;
    match summary.failed.first() {
        None => Ok(since(started)),
        Some((name, problem)) => Err(Failure::No(format!("{name} failed: {problem}"))),
    }
}

/// The tables that replication makes, without a replicator.
async fn make_tables(log: &Embedded, postgres: &Postgres) -> Result<(), Failure> {
    drop_schema(postgres).await?;
    let store: Arc<dyn EventStore> = Arc::new(log.clone());
    Ok(Replicator::new(store, postgres.clone(), mirror()).make_tables().await?)
}

async fn drop_schema(postgres: &Postgres) -> Result<(), Failure> {
    let session = postgres.connect("bench").await?;
    let drop = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CHECKPOINT");
    session.run("drop the tables of the bench", &drop).await.map_err(cannot)
}

fn cannot(error: quipu_replicator::SqlError) -> Failure {
    quipu_replicator::ReplicateError::from(error).into()
}

/// A log that is gone with it.
struct TemporaryLog {
    log: Embedded,
    _folder: TempDir,
}

impl TemporaryLog {
    fn filled(
        events: u64,
        fill: impl FnOnce(&Embedded, u64) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let this = Self::empty()?;
        whisper(format_args!("filling a log with {events} events"));
        fill(&this.log, events)?;
        Ok(this)
    }

    fn empty() -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::Unreachable(format!("cannot make a temporary log: {error}"))
        };
        let folder = TempDir::new().map_err(|error| failed(&error))?;
        let opened = Embedded::open(folder.path(), Options::default());
        let log = opened.map_err(|error| failed(&error))?;
        Ok(Self { log, _folder: folder })
    }
}

impl Drop for TemporaryLog {
    fn drop(&mut self) {
        self.log.close();
    }
}

fn fill(args: &Args, log: &Embedded, events: u64) -> Result<(), Failure> {
    let text = RandomText::new(&mut Random::from_entropy(), args.event_bytes);
    let event_bytes = usize::try_from(args.event_bytes).unwrap_or(usize::MAX);
    let kind = Kind { ids: Ids::V7, event_bytes, is_linked: true, is_spread: false };
    let mut source = Events::new(&text, kind, 10_000);
    let mut left = events;
    while left > 0 {
        let count = left.min(APPEND_EVENTS);
        block_on(log.append(source.append(count)))?;
        left -= count;
    }
    Ok(())
}
