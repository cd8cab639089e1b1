//! `quipu bench append`: how many events a second a log acknowledges, and how soon.

use std::pin::pin;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, try_join_all};
use futures::stream::{FuturesOrdered, StreamExt};
use hdrhistogram::Histogram;
use quipu_client::{AppendError, AppendOutcome};

use super::events::{Events, Ids, Kind, RandomText};
use super::measures::{Measures, Meter, Percentiles, histogram, record};
use super::{event_bytes, from_1_to};
use crate::failure::Failure;
use crate::open_args::OpenArgs;
use crate::output::{Output, whisper};
use crate::random::Random;
use crate::session::{Session, Target};
use crate::store_args::StoreArgs;
use crate::wait::{self, now, since};

const EXAMPLES: &str = "Examples:
  quipu bench append --log ./bench-log --batch 100 --in-flight 8 --seconds 30
  quipu bench append --log ./bench-log --writers 1 --in-flight 1 --batch 1
  quipu bench append --log ./bench-log --rate 50000 --json
  quipu bench append --log ./bench-log --events 1000000 --aggregates 100000000 --ids v4
  quipu bench append --server 127.0.0.1:7440 --writers 8 --in-flight 4 --batch 100

With --server each writer has a connection, all are driven by --threads threads, and processor time
and memory are the client's.

MB/s counts payload bytes, in millions. A latency is one append's, from its submission (with --rate:
from when it should have been submitted) to its acknowledgement.";

/// What to append, and where.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    how: OpenArgs,
    #[command(flatten)]
    plan: Plan,
}

/// What to append.
#[derive(clap::Args, Clone)]
pub(crate) struct Plan {
    /// Who appends: threads, or with a server connections.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_1_to(1_024))]
    pub(crate) writers: u64,
    /// Threads that drive the connections to a server.
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = from_1_to(256))]
    pub(crate) threads: u64,
    /// Appends that each writer keeps outstanding.
    #[arg(long, value_name = "K", default_value_t = 8, value_parser = from_1_to(65_536))]
    pub(crate) in_flight: u64,
    /// Events in an append.
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = from_1_to(16_384))]
    pub(crate) batch: u64,
    /// Payload of an event: JSON that does not compress.
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = event_bytes())]
    pub(crate) event_bytes: u64,
    /// Aggregates, shared out among the writers.
    #[arg(long, value_name = "A", default_value_t = 10_000, value_parser = from_1_to(100_000_000))]
    pub(crate) aggregates: u64,
    /// How event ids are made.
    #[arg(long, value_enum, default_value_t = Ids::V7)]
    pub(crate) ids: Ids,
    /// Leave correlation and causation ids out.
    #[arg(long)]
    pub(crate) unlinked: bool,
    /// Each event of an append of another aggregate. Default: all of one.
    #[arg(long)]
    pub(crate) spread: bool,
    /// How long.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = from_1_to(1_000_000))]
    pub(crate) seconds: u64,
    /// Stop after so many events, if there is time for them.
    #[arg(long, value_name = "N", value_parser = from_1_to(100_000_000_000))]
    pub(crate) events: Option<u64>,
    /// Offer so many events a second, whether the log keeps up or not. Default: all it takes.
    #[arg(long, value_name = "R", value_parser = from_1_to(1_000_000_000))]
    pub(crate) rate: Option<u64>,
}

impl Plan {
    fn kind(&self) -> Kind {
        let event_bytes = usize::try_from(self.event_bytes).unwrap_or(usize::MAX);
        let (is_linked, is_spread) = (!self.unlinked, self.spread);
        Kind { ids: self.ids, event_bytes, is_linked, is_spread }
    }

    /// How many events the writer of this number appends.
    fn share_of_events(&self, writer: u64) -> u64 {
        self.events.map_or(u64::MAX, |events| (events + writer) / self.writers)
    }
}

/// Appends, and prints what was measured.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let mut store = args.store.clone();
    store.options = args.how.options();
    store.open_target(|target| {
        whisper(format_args!("appending for {} s", args.plan.seconds));
        measure(&args.plan, target)?.print(out)
    })
}

/// Appends as planned.
pub(crate) fn measure(plan: &Plan, target: Target<'_>) -> Result<Measures, Failure> {
    let text = RandomText::new(&mut Random::from_entropy(), plan.event_bytes);
    let groups_before = target.figures()?.groups;
    let sessions = target.sessions(plan.writers, plan.threads)?;
    let meter = Meter::start();
    let tallies: Result<Vec<Vec<Tally>>, AppendError> = std::thread::scope(|scope| {
        let mut numbers = 0..;
        let threads: Vec<_> = (sessions.iter())
            .map(|sessions| {
                let writers: Vec<Writer<'_>> = (sessions.iter().zip(&mut numbers))
                    .map(|(session, number)| Writer::new(plan, number, session, &text))
                    .collect();
                scope.spawn(move || {
                    sessions[0].block_on(try_join_all(writers.into_iter().map(Writer::run)))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer does not panic")).collect()
    });
    let mut measures = meter.measures();
    let mut latencies = histogram();
    for tally in tallies?.into_iter().flatten() {
        measures.events += tally.events;
        latencies += tally.latencies;
    }
    measures.rates(measures.events * plan.event_bytes);
    measures.latency_us = Some(Percentiles::of(&latencies));
    let figures = target.figures()?;
    measures.groups = figures.groups.zip(groups_before).map(|(after, before)| after - before);
    measures.bytes_on_disk = figures.bytes_on_disk;
    Ok(measures)
}

struct Tally {
    events: u64,
    latencies: Histogram<u64>,
}

type InFlight<'a> = BoxFuture<'a, (Duration, Result<AppendOutcome, AppendError>)>;

struct Writer<'a> {
    session: &'a Session,
    events: Events<'a>,
    batch: u64,
    /// Events that are still to be appended.
    left: u64,
    in_flight_max: usize,
    schedule: Option<Schedule>,
    stop_at: Duration,
    in_flight: FuturesOrdered<InFlight<'a>>,
    tally: Tally,
}

/// When an open loop submits, whatever has become of the appends before.
struct Schedule {
    next: Duration,
    interval: Duration,
}

impl<'a> Writer<'a> {
    fn new(plan: &Plan, number: u64, session: &'a Session, text: &'a RandomText) -> Self {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let aggregates = size(plan.aggregates.div_ceil(plan.writers));
        let started = now();
        Self {
            session,
            events: Events::new(text, plan.kind(), aggregates),
            batch: plan.batch,
            left: plan.share_of_events(number),
            in_flight_max: size(plan.in_flight),
            schedule: plan.rate.map(|rate| Schedule::new(plan, rate, number, started)),
            stop_at: started + Duration::from_secs(plan.seconds),
            in_flight: FuturesOrdered::new(),
            tally: Tally { events: 0, latencies: histogram() },
        }
    }

    async fn run(mut self) -> Result<Tally, AppendError> {
        while now() < self.stop_at && self.left > 0 {
            let due = self.schedule.as_ref().map(|schedule| schedule.next.min(self.stop_at));
            if self.in_flight.len() >= self.in_flight_max {
                self.wait().await?;
            } else if let Some(due) = due.filter(|due| *due > now()) {
                self.wait_until(due).await?;
            } else {
                self.submit();
            }
        }
        while !self.in_flight.is_empty() {
            self.wait().await?;
        }
        Ok(self.tally)
    }

    fn submit(&mut self) {
        let events = self.batch.min(self.left);
        self.left -= events;
        let append = self.events.append(events);
        let intended = self.schedule.as_mut().map_or_else(now, Schedule::take);
        let store = self.session.store();
        let answer = async move { (intended, store.append(append).await) };
        self.in_flight.push_back(wait::begun(answer.boxed()));
    }

    async fn wait(&mut self) -> Result<(), AppendError> {
        match self.in_flight.next().await {
            Some(answer) => self.take(answer),
            None => Ok(()),
        }
    }

    async fn wait_until(&mut self, deadline: Duration) -> Result<(), AppendError> {
        match self.session.until(pin!(self.in_flight.next()), deadline).await {
            Some(Some(answer)) => self.take(answer),
            Some(None) => {
                self.session.pause_until(deadline).await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn take(
        &mut self,
        (intended, outcome): (Duration, Result<AppendOutcome, AppendError>),
    ) -> Result<(), AppendError> {
        self.tally.events += outcome?.positions.len() as u64;
        record(&mut self.tally.latencies, since(intended));
        Ok(())
    }
}

impl Schedule {
    /// The writers take turns, so that their appends do not all come at once.
    fn new(plan: &Plan, rate: u64, number: u64, started: Duration) -> Self {
        let turn = Duration::from_secs(1).mul_f64(as_f64(plan.batch) / as_f64(rate));
        let interval = turn.mul_f64(as_f64(plan.writers));
        Self { next: started + turn.mul_f64(as_f64(number)), interval }
    }

    fn take(&mut self) -> Duration {
        let next = self.next;
        self.next += self.interval;
        next
    }
}

#[expect(clippy::cast_precision_loss, reason = "a schedule need not be exact to the nanosecond")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
