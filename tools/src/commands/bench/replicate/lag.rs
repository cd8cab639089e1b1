//! How far behind the read models are while so many events a second are offered to the log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use futures::stream::{FuturesOrdered, StreamExt};
use hdrhistogram::Histogram;
use quipu_client::{Embedded, EventStore, Position};
use quipu_engine::clock::{Clock, System};
use quipu_replicator::{Committed, Observer, Postgres, Replicator};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::calls::{self, Calls};
use super::{Args, TemporaryLog, drop_schema, round_rate};
use crate::commands::bench::measures::{Percentiles, histogram};
use crate::commands::replicate::runtime;
use crate::failure::Failure;
use crate::output::{Output, whisper};
use crate::wait::{self, now, since};

/// How often events are appended.
const EVERY: Duration = Duration::from_millis(2);

/// What was offered, and what became of it.
#[derive(Serialize)]
struct Figures {
    what: &'static str,
    runs: u64,
    offered_per_s: u64,
    events: u64,
    seconds: f64,
    /// Events a second that Postgres had committed, to the last of them.
    events_per_s: f64,
    /// The median of each percentile over the runs.
    lag_us: Percentiles,
}

/// One run.
struct Offered {
    events: u64,
    seconds: f64,
    lag_us: Percentiles,
}

/// Offers events, run by run, and prints the lag.
pub(super) fn run(
    args: &Args,
    rate: u64,
    postgres: &Postgres,
    out: &mut Output,
) -> Result<(), Failure> {
    let runtime = runtime()?;
    let mut runs = Vec::new();
    for run in 0..args.runs {
        let seconds = args.seconds;
        whisper(format_args!(
            "run {} of {}: offering {rate} events/s for {seconds} s",
            run + 1,
            args.runs
        ));
        runs.push(offered(&runtime, rate, Duration::from_secs(seconds), postgres)?);
    }
    runtime.block_on(drop_schema(postgres))?;
    print(rate, runs, out)
}

fn offered(
    runtime: &Runtime,
    rate: u64,
    time: Duration,
    postgres: &Postgres,
) -> Result<Offered, Failure> {
    let place = TemporaryLog::empty()?;
    let log = place.log.clone();
    runtime.block_on(drop_schema(postgres))?;
    let witness = Arc::new(Witness { heard: Mutex::new((histogram(), Position::START)) });
    let store: Arc<dyn EventStore> = Arc::new(log.clone());
    let replicator = Replicator::new(store, postgres.clone(), calls::projections())
        .observed_by(Arc::clone(&witness) as Arc<dyn Observer>);
    runtime.block_on(replicator.make_tables())?;
    let (stop, stopped) = oneshot::channel::<()>();
    let following = runtime.spawn(async move { replicator.run(stopped.map(drop)).await });
    let started = now();
    let (events, last) = offer(&log, rate, time)?;
    while witness.through() < last && !following.is_finished() {
        wait::pause_until(now() + EVERY);
    }
    let seconds = since(started).as_secs_f64();
    drop(stop);
    let ended = runtime.block_on(following);
    let summary = ended.map_err(|error| Failure::No(error.to_string()))??;
    if let Some((name, problem)) = summary.failed.first() {
        return Err(Failure::No(format!("{name} failed: {problem}")));
    }
    let lag_us = Percentiles::of(&witness.heard.lock().unwrap_or_else(PoisonError::into_inner).0);
    Ok(Offered { events, seconds, lag_us })
}

#[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
fn print(rate: u64, mut runs: Vec<Offered>, out: &mut Output) -> Result<(), Failure> {
    let lags: Vec<Percentiles> = runs.iter().map(|run| run.lag_us).collect();
    runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let Offered { events, seconds, .. } = runs[runs.len() / 2];
    let figures = Figures {
        what: "lag",
        runs: runs.len() as u64,
        offered_per_s: rate,
        events,
        seconds,
        events_per_s: round_rate(events as f64 / seconds),
        lag_us: Percentiles::medians(&lags),
    };
    if out.is_json() {
        return out.object(&figures);
    }
    let (replicated, lag) = (figures.events_per_s, figures.lag_us.text());
    out.line(format_args!("{replicated:.0} of {rate} events/s offered were replicated; lag {lag}"))
}

/// Appends as planned, however late the answers are; how many events, and the last of them.
fn offer(log: &Embedded, rate: u64, time: Duration) -> Result<(u64, Position), Failure> {
    let mut calls = Calls::new()?;
    let mut in_flight = FuturesOrdered::new();
    let (started, mut offered, mut last) = (now(), 0, Position::START);
    while since(started) < time {
        let due = u64::try_from(since(started).as_micros() * u128::from(rate) / 1_000_000);
        let due = due.unwrap_or(u64::MAX).saturating_sub(offered).min(2_000);
        if due > 0 {
            offered += due;
            in_flight.push_back(wait::begun(log.append(calls.append(log, due))));
        }
        while let Some(answer) = in_flight.next().now_or_never().flatten() {
            last = answer?.last_position();
        }
        wait::pause_until(now() + EVERY);
    }
    // What no read model takes is noted seconds later: no end to be measured.
    let rest = calls.unfinished();
    if rest > 0 {
        offered += rest;
        in_flight.push_back(log.append(calls.append(log, rest)));
    }
    while let Some(answer) = block_on(in_flight.next()) {
        last = answer?.last_position();
    }
    Ok((offered, last))
}

/// Notes lags, and how far it is.
struct Witness {
    heard: Mutex<(Histogram<u64>, Position)>,
}

impl Witness {
    fn through(&self) -> Position {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl Observer for Witness {
    fn committed(&self, committed: &Committed<'_>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.1 = committed.through;
        if let Some((first, _)) = committed.recorded {
            let micros = System.now().as_micros() - first.as_micros();
            let lag = Duration::from_micros(micros.max(1).unsigned_abs());
            let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
            heard.0.saturating_record_n(micros, committed.events as u64);
        }
    }
}
