//! `quipu bench subscribe`: how fast subscribers catch up, and how soon they hear of what is new.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use quipu_client::{
    Embedded, EventStore, Filter, Position, Remote, StartAfter, SubscribeRequest, SubscriptionItem,
};
use quipu_engine::clock::{Clock, System};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout_at};

use super::from_1_to;
use super::measures::{Meter, Percentiles, histogram, record};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Target;
use crate::store_args::{StoreArgs, cannot_connect};
use crate::wait::{REFRESH_EVERY, now, pause_until};

const EXAMPLES: &str = "Examples:
  quipu bench subscribe --log ./bench-log --subscribers 4
  quipu bench subscribe --server 127.0.0.1:7440 --subscribers 200 --seconds 30
  quipu bench subscribe --server 127.0.0.1:7440 --from-end --seconds 30 --latency-from timestamp

Each subscriber gets every event from the first; MB/s counts records as they are stored. With
--seconds they follow so long after they have caught up; the latency is that of events stored in
that time, from when the log took them, by the clock of this machine. With --latency-from timestamp
it begins when they were made, which for those of `bench append` is just before they are sent.";

/// Who subscribes to what.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Subscribers: with --log a thread each, with --server a connection each, all on one thread.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_1_to(1_024))]
    subscribers: u64,
    /// Follow so long after catching up. Default: end when caught up.
    #[arg(long, value_name = "S", value_parser = from_1_to(1_000_000))]
    seconds: Option<u64>,
    /// Begin at the end, without catching up.
    #[arg(long, requires = "seconds")]
    from_end: bool,
    /// Which of an event's times its latency begins at.
    #[arg(long, value_enum, requires = "seconds", default_value_t = Begin::RecordedAt)]
    latency_from: Begin,
}

/// When the way of an event to a subscriber begins.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Begin {
    /// When the log took it.
    RecordedAt,
    /// When it happened, as its host says.
    Timestamp,
}

/// What the subscribers of one thread have heard.
struct Heard {
    events: u64,
    bytes: u64,
    latencies: Histogram<u64>,
}

impl Heard {
    fn nothing() -> Self {
        Self { events: 0, bytes: 0, latencies: histogram() }
    }

    fn take(&mut self, event: &quipu_client::Record, live_from: Option<Begin>) {
        self.events += 1;
        self.bytes += event.as_bytes().len() as u64;
        let begin = live_from.map(|begin| match begin {
            Begin::RecordedAt => event.recorded_at(),
            Begin::Timestamp => event.timestamp(),
        });
        if let Some(begin) = begin {
            let micros = System.now().as_micros() - begin.as_micros();
            record(&mut self.latencies, Duration::from_micros(micros.max(0).unsigned_abs()));
        }
    }
}

/// Subscribes, and prints what was measured.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    args.store.open_target_to_read(|target| {
        let meter = Meter::start();
        let heard = match target {
            Target::Log(log) => on_threads(args, log),
            Target::Server(address) => on_one_thread(args, address),
        };
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

fn on_threads(args: &Args, log: &Embedded) -> Result<Vec<Heard>, Failure> {
    let work = || {
        let heard = RefCell::new(Heard::nothing());
        runtime()?.block_on(listen(args, log, &heard))?;
        Ok(heard.into_inner())
    };
    // Who ends when caught up hears of nothing new.
    let is_over = AtomicBool::new(args.seconds.is_none());
    std::thread::scope(|scope| {
        let subscribers: Vec<_> = (0..args.subscribers).map(|_| scope.spawn(work)).collect();
        let refresher = scope.spawn(|| refresh_until(log, &is_over));
        let heard = subscribers.into_iter().map(std::thread::ScopedJoinHandle::join);
        let heard = heard.map(|it| it.expect("a subscriber does not panic")).collect();
        is_over.store(true, Ordering::Relaxed);
        refresher.join().expect("looking does not panic")?;
        heard
    })
}

/// Looks for what the log's writer has stored.
fn refresh_until(log: &Embedded, is_over: &AtomicBool) -> Result<(), Failure> {
    while !is_over.load(Ordering::Relaxed) {
        log.refresh()?;
        pause_until(now() + REFRESH_EVERY);
    }
    Ok(())
}

/// So that what many subscribers cost is not what their threads cost.
fn on_one_thread(args: &Args, address: &str) -> Result<Vec<Heard>, Failure> {
    let heard = RefCell::new(Heard::nothing());
    runtime()?.block_on(async {
        let connect = (0..args.subscribers).map(|_| Remote::connect(address));
        let remotes = try_join_all(connect).await.map_err(cannot_connect)?;
        try_join_all(remotes.iter().map(|remote| listen(args, remote, &heard))).await
    })?;
    Ok(vec![heard.into_inner()])
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Unreachable(format!("cannot wait for events: {error}")))
}

async fn listen(
    args: &Args,
    store: &dyn EventStore,
    heard: &RefCell<Heard>,
) -> Result<(), Failure> {
    let filter = Filter { include_system: true, ..Filter::default() };
    let after = if args.from_end { StartAfter::End } else { StartAfter::Position(Position::START) };
    let mut subscription = store.subscribe(SubscribeRequest { filter, after })?;
    let mut until: Option<Instant> = None;
    loop {
        let next = subscription.next_batch();
        let items = match until {
            None => next.await?,
            Some(end) => match timeout_at(end, next).await {
                Ok(items) => items?,
                Err(_) => return Ok(()),
            },
        };
        for item in items {
            match item {
                SubscriptionItem::Event(event) => {
                    heard.borrow_mut().take(&event, until.map(|_| args.latency_from));
                }
                SubscriptionItem::CaughtUp(_) if until.is_none() => match args.seconds {
                    None => return Ok(()),
                    Some(seconds) => until = Some(Instant::now() + Duration::from_secs(seconds)),
                },
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quipu_client::{AggregateKey, NewEvent, Record, Timestamp, Uuid, Version};
    use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
    use rkyv::ser::allocator::Arena;

    use super::*;

    fn seconds_ago(seconds: i64) -> Timestamp {
        Timestamp::from_micros(System.now().as_micros() - seconds * 1_000_000)
    }

    #[test]
    fn a_latency_begins_at_the_time_that_is_asked_for() {
        let key = AggregateKey::new("T", "1");
        let event = NewEvent::json(Uuid::from_u128(1), key, "Made", seconds_ago(300), "{}");
        let mut bytes = encode(RecordBuffer::new(), &EventBody::from(&event), &mut Arena::new());
        stamp(&mut bytes, Position(1), Version(1), seconds_ago(60));
        let record = Record::parse(bytes::Bytes::from_owner(bytes)).unwrap();
        for (begin, seconds) in [(Begin::RecordedAt, 60..200), (Begin::Timestamp, 299..440)] {
            let mut heard = Heard::nothing();
            heard.take(&record, Some(begin));
            assert!(seconds.contains(&(heard.latencies.max() / 1_000_000)), "{begin:?}");
        }
        let mut heard = Heard::nothing();
        heard.take(&record, None);
        assert_eq!((heard.events, heard.latencies.len()), (1, 0));
    }
}
