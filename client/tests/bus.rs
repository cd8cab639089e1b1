//! The event bus: places, order, names, and what a quiet bus writes.
#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bus_support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bus_support::*;
use futures::future::select;
use futures::{FutureExt, StreamExt, future};
use futures_timer::Delay;
use parking_lot::Mutex;
use quipu_client::*;
use serde_json::json;

#[test]
fn a_handler_hears_of_everything_once_and_in_order_and_goes_on_where_it_stopped() {
    block_on(async {
        let log = Log::new();
        log.fill(3_000, 7).await;
        let book = Book::default();
        for round in 1..=3 {
            let bus = log.bus().await;
            bus.subscribe(Handler::new("all"), book.writer()).await.unwrap();
            book.filled(round * 3_000).await;
            bus.stop().await.unwrap();
            log.fill(3_000, 7).await;
        }
        let heard = book.heard();
        assert_eq!(heard.len(), 9_000);
        assert!(heard.is_sorted_by(|a, b| a.position < b.position));
        assert!(heard.iter().all(|heard| heard.attempt == 1 && !heard.is_replay));
    });
}

#[test]
fn a_handler_hears_only_of_its_subject() {
    block_on(async {
        let log = Log::new();
        let begun = log.store(&[("a", "Begun"), ("a", "Ended"), ("b", "Begun")]).await;
        let other = log.store.new_event(AggregateKey::new("Other", "a"), "Begun", "{}");
        log.store.append(Append::any(vec![other])).await.unwrap();
        let bus = log.bus().await;
        let books = [(); 3].map(|()| Book::default());
        let handlers = [
            Handler::new("ended").of_type("Ended"),
            Handler::new("calls").of(Subject::AggregateType("Call".to_owned())),
            Handler::new("all"),
        ];
        for (handler, book) in handlers.into_iter().zip(&books) {
            bus.subscribe(handler, book.writer()).await.unwrap();
        }
        let ended = log.event("b", "Ended");
        let published = bus.publish(vec![ended]).await.unwrap().last_position().0;
        books[2].filled(5).await;
        books[0].filled(2).await;
        books[1].filled(4).await;
        assert_eq!(books[0].positions(), [begun[1], published]);
        assert_eq!(books[1].positions(), [1, 2, 3, published]);
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_handler_may_begin_at_the_end_and_that_end_is_remembered() {
    block_on(async {
        let log = Log::new();
        log.store(&[("a", "Begun")]).await;
        let handler = || Handler::new("new").begin(Begin::End);
        let bus = log.bus().await;
        let book = Book::default();
        bus.subscribe(handler(), book.writer()).await.unwrap();
        // Killed before anything was handled, and restarted when more had come.
        drop(bus);
        let more = log.store(&[("b", "Begun")]).await;
        let bus = log.bus().await;
        bus.subscribe(handler(), book.writer()).await.unwrap();
        book.filled(1).await;
        bus.stop().await.unwrap();
        assert_eq!(book.positions(), more);
    });
}

#[test]
fn concurrent_handlers_keep_the_order_of_each_aggregate() {
    block_on(async {
        let log = Log::new();
        log.fill(2_000, 20).await;
        let bus = log.bus().await;
        let book = Book::default();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let code = {
            let (book, running, most) = (book.clone(), running, Arc::clone(&most));
            move |delivery: Delivery| {
                let (book, running, most) = (book.clone(), running.clone(), most.clone());
                async move {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    if delivery.record().position().0.is_multiple_of(5) {
                        Delay::new(Duration::from_millis(1)).await;
                    }
                    book.write(&delivery);
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                }
            }
        };
        bus.subscribe_async(Handler::new("async").concurrency(8), code).await.unwrap();
        let heard = book.filled(2_000).await;
        until(async || metrics(&bus, "async").await.queue == 0).await;
        let mut last: HashMap<String, u64> = HashMap::new();
        for Heard { id, position, .. } in heard {
            assert!(last.insert(id, position).is_none_or(|last| last < position));
        }
        let most = most.load(Ordering::SeqCst);
        assert!(most > 1 && most <= 8, "{most} at once");
        assert_eq!(metrics(&bus, "async").await.total().events, 2_000);
        bus.stop().await.unwrap();
        let places = Places::newest(&*log.store, "main").await.unwrap().1.unwrap();
        assert!(places.is_closed && places.handlers["async"].position >= Position(2_000));
    });
}

#[test]
fn a_call_that_waits_holds_up_nothing_but_its_aggregate() {
    block_on(async {
        let log = Log::new();
        log.fill(400, 100).await;
        let bus = log.bus().await;
        let (book, gate) = (Book::default(), Arc::new(Gate::default()));
        let code = {
            let (book, gate) = (book.clone(), Arc::clone(&gate));
            move |delivery: Delivery| {
                let (book, gate) = (book.clone(), Arc::clone(&gate));
                async move {
                    if delivery.record().aggregate_id() == "7" {
                        gate.opened().await;
                    }
                    book.write(&delivery);
                    Ok(())
                }
            }
        };
        bus.subscribe_async(Handler::new("async").concurrency(2), code).await.unwrap();
        let heard = book.filled(396).await;
        assert!(heard.iter().all(|heard| heard.id != "7"));
        until(async || metrics(&bus, "async").await.queue == 4).await;
        assert_eq!(metrics(&bus, "async").await.position, Position(7), "just before the first");
        gate.open();
        let heard = book.filled(400).await;
        let waited: Vec<u64> = heard[396..].iter().map(|heard| heard.position).collect();
        assert_eq!(waited, [8, 108, 208, 308]);
        bus.stop().await.unwrap();
    });
}

#[test]
fn what_was_handled_and_not_saved_when_it_was_killed_comes_again_and_nothing_is_skipped() {
    block_on(async {
        let log = Log::new();
        log.fill(500, 10).await;
        let book = Book::default();
        for _ in 0..5 {
            let bus = log.bus().await;
            let before = book.len();
            bus.subscribe(Handler::new("killed"), book.writer()).await.unwrap();
            book.filled(before + 40).await;
            drop(bus);
        }
        let bus = log.bus().await;
        bus.subscribe(Handler::new("killed"), book.writer()).await.unwrap();
        within(async {
            while book.heard().last().unwrap().position < 500 {
                book.filled(book.len() + 1).await;
            }
        })
        .await;
        bus.stop().await.unwrap();
        let mut positions = book.positions();
        assert!(positions.len() > 500, "some came again");
        positions.sort_unstable();
        positions.dedup();
        assert_eq!(positions, (1..=500).collect::<Vec<_>>());
    });
}

/// A restart in the middle: each handler's sum, kept with the position up to which it goes, is that
/// of the log.
#[test]
fn a_bus_restarted_in_the_middle_of_100_000_events_adds_up_to_a_fold_of_the_log() {
    const EVENTS: u64 = 100_000;
    block_on(async {
        let mut log = Log::new();
        log.fill(EVENTS, 100).await;
        let sums: Vec<_> = (0..4).map(|_| Arc::new(Mutex::new((0, 0_u64)))).collect();
        for round in 0..4 {
            let bus = log.bus().await;
            for (number, sum) in sums.iter().enumerate() {
                let sum = Arc::clone(sum);
                let code = move |delivery: &Delivery| {
                    let position = delivery.record().position().0;
                    let mut sum = sum.lock();
                    if position > sum.0 {
                        *sum = (position, sum.1 + position * (delivery.record().version().0 + 1));
                    }
                    Ok(())
                };
                bus.subscribe(Handler::new(format!("sum {number}")), code).await.unwrap();
            }
            if round < 3 {
                until(async || sums[0].lock().0 > (round + 1) * EVENTS / 5).await;
                // In turn stopped in order, and killed.
                if round % 2 == 0 {
                    bus.stop().await.unwrap();
                } else {
                    drop(bus);
                }
                log = log.reopen();
            } else {
                until(async || sums.iter().all(|sum| sum.lock().0 == EVENTS)).await;
                bus.stop().await.unwrap();
            }
        }
        let records = log.store.read(ReadRequest::default());
        let fold = records.fold(0, |sum, record| {
            let record = record.unwrap();
            future::ready(sum + record.position().0 * (record.version().0 + 1))
        });
        let fold = fold.await;
        assert!(sums.iter().all(|sum| sum.lock().1 == fold));
    });
}

/// Every event of the log, to each of them; half of them have a lane for each aggregate.
#[test]
fn one_hundred_handlers_on_100_000_events_all_get_there_with_bounded_queues() {
    const EVENTS: u64 = 100_000;
    const WINDOW: usize = 200;
    const WINDOW_BYTES: usize = 32 * 1024;
    const EVENT_BYTES_MAX: usize = 1_024;
    block_on(async {
        let log = Log::new();
        log.fill(EVENTS, 1_000).await;
        let bus = log.bus().await;
        let counts: Vec<_> = (0..100).map(|_| Arc::new(AtomicU64::new(0))).collect();
        for (number, count) in counts.iter().enumerate() {
            let count = Arc::clone(count);
            let handler = Handler::new(format!("handler {number}")).window(WINDOW);
            let handler = handler.window_bytes(WINDOW_BYTES);
            if number % 2 == 0 {
                let code = move |_: &Delivery| {
                    count.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                };
                bus.subscribe(handler, code).await.unwrap();
            } else {
                let code = move |_: Delivery| {
                    count.fetch_add(1, Ordering::Relaxed);
                    future::ready(Ok(()))
                };
                bus.subscribe_async(handler, code).await.unwrap();
            }
        }
        let mut last_when_the_first_was_done = None;
        until(async || {
            let metrics = bus.metrics().await.unwrap();
            assert!(metrics.values().all(|it| it.queue <= WINDOW), "the window bounds each");
            let bytes_max = WINDOW_BYTES + EVENT_BYTES_MAX;
            assert!(metrics.values().all(|it| it.queue_bytes <= bytes_max), "in bytes, too");
            let all = counts.iter().map(|count| count.load(Ordering::Relaxed));
            let (least, most) = (all.clone().min().unwrap(), all.max().unwrap());
            if most == EVENTS {
                last_when_the_first_was_done.get_or_insert(least);
            }
            least == EVENTS
        })
        .await;
        let last = last_when_the_first_was_done.unwrap();
        assert!(last > EVENTS / 10, "one was at {last} when another had all: it starved");
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == EVENTS), "each once");
        bus.stop().await.unwrap();
    });
}

/// Large events: it is their bytes that bound what a handler has in hand.
#[test]
fn a_window_is_bounded_in_bytes_and_holds_at_least_one_event() {
    const PAYLOAD: usize = 100_000;
    block_on(async {
        let log = Log::new();
        let large = || {
            let payload = format!("\"{}\"", "x".repeat(PAYLOAD));
            log.store.new_event(AggregateKey::new("Call", "a"), "Begun", payload)
        };
        log.store.append(Append::any((0..20).map(|_| large()).collect())).await.unwrap();
        let bus = log.bus().await;
        let book = Book::default();
        let gate = Arc::new(Gate::default());
        for (name, bytes) in [("some", 3 * PAYLOAD), ("one", 1)] {
            let (book, gate) = (book.clone(), Arc::clone(&gate));
            let code = move |delivery: Delivery| {
                let (book, gate) = (book.clone(), Arc::clone(&gate));
                async move {
                    gate.opened().await;
                    book.write(&delivery);
                    Ok(())
                }
            };
            bus.subscribe_async(Handler::new(name).window_bytes(bytes), code).await.unwrap();
        }
        for (name, events) in [("some", 3), ("one", 1)] {
            until(async || metrics(&bus, name).await.queue > 0).await;
            let held = metrics(&bus, name).await;
            assert_eq!(held.queue, events, "{name}");
            assert!(held.queue_bytes > events * PAYLOAD, "{name}: {held:?}");
        }
        gate.open();
        book.filled(40).await;
        until(async || metrics(&bus, "some").await.queue_bytes == 0).await;
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_quiet_bus_writes_nothing_and_a_busy_one_once_a_second() {
    block_on(async {
        let log = Log::new();
        log.fill(100, 1).await;
        let end = async || Places::newest(&*log.store, "main").await.unwrap().0.version.0;
        let bus = log.bus().await;
        let book = Book::default();
        bus.subscribe(Handler::new("all"), book.writer()).await.unwrap();
        bus.subscribe(Handler::new("none").of_type("Never"), book.writer()).await.unwrap();
        book.filled(100).await;
        assert_eq!(end().await, 3, "opened, and two handlers are known");
        until(async || end().await == 4).await;
        // Three more looks of the saver.
        Delay::new(Duration::from_millis(3_200)).await;
        assert_eq!(end().await, 4, "a place that is saved is no reason to save another");
        let last = Places::newest(&*log.store, "main").await.unwrap().1.unwrap();
        assert!(!last.is_closed);
        assert!(last.handlers["all"].position >= Position(100), "{last:?}");
        bus.stop().await.unwrap();
    });
}

#[test]
fn names_are_one_of_a_kind_and_stay_with_their_subject() {
    block_on(async {
        let log = Log::new();
        let book = Book::default();
        let bus = log.bus().await;
        let subscribe =
            async |bus: &EventBus, handler: Handler| bus.subscribe(handler, book.writer()).await;
        subscribe(&bus, Handler::new("h").of_type("Ended")).await.unwrap();
        let taken = subscribe(&bus, Handler::new("h").of_type("Ended")).await;
        assert_eq!(taken, Err(BusError::NameTaken { handler: "h".to_owned() }));
        for name in ["", "a/b", "a\n"] {
            let refused = subscribe(&bus, Handler::new(name)).await;
            assert!(matches!(refused, Err(BusError::Name { what: "handler", .. })), "{name:?}");
        }
        bus.stop().await.unwrap();
        let bus = log.bus().await;
        let other = subscribe(&bus, Handler::new("h").of_type("Begun")).await.unwrap_err();
        let (saved, given) = ("event_type:Ended", "event_type:Begun");
        let told = other.to_string();
        assert!(told.contains(saved) && told.contains(given), "{told}");
        let unknown = bus.notes("nobody").await.map(drop).unwrap_err();
        assert!(matches!(unknown, BusError::UnknownHandler { .. }));
        assert!(matches!(
            log.bus_with(BusOptions::named("a/b")).await.map(drop),
            Err(BusError::Name { what: "bus", .. })
        ));
    });
}

#[test]
fn a_bus_runs_once_in_a_process_and_a_second_one_is_refused_or_waits() {
    block_on(async {
        let log = Log::new();
        let first = log.bus().await;
        let refused = log.bus_with(BusOptions::default()).await.map(drop).unwrap_err();
        let told = refused.to_string();
        assert!(matches!(refused, BusError::Held { .. }) && told.contains("process"), "{told}");
        log.bus_with(BusOptions::named("other")).await.unwrap().stop().await.unwrap();
        let options = BusOptions { if_held: IfHeld::Wait, ..BusOptions::default() };
        let mut second = Box::pin(log.bus_with(options));
        assert!((&mut second).now_or_never().is_none());
        let (stopped, second) = within(future::join(first.stop(), second)).await;
        stopped.unwrap();
        // Killed, not stopped: in one process that is known at once.
        drop(second.unwrap());
        log.bus().await.stop().await.unwrap();
    });
}

#[test]
fn a_bus_that_waits_runs_as_soon_as_the_one_before_has_ended() {
    block_on(async {
        let log = Log::new();
        let waits = || BusOptions {
            if_held: IfHeld::Wait,
            // Whoever misses the end asks again long after a test is given up.
            lease_within: PATIENCE,
            ..BusOptions::default()
        };
        let mut running = log.bus().await;
        for round in 0..20 {
            let mut next = Box::pin(log.bus_with(waits()));
            assert!((&mut next).now_or_never().is_none());
            let ends = async move {
                if round % 2 == 0 {
                    running.stop().await.unwrap();
                }
            };
            running = within(future::join(next, ends)).await.0.unwrap();
        }
        running.stop().await.unwrap();
    });
}

#[test]
fn a_bus_stops_whatever_its_handlers_are_about_to_do() {
    block_on(async {
        let log = Log::new();
        let rounds = async {
            for _ in 0..2_000 {
                let bus = log.bus().await;
                for handler in 0..8 {
                    let book = Book::default();
                    let handler = Handler::new(handler.to_string()).begin(Begin::End);
                    bus.subscribe(handler, book.writer()).await.unwrap();
                }
                within(bus.stop()).await.unwrap();
            }
        };
        // Events keep coming, so that handlers are on their way from one to the next.
        let appends = async {
            loop {
                log.store(&[("a", "Begun")]).await;
            }
        };
        select(Box::pin(rounds), Box::pin(appends)).await;
    });
}

#[test]
fn whoever_asks_for_a_bus_that_has_just_begun_is_answered() {
    block_on(async {
        let log = Log::new();
        let (asker, key) = (log.store.clone(), AggregateKey::new(LEASE_TYPE, "main"));
        let asked = json!({ "run": Uuid::from_u128(7) }).to_string();
        let asked = asker.new_event(key.clone(), "LeaseAsked", asked);
        let asks = async move {
            asker.append_system(Append::any(vec![asked])).await.unwrap();
        };
        let moment = Moment::Stored(AggregateKey::new(CHECKPOINT_TYPE, "main"));
        let happens = Mutex::new(Some(asks.boxed()));
        let store = Arc::new(Unlucky { store: log.store.clone(), moment, happens });
        let bus = EventBus::open(store, BusOptions::default()).await.unwrap();
        until(async || log.store.version(&key).await == Ok(Version(2))).await;
        bus.stop().await.unwrap();
    });
}

/// The record was stored and not counted: the next one met it, and the bus believed itself lost.
/// And its place was past the end that the log had when the bus was opened.
#[test]
fn a_subscription_that_is_given_up_while_it_is_saved_leaves_its_name_and_the_bus() {
    block_on(async {
        let log = Log::new();
        let moment = Moment::Stored(AggregateKey::new(CHECKPOINT_TYPE, "main"));
        let happens = Mutex::default();
        let store = Arc::new(Unlucky { store: log.store.clone(), moment, happens });
        let bus = EventBus::open(store.clone(), BusOptions::default()).await.unwrap();
        let stored = Arc::new(Gate::default());
        let tells = Arc::clone(&stored);
        let never = async move {
            tells.open();
            future::pending::<()>().await;
        };
        *store.happens.lock() = Some(never.boxed());
        let book = Book::default();
        let handler = |name| Handler::new(name).begin(Begin::End);
        log.store(&[("a", "Begun")]).await;
        let subscribing = bus.subscribe(handler("h"), book.writer());
        drop(select(Box::pin(subscribing), Box::pin(stored.opened())).await);
        bus.subscribe(handler("other"), book.writer()).await.unwrap();
        bus.subscribe(handler("h"), book.writer()).await.unwrap();
        let at = log.store(&[("b", "Begun")]).await[0];
        book.filled(2).await;
        assert_eq!(book.positions(), [at, at]);
        bus.stop().await.unwrap();
    });
}

/// The first save is stored, but the server dies before it says so, and is down for longer than a
/// call waits; the next save met that record, and the bus believed itself lost.
#[test]
fn an_outage_after_places_were_saved_is_not_taken_for_another_run() {
    block_on(async {
        let log = Log::new();
        let (aggregate_type, errors) = (CHECKPOINT_TYPE, Mutex::default());
        let store = Arc::new(Flaky { store: log.store.clone(), aggregate_type, errors });
        let bus = EventBus::open(store.clone(), BusOptions::default()).await.unwrap();
        let book = Book::default();
        let down = AppendError::NotWritten("the server is down".to_owned());
        let unknown = AppendError::OutcomeUnknown("no answer".to_owned());
        *store.errors.lock() = [unknown, down.clone(), down.clone()].into();
        for _ in 0..2 {
            let refused = bus.subscribe(Handler::new("h"), book.writer()).await;
            assert_eq!(refused, Err(BusError::Append(down.clone())));
        }
        bus.subscribe(Handler::new("h"), book.writer()).await.unwrap();
        log.store(&[("a", "Begun")]).await;
        book.filled(1).await;
        // One that was surely not stored is not sent again: what is saved next is newer.
        *store.errors.lock() = [down.clone()].into();
        let refused = bus.subscribe(Handler::new("other"), book.writer()).await;
        assert_eq!(refused, Err(BusError::Append(down)));
        bus.stop().await.unwrap();
        let (at, places) = Places::newest(&*log.store, "main").await.unwrap();
        let handlers: Vec<_> = places.unwrap().handlers.into_keys().collect();
        assert_eq!((at.version, handlers), (Version(4), vec!["h".to_owned()]));
    });
}

/// Puts a record of places into the log, as another program might.
async fn put_places(log: &Log, places: serde_json::Value) {
    let key = AggregateKey::new(CHECKPOINT_TYPE, "main");
    let event = log.store.new_event(key, "PlacesSaved", places.to_string());
    log.store.append_system(Append::any(vec![event])).await.unwrap();
}

#[test]
fn places_that_cannot_be_are_refused_with_what_was_found() {
    block_on(async {
        let log = Log::new();
        let place = |log_id: Uuid, position: u64| {
            json!({
                "log_id": log_id, "run": Uuid::from_u128(1), "holder": "x", "is_closed": true,
                "handlers": { "h": { "subject": "*", "position": position } },
            })
        };
        put_places(&log, place(log.store.log_id(), 1_000)).await;
        let bus = log.bus().await;
        let book = Book::default();
        let past = bus.subscribe(Handler::new("h"), book.writer()).await.unwrap_err();
        assert!(matches!(past, BusError::PastEnd { given: Position(1_000), .. }), "{past}");
        // The log may have grown over it meanwhile: what it says was never seen.
        log.fill(2_000, 1).await;
        let past = bus.subscribe(Handler::new("h"), book.writer()).await.unwrap_err();
        assert!(matches!(past, BusError::PastEnd { given: Position(1_000), .. }), "{past}");
        bus.subscribe(Handler::new("other"), book.writer()).await.unwrap();
        bus.stop().await.unwrap();

        let parent = Uuid::from_u128(7);
        put_places(&log, place(parent, 1)).await;
        let other = log.bus_with(BusOptions::default()).await.map(drop).unwrap_err();
        let told = other.to_string();
        let ids = [parent, log.store.log_id()].map(|id| id.to_string());
        assert!(ids.iter().all(|id| told.contains(id)), "{told}");
        let options = BusOptions { adopts: Some(parent), ..BusOptions::default() };
        let bus = log.bus_with(options).await.unwrap();
        bus.subscribe(Handler::new("h"), book.writer()).await.unwrap();
        bus.stop().await.unwrap();

        put_places(&log, json!({ "handlers": 3 })).await;
        let unreadable = log.bus_with(BusOptions::default()).await.map(drop).unwrap_err();
        assert!(matches!(unreadable, BusError::Places { .. }), "{unreadable}");
    });
}

#[test]
fn what_is_raised_while_an_event_is_handled_takes_it_as_its_cause() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let store = log.store.clone();
        let code = move |delivery: Delivery| {
            let store = store.clone();
            async move {
                let event = store.new_event(AggregateKey::new("Invoice", "1"), "Written", "{}");
                let metadata = delivery.context().metadata()?;
                store.append(Append::any(vec![NewEvent { metadata, ..event }])).await?;
                Ok(())
            }
        };
        bus.subscribe_async(Handler::new("invoices").of_type("Ended"), code).await.unwrap();
        let ended = log.event("a", "Ended");
        let cause = ended.event_id.to_string();
        bus.publish(vec![ended]).await.unwrap();
        let book = Book::default();
        bus.subscribe(Handler::new("written").of_type("Written"), book.writer()).await.unwrap();
        book.filled(1).await;
        let written = Filter { event_types: vec!["Written".to_owned()], ..Filter::default() };
        let read = ReadRequest { filter: written, ..ReadRequest::default() };
        let record = log.store.read(read).next().await.unwrap().unwrap();
        assert_eq!((record.causation_id(), record.correlation_id()), (&*cause, &*cause));
        bus.stop().await.unwrap();
    });
}
