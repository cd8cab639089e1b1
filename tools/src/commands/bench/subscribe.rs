//! `quipu bench subscribe`: how fast subscribers catch up, and how soon they hear of what is new.

use std::time::Duration;

use hdrhistogram::Histogram;
use quipu_client::{Filter, Position, StartAfter, SubscribeRequest, SubscriptionItem};
use quipu_engine::clock::{Clock, System};

use super::from_1_to;
use super::measures::{Meter, Percentiles, histogram, record};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Target;
use crate::store_args::StoreArgs;
use crate::wait::now;

const EXAMPLES: &str = "Examples:
  quipu bench subscribe --log ./bench-log --subscribers 4
  quipu bench subscribe --server 127.0.0.1:7440 --seconds 30

Each subscriber gets every event from the first; MB/s counts records as they are stored. With
--seconds they follow so long after they have caught up; the latency is that of events stored in
that time, from when the log took them, by the clock of this machine.";

/// Who subscribes to what.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Subscribers, each with a thread, and with --server a connection, of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_1_to(1_024))]
    subscribers: u64,
    /// Follow so long after catching up. Default: end when caught up.
    #[arg(long, value_name = "S", value_parser = from_1_to(1_000_000))]
    seconds: Option<u64>,
}

struct Heard {
    events: u64,
    bytes: u64,
    latencies: Histogram<u64>,
}

/// Subscribes, and prints what was measured.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    args.store.open_target_to_read(|target| {
        let meter = Meter::start();
        let heard: Result<Vec<Heard>, Failure> = std::thread::scope(|scope| {
            let subscribers: Vec<_> =
                (0..args.subscribers).map(|_| scope.spawn(|| listen(args, target))).collect();
            let heard = subscribers.into_iter().map(std::thread::ScopedJoinHandle::join);
            heard.map(|it| it.expect("a subscriber does not panic")).collect()
        });
        let mut measures = meter.measures();
        let (mut bytes, mut latencies) = (0, histogram());
        for heard in heard? {
            measures.events += heard.events;
            bytes += heard.bytes;
            latencies += heard.latencies;
        }
        measures.rates(bytes);
        measures.latency_us = (!latencies.is_empty()).then(|| Percentiles::of(&latencies));
        measures.bytes_on_disk = target.figures()?.bytes_on_disk;
        measures.print(out)
    })
}

fn listen(args: &Args, target: Target<'_>) -> Result<Heard, Failure> {
    let session = target.session()?;
    let filter = Filter { include_system: true, ..Filter::default() };
    let after = StartAfter::Position(Position::START);
    let mut subscription = session.store().subscribe(SubscribeRequest { filter, after })?;
    let mut heard = Heard { events: 0, bytes: 0, latencies: histogram() };
    let mut until: Option<Duration> = None;
    loop {
        let mut next = std::pin::pin!(subscription.next_batch());
        let items = match until {
            None => session.block_on(next)?,
            Some(end) if now() >= end => return Ok(heard),
            Some(end) => match session.until(next.as_mut(), end) {
                Some(items) => items?,
                None => return Ok(heard),
            },
        };
        for item in items {
            match item {
                SubscriptionItem::Event(event) => {
                    heard.events += 1;
                    heard.bytes += event.as_bytes().len() as u64;
                    if until.is_some() {
                        let micros = System.now().as_micros() - event.recorded_at().as_micros();
                        let latency = Duration::from_micros(micros.max(0).unsigned_abs());
                        record(&mut heard.latencies, latency);
                    }
                }
                SubscriptionItem::CaughtUp(_) if until.is_none() => match args.seconds {
                    None => return Ok(heard),
                    Some(seconds) => until = Some(now() + Duration::from_secs(seconds)),
                },
                _ => {}
            }
        }
    }
}
