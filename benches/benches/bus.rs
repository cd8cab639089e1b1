//! What the event bus adds to an event: from the log to a handler that does nothing, place and
//! figures included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use futures::future::ready;
use quipu_client::{
    AggregateKey, Append, BusOptions, Delivery, Embedded, EventBus, EventStore, Handler,
    HandlerError, Options,
};

const EVENTS: u64 = 100_000;
const AGGREGATES: u64 = 1_000;

fn log() -> Arc<Embedded> {
    let log = Embedded::in_memory(Options::default()).expect("a log in memory opens");
    let numbers: Vec<u64> = (0..EVENTS).collect();
    for chunk in numbers.chunks(1_000) {
        let event = |number: &u64| {
            let key = AggregateKey::new("Call", (number % AGGREGATES).to_string());
            log.new_event(key, "CallCompleted", r#"{"duration":61500000000}"#)
        };
        let append = Append::any(chunk.iter().map(event).collect());
        block_on(log.append(append)).expect("it is stored");
    }
    Arc::new(log)
}

/// Counts, and says when all are there.
struct Counter {
    left: AtomicU64,
    done: Sender<()>,
}

impl Counter {
    fn count(&self) -> Result<(), HandlerError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.send(()).map_err(HandlerError::because)?;
        }
        Ok(())
    }
}

/// All events through each of so many handlers of a new bus.
fn dispatch(log: &Arc<Embedded>, round: u64, handlers: u64, is_async: bool) {
    let (done, all) = channel();
    let counter = Arc::new(Counter { left: AtomicU64::new(EVENTS * handlers), done });
    block_on(async {
        let bus = EventBus::open(log.clone(), BusOptions::named(format!("bench {round}"))).await?;
        for number in 0..handlers {
            let counter = Arc::clone(&counter);
            let handler = Handler::new(format!("counter {number}")).of_type("CallCompleted");
            if is_async {
                let code = move |_: Delivery| ready(counter.count());
                bus.subscribe_async(handler, code).await?;
            } else {
                bus.subscribe(handler, move |_: &Delivery| counter.count()).await?;
            }
        }
        all.recv().expect("every event is handled");
        bus.stop().await
    })
    .expect("the bus works");
}

fn bus(criterion: &mut Criterion) {
    let log = log();
    let mut group = criterion.benchmark_group("dispatch 100,000 events");
    group.sample_size(10);
    let mut round = 0;
    for (handlers, to) in [(1, "a handler"), (100, "100 handlers")] {
        group.throughput(Throughput::Elements(EVENTS * handlers));
        for (how, is_async) in [("in order", false), ("concurrently", true)] {
            group.bench_function(format!("to {to}, {how}"), |bench| {
                bench.iter(|| {
                    round += 1;
                    dispatch(&log, round, handlers, is_async);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bus);
criterion_main!(benches);
