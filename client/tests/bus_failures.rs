//! Handlers that fail, panic, hang or cannot read: what is tried again, what is parked, and that
//! nobody else waits.
#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bus_support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll};
use std::time::Duration;

use bus_support::*;
use futures::{FutureExt, future};
use futures_timer::Delay;
use parking_lot::Mutex;
use quipu_client::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Fails on aggregate `bad` as long as told so, and writes down what it handled.
#[derive(Clone, Default)]
struct Picky {
    book: Book,
    is_well: Arc<AtomicBool>,
}

impl Picky {
    fn handle(&self, delivery: &Delivery) -> Result<(), HandlerError> {
        if delivery.record().aggregate_id() == "bad" && !self.is_well.load(Ordering::SeqCst) {
            return Err("it is bad".into());
        }
        self.book.write(delivery);
        Ok(())
    }

    fn sync(&self) -> impl Fn(&Delivery) -> Result<(), HandlerError> + use<> {
        let picky = self.clone();
        move |delivery| picky.handle(delivery)
    }

    fn concurrent(&self) -> impl Fn(Delivery) -> future::Ready<Result<(), HandlerError>> + use<> {
        let picky = self.clone();
        move |delivery| future::ready(picky.handle(&delivery))
    }
}

#[test]
fn a_handler_that_fails_twice_gets_the_event_a_third_time_and_keeps_the_order() {
    block_on(async {
        let log = Log::new();
        log.store(&[("a", "Begun"), ("b", "Begun"), ("c", "Begun")]).await;
        let bus = log.bus().await;
        let (book, failures) = (Book::default(), AtomicU32::new(0));
        let code = {
            let book = book.clone();
            move |delivery: &Delivery| {
                book.write(delivery);
                let is_second = delivery.record().aggregate_id() == "b";
                if is_second && failures.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err("not yet".into());
                }
                Ok(())
            }
        };
        bus.subscribe(Handler::new("slow starter").backoff(hasty(4)), code).await.unwrap();
        let heard = book.filled(5).await;
        let attempts: Vec<_> = heard.iter().map(|it| (it.position, it.attempt)).collect();
        assert_eq!(attempts, [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]);
        until(async || metrics(&bus, "slow starter").await.queue == 0).await;
        let now = metrics(&bus, "slow starter").await;
        let counts = now.event_types["Begun"];
        assert_eq!((counts.events, counts.errors, counts.retries, counts.parked), (3, 2, 2, 0));
        assert_eq!((now.parked, now.status), (0, HandlerStatus::Running));
        bus.stop().await.unwrap();
    });
}

#[test]
fn an_event_that_always_fails_is_parked_with_its_error_and_others_go_on() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let (picky, other) = (Picky::default(), Book::default());
        bus.subscribe(Handler::new("picky").backoff(hasty(2)), picky.sync()).await.unwrap();
        bus.subscribe(Handler::new("other"), other.writer()).await.unwrap();
        let at = log.store(&[("a", "Begun"), ("bad", "Begun"), ("b", "Begun")]).await;
        let parked = until_parked(&bus, "picky", 1).await;
        let ParkedEvent { position, aggregate, event_type, attempts, error, .. } = &parked[0];
        let key = AggregateKey::new("Call", "bad");
        assert_eq!((position.0, aggregate, &**event_type), (at[1], &key, "Begun"));
        assert_eq!((*attempts, &**error), (3, "it is bad"));
        picky.book.filled(2).await;
        assert_eq!(picky.book.positions(), [at[0], at[2]]);
        other.filled(3).await;
        assert_eq!(other.positions(), at);
        // Still there after a restart, and not handed out again by itself.
        bus.stop().await.unwrap();
        let bus = log.bus().await;
        bus.subscribe(Handler::new("picky").backoff(hasty(2)), picky.sync()).await.unwrap();
        let more = log.store(&[("c", "Begun")]).await;
        picky.book.filled(3).await;
        assert_eq!(until_parked(&bus, "picky", 1).await, parked);
        assert_eq!(picky.book.positions()[2..], more);
        bus.stop().await.unwrap();
    });
}

#[test]
fn an_event_that_waits_for_another_attempt_holds_up_its_aggregate_only() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let picky = Picky::default();
        let pauses = vec![Duration::from_millis(200); 2];
        let handler = Handler::new("async").backoff(Backoff { pauses, jitter: 0.0 }).concurrency(2);
        bus.subscribe_async(handler, picky.concurrent()).await.unwrap();
        let mut events = vec![("bad", "Begun"), ("bad", "Ended")];
        events.extend([("good", "Begun"); 50]);
        log.store(&events).await;
        picky.book.filled(50).await;
        assert!(parked(&bus, "async").await.is_empty(), "the others did not wait");
        let parked = until_parked(&bus, "async", 2).await;
        assert!(parked.iter().all(|event| event.attempts == 3));
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_publisher_waits_for_no_handler() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let (go, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let code = move |_: &Delivery| {
            gate.lock().recv().ok();
            Ok(())
        };
        bus.subscribe(Handler::new("stuck"), code).await.unwrap();
        for _ in 0..200 {
            within(bus.publish(vec![log.event("a", "Begun")])).await.unwrap();
        }
        drop(go);
        until(async || metrics(&bus, "stuck").await.total().events == 200).await;
        bus.stop().await.unwrap();
    });
}

/// The executor of `futures` cannot be called inside of itself.
#[test]
fn the_code_of_a_handler_may_wait_for_futures_in_any_way() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let (store, book) = (log.store.clone(), Book::default());
        let writes = book.clone();
        let code = move |delivery: &Delivery| {
            let key = AggregateKey::new("Letter", delivery.record().aggregate_id());
            let letter = store.new_event(key, "Written", "{}");
            futures::executor::block_on(store.append(Append::any(vec![letter])))?;
            writes.write(delivery);
            Ok(())
        };
        let handler = Handler::new("letters").of_type("Begun").backoff(hasty(0));
        bus.subscribe(handler, code).await.unwrap();
        let at = log.store(&[("a", "Begun"), ("b", "Begun")]).await;
        book.filled(2).await;
        assert_eq!(book.positions(), at);
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_panic_is_a_failure_with_its_words() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let book = Book::default();
        let sync = |delivery: &Delivery| {
            assert_ne!(delivery.record().aggregate_id(), "bad", "a bug");
            Ok(())
        };
        let written = book.clone();
        let concurrent = move |delivery: Delivery| {
            // Before there is a future, and in it.
            assert_ne!(delivery.record().aggregate_id(), "worse", "an early bug");
            let written = written.clone();
            async move {
                assert_ne!(delivery.record().aggregate_id(), "bad", "a late bug");
                written.write(&delivery);
                Ok(())
            }
        };
        bus.subscribe(Handler::new("sync").backoff(hasty(1)), sync).await.unwrap();
        bus.subscribe_async(Handler::new("async").backoff(hasty(1)), concurrent).await.unwrap();
        let at = log.store(&[("bad", "Begun"), ("worse", "Begun"), ("c", "Begun")]).await;
        let error = &until_parked(&bus, "sync", 1).await[0].error;
        assert!(error.contains("panicked") && error.contains("a bug"), "{error}");
        let parked = until_parked(&bus, "async", 2).await;
        assert!(parked[0].error.contains("a late bug"), "{}", parked[0].error);
        assert!(parked[1].error.contains("an early bug"), "{}", parked[1].error);
        assert_eq!(book.positions(), at[2..]);
        until(async || metrics(&bus, "sync").await.total().events == 2).await;
        bus.stop().await.unwrap();
    });
}

/// Of aggregate `bad` comes at once, of `slow` later, of others never; panics when it is dropped,
/// but not after `good`.
struct Fragile(Delivery, Delay);

impl Future for Fragile {
    type Output = Result<(), HandlerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.record().aggregate_id() {
            "good" | "bad" => Poll::Ready(Ok(())),
            "slow" => self.1.poll_unpin(context).map(Ok),
            _ => Poll::Pending,
        }
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert_eq!(self.0.record().aggregate_id(), "good", "a last bug");
    }
}

/// It took the bus's thread along; one that was given up, the process.
#[test]
fn a_future_that_panics_when_it_is_dropped_is_a_failure_too() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let code = |delivery| Fragile(delivery, Delay::new(Duration::from_millis(5)));
        let handler = Handler::new("fragile").timeout(Duration::from_secs(2));
        bus.subscribe_async(handler.backoff(hasty(0)), code).await.unwrap();
        log.store(&[("bad", "Begun"), ("slow", "Begun"), ("never", "Begun")]).await;
        let parked = until_parked(&bus, "fragile", 3).await;
        let errors: Vec<&str> = parked.iter().map(|event| event.error.as_str()).collect();
        assert!(errors[..2].iter().all(|error| error.contains("a last bug")), "{errors:?}");
        assert!(errors[2].contains("took longer"), "{errors:?}");
        log.store(&[("good", "Begun")]).await;
        until(async || metrics(&bus, "fragile").await.total().events == 1).await;
        bus.stop().await.unwrap();
    });
}

/// Hangs on aggregate `bad`: `block` holds the thread, else only the future never ends.
async fn hangs(
    log: &Log,
    bus: &EventBus,
    is_sync: bool,
    block: bool,
) -> std::sync::mpsc::Sender<()> {
    let (go, gate) = channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let handler = Handler::new("hangs").backoff(hasty(1)).timeout(Duration::from_millis(50));
    let wait = move |delivery: &Delivery| {
        if delivery.record().aggregate_id() == "bad" {
            // Until the test is over.
            gate.lock().recv().ok();
        }
    };
    if is_sync {
        let code = move |delivery: &Delivery| {
            wait(delivery);
            Ok(())
        };
        bus.subscribe(handler, code).await.unwrap();
    } else {
        let code = move |delivery: Delivery| {
            let wait = wait.clone();
            async move {
                if block {
                    wait(&delivery);
                } else if delivery.record().aggregate_id() == "bad" {
                    future::pending::<()>().await;
                }
                Ok(())
            }
        };
        bus.subscribe_async(handler, code).await.unwrap();
    }
    log.store(&[("a", "Begun"), ("bad", "Begun"), ("b", "Begun")]).await;
    go
}

#[test]
fn an_event_on_which_a_handler_hangs_is_parked_and_others_go_on() {
    for (is_sync, block) in [(true, true), (false, false), (false, true)] {
        block_on(async {
            let log = Log::new();
            let bus = log.bus().await;
            let other = Book::default();
            bus.subscribe(Handler::new("other"), other.writer()).await.unwrap();
            let go = hangs(&log, &bus, is_sync, block).await;
            let parked = until_parked(&bus, "hangs", 1).await;
            assert_eq!(parked[0].attempts, 2);
            assert!(parked[0].error.contains("50ms"), "{}", parked[0].error);
            until(async || metrics(&bus, "hangs").await.total().events == 2).await;
            other.filled(3).await;
            within(bus.stop()).await.unwrap();
            drop(go);
        });
    }
}

#[test]
fn a_handler_of_which_too_many_calls_hang_stops_and_says_so() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let (go, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let handler = Handler::new("hangs").backoff(hasty(0)).timeout(Duration::from_millis(10));
        let code = move |_: &Delivery| {
            gate.lock().recv().ok();
            Ok(())
        };
        bus.subscribe(handler, code).await.unwrap();
        log.fill(100, 1).await;
        let reason = until_stopped(&bus, "hangs").await;
        assert!(reason.contains("hang") && reason.contains("position"), "{reason}");
        let parked = parked(&bus, "hangs").await.len();
        assert_eq!(parked, 16);
        within(bus.stop()).await.unwrap();
        drop(go);
    });
}

#[test]
fn later_events_of_the_aggregate_are_parked_behind_it_and_replayed_in_order() {
    for is_sync in [true, false] {
        block_on(async {
            let log = Log::new();
            let picky = Picky::default();
            let bus = log.bus().await;
            let handler = Handler::new("strict").backoff(hasty(1)).parks_behind(true);
            if is_sync {
                bus.subscribe(handler, picky.sync()).await.unwrap();
            } else {
                bus.subscribe_async(handler, picky.concurrent()).await.unwrap();
            }
            let events = ["bad", "a", "bad", "b", "bad"].map(|id| (id, "Begun"));
            let at = log.store(&events).await;
            let parked = until_parked(&bus, "strict", 3).await;
            let attempts: Vec<u32> = parked.iter().map(|event| event.attempts).collect();
            assert_eq!(attempts, [2, 0, 0], "those behind were not tried");
            assert!(parked[1].error.contains(&format!("behind position {}", at[0])));
            picky.book.filled(2).await;
            let notes = bus.notes("strict").await.unwrap();

            // It still fails, so what comes behind it is left alone.
            notes.replay_parked(Position(at[4])).await.unwrap();
            let again = async || notes.parked().await.unwrap();
            until(async || again().await[0].attempts == 3).await;
            // Long enough to try those that were read meanwhile.
            Delay::new(Duration::from_millis(200)).await;
            let attempts: Vec<u32> = again().await.iter().map(|event| event.attempts).collect();
            assert_eq!(attempts, [3, 0, 0]);

            // Mended: the last one is asked for, and those before it come first.
            picky.is_well.store(true, Ordering::SeqCst);
            notes.replay_parked(Position(at[4])).await.unwrap();
            until_parked(&bus, "strict", 0).await;
            let later = log.store(&[("bad", "Ended")]).await;
            let heard = picky.book.filled(6).await;
            let bad: Vec<_> = heard.iter().filter(|heard| heard.id == "bad").collect();
            let seen: Vec<_> = bad.iter().map(|it| (it.position, it.was_parked)).collect();
            assert_eq!(seen, [(at[0], true), (at[2], true), (at[4], true), (later[0], false)]);
            bus.stop().await.unwrap();
        });
    }
}

#[test]
fn a_parked_event_is_handled_again_or_dropped_as_its_notes_say_also_without_a_bus() {
    block_on(async {
        let log = Log::new();
        let picky = Picky::default();
        let handler = || Handler::new("picky").backoff(hasty(0));
        let bus = log.bus().await;
        bus.subscribe(handler(), picky.sync()).await.unwrap();
        let at = log.store(&[("bad", "Begun"), ("bad", "Ended"), ("bad", "Begun")]).await;
        until_parked(&bus, "picky", 3).await;
        let notes = bus.notes("picky").await.unwrap();
        notes.drop_parked(Position(at[0]), "a test call").await.unwrap();
        until_parked(&bus, "picky", 2).await;
        for position in [at[0], 999] {
            let position = Position(position);
            let refused = notes.replay_parked(position).await.unwrap_err();
            let handler = "picky".to_owned();
            assert_eq!(refused, BusError::NotParked { handler, position });
        }
        bus.stop().await.unwrap();

        // Asked for while no bus runs.
        picky.is_well.store(true, Ordering::SeqCst);
        let notes = HandlerNotes::of(log.store.clone(), "main", "picky").await.unwrap();
        notes.replay_parked(Position(at[1])).await.unwrap();
        let bus = log.bus().await;
        bus.subscribe(handler(), picky.sync()).await.unwrap();
        let left = until_parked(&bus, "picky", 1).await;
        assert_eq!(left[0].position.0, at[2], "nobody asked for this one");
        let (position, id, attempt) = (at[1], "bad".to_owned(), 2);
        let expected = Heard { position, id, attempt, is_replay: false, was_parked: true };
        assert_eq!(picky.book.heard(), [expected]);
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_handler_that_parks_too_much_stops_rather_than_park_the_whole_log() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let code = |_: &Delivery| Err("no".into());
        let handler = Handler::new("broken").backoff(hasty(0)).parked_max(10);
        bus.subscribe(handler, code).await.unwrap();
        log.fill(50, 1).await;
        let reason = until_stopped(&bus, "broken").await;
        assert!(reason.contains("10") && reason.contains("no"), "{reason}");
        assert_eq!(parked(&bus, "broken").await.len(), 10);
        bus.stop().await.unwrap();
    });
}

/// Version 1 of an event; the log has others, too.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    seconds: u64,
}

impl EventType for Ended {
    const NAME: &'static str = "Ended";
    const AGGREGATE_TYPE: &'static str = "Call";
}

#[derive(Debug)]
struct CallEnded(Ended);

impl AggregateEvent for CallEnded {
    fn encode(&self) -> Result<EncodedEvent, EncodeError> {
        encode_event(&self.0)
    }

    fn decode(record: &Record) -> Result<Self, DecodeError> {
        decode_event(record).map(Self)
    }
}

#[test]
fn what_a_handler_cannot_read_is_parked_skipped_or_stops_it_and_is_never_lost() {
    block_on(async {
        let log = Log::new();
        let ended = |data: serde_json::Value| {
            let key = AggregateKey::new("Call", "a");
            log.store.new_event(key, "Ended", data.to_string())
        };
        let unknown = log.event("a", "Unheard");
        let newer = NewEvent { schema_version: 2, ..ended(json!({ "seconds": 1 })) };
        let unfit = ended(json!({ "seconds": "many" }));
        let events = vec![unknown, newer, unfit, ended(json!({ "seconds": 7 }))];
        log.store.append(Append::any(events)).await.unwrap();
        let bus = log.bus().await;
        let sums = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        let ways = [Unreadable::Park, Unreadable::Skip, Unreadable::Stop];
        for (way, sum) in ways.into_iter().zip(&sums) {
            let sum = Arc::clone(sum);
            let code = move |delivery: &Delivery| {
                let CallEnded(Ended { seconds }) = delivery.event()?;
                sum.fetch_add(usize::try_from(seconds).unwrap(), Ordering::SeqCst);
                Ok(())
            };
            bus.subscribe(Handler::new(format!("{way:?}")).unreadable(way), code).await.unwrap();
        }
        let parked = until_parked(&bus, "Park", 3).await;
        let says = ["knows no such event", "newer", "seconds"];
        for (event, says) in parked.iter().zip(says) {
            assert!(event.error.contains(says), "{}", event.error);
            assert_eq!(event.attempts, 1, "another attempt is of no use");
        }
        until(async || metrics(&bus, "Skip").await.total().events == 1).await;
        let skipped = metrics(&bus, "Skip").await;
        assert_eq!((skipped.total().skipped, skipped.parked), (3, 0));
        let reason = until_stopped(&bus, "Stop").await;
        assert!(reason.contains("position 1") && reason.contains("no such event"), "{reason}");
        until(async || sums[0].load(Ordering::SeqCst) == 7).await;
        assert_eq!(sums.each_ref().map(|sum| sum.load(Ordering::SeqCst)), [7, 7, 0]);
        assert_eq!(metrics(&bus, "Stop").await.position, Position(0), "it stopped before it");
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_stop_finishes_what_is_at_hand_and_gives_back_what_waits() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let (book, slow) = (Book::default(), Duration::from_millis(100));
        let code = {
            let book = book.clone();
            move |delivery: &Delivery| {
                book.write(delivery);
                // Takes its time, on its own thread.
                std::thread::park_timeout(slow);
                if delivery.record().aggregate_id() == "bad" { Err("no".into()) } else { Ok(()) }
            }
        };
        let pauses = vec![Duration::from_mins(10)];
        let handler = Handler::new("slow").backoff(Backoff { pauses, jitter: 0.0 });
        bus.subscribe(handler, code.clone()).await.unwrap();
        let at = log.store(&[("a", "Begun"), ("b", "Begun"), ("c", "Begun")]).await;
        book.filled(1).await;
        within(bus.stop()).await.unwrap();
        assert_eq!(book.positions(), [at[0]], "the rest of its batch was given back");
        let places = Places::newest(&*log.store, "main").await.unwrap().1.unwrap();
        assert_eq!(places.handlers["slow"].position.0, at[0]);

        // One that waits 10 minutes for another attempt is given back too.
        let bus = log.bus().await;
        let pauses = vec![Duration::from_mins(10)];
        let handler = Handler::new("slow").backoff(Backoff { pauses, jitter: 0.0 });
        bus.subscribe(handler, code).await.unwrap();
        let bad = log.store(&[("bad", "Begun")]).await;
        book.filled(4).await;
        until(async || metrics(&bus, "slow").await.total().errors == 1).await;
        within(bus.stop()).await.unwrap();
        let places = Places::newest(&*log.store, "main").await.unwrap().1.unwrap();
        assert_eq!(places.handlers["slow"].position.0, bad[0] - 1);
    });
}

#[test]
fn an_event_that_is_dropped_before_its_turn_takes_no_other_along() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let picky = Picky::default();
        let (go, gate) = channel::<()>();
        let (gate, handle) = (Mutex::new(gate), picky.sync());
        let code = move |delivery: &Delivery| {
            if delivery.record().aggregate_id() == "slow" {
                gate.lock().recv().ok();
            }
            handle(delivery)
        };
        bus.subscribe(Handler::new("h").backoff(hasty(0)), code).await.unwrap();
        let bad = log.store(&[("bad", "Begun"), ("bad", "Ended")]).await;
        until_parked(&bus, "h", 2).await;
        let in_hand = async |events| until(async || metrics(&bus, "h").await.queue == events).await;
        let slow = log.store(&[("slow", "Begun")]).await;
        in_hand(1).await;
        // Both are in the lane by then, one before the next event and one behind it.
        let notes = bus.notes("h").await.unwrap();
        notes.replay_parked(Position(bad[0])).await.unwrap();
        in_hand(2).await;
        let next = log.store(&[("next", "Begun")]).await;
        in_hand(3).await;
        notes.replay_parked(Position(bad[1])).await.unwrap();
        in_hand(4).await;
        for position in bad {
            notes.drop_parked(Position(position), "of no use").await.unwrap();
        }
        until(async || metrics(&bus, "h").await.parked == 0).await;
        picky.is_well.store(true, Ordering::SeqCst);
        go.send(()).unwrap();
        in_hand(0).await;
        let last = log.store(&[("last", "Begun")]).await;
        picky.book.filled(3).await;
        assert_eq!(picky.book.positions(), [slow[0], next[0], last[0]]);
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_bus_stops_although_calls_wait_for_a_thread_and_all_of_them_hang() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let (go, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let code = move |_: Delivery| {
            let gate = Arc::clone(&gate);
            async move {
                gate.lock().recv().ok();
                Ok(())
            }
        };
        let handler = Handler::new("hangs").backoff(hasty(0)).timeout(Duration::from_millis(100));
        bus.subscribe_async(handler.concurrency(64), code).await.unwrap();
        // One after the other, so that each is a call of its own.
        for event in 1..=30 {
            log.store(&[(&event.to_string(), "Begun")]).await;
            Delay::new(Duration::from_millis(10)).await;
        }
        let reason = until_stopped(&bus, "hangs").await;
        assert!(reason.contains("hang"), "{reason}");
        within(bus.stop()).await.unwrap();
        drop(go);
    });
}
