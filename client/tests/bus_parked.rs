//! Parked events that are dropped, or handled again, whatever happens meanwhile.
#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bus_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use bus_support::*;
use futures::future;
use futures_timer::Delay;
use parking_lot::Mutex;
use quipu_client::*;

fn handler() -> Handler {
    Handler::new("h").backoff(hasty(0))
}

async fn notes(log: &Log) -> HandlerNotes {
    HandlerNotes::of(log.store.clone(), "main", "h").await.unwrap()
}

/// Parks the one `Bad` event, and is killed while it handles aggregate `slow`: its place stays
/// before that.
async fn park_and_be_killed(log: &Log) {
    let bus = log.bus().await;
    let code = |delivery: Delivery| async move {
        match (delivery.record().aggregate_id(), delivery.record().event_type()) {
            ("slow", _) => future::pending().await,
            (_, "Bad") => Err("it is bad".into()),
            _ => Ok(()),
        }
    };
    bus.subscribe_async(handler(), code).await.unwrap();
    until_parked(&bus, "h", 1).await;
}

/// It was nowhere among what is parked, and so came up like any other.
#[test]
fn a_dropped_event_does_not_come_up_again_behind_a_place_that_was_saved_before() {
    block_on(async {
        let log = Log::new();
        let at = log.store(&[("slow", "Begun"), ("a", "Bad"), ("b", "Begun")]).await;
        park_and_be_killed(&log).await;
        notes(&log).await.drop_parked(Position(at[1]), "a test call").await.unwrap();
        let bus = log.bus().await;
        let book = Book::default();
        bus.subscribe(handler(), book.writer()).await.unwrap();
        book.filled(2).await;
        assert_eq!(book.positions(), [at[0], at[2]]);
        bus.stop().await.unwrap();
    });
}

/// The failure parked it once more.
#[test]
fn an_event_that_is_dropped_while_it_is_handled_again_stays_dropped() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let (book, (go, gate)) = (Book::default(), channel::<()>());
        let (writes, gate) = (book.clone(), Mutex::new(gate));
        let code = move |delivery: &Delivery| {
            writes.write(delivery);
            if delivery.was_parked() {
                gate.lock().recv().ok();
            }
            if delivery.record().event_type() == "Bad" { Err("it is bad".into()) } else { Ok(()) }
        };
        bus.subscribe(handler(), code).await.unwrap();
        let at = log.store(&[("a", "Bad")]).await;
        until_parked(&bus, "h", 1).await;
        let notes = notes(&log).await;
        notes.replay_parked(Position(at[0])).await.unwrap();
        book.filled(2).await;
        notes.drop_parked(Position(at[0]), "a test call").await.unwrap();
        until(async || metrics(&bus, "h").await.parked == 0).await;
        go.send(()).unwrap();
        log.store(&[("a", "Begun")]).await;
        book.filled(3).await;
        assert_eq!((parked(&bus, "h").await, metrics(&bus, "h").await.parked), (vec![], 0));
        bus.stop().await.unwrap();
    });
}

/// Each try was a note of its own: the last one came behind the drop.
#[test]
fn an_event_is_noted_once_as_parked_although_the_answer_is_lost() {
    block_on(async {
        let log = Log::new();
        let unknown = AppendError::OutcomeUnknown("no answer".to_owned());
        let down = AppendError::NotWritten("the server is down".to_owned());
        let errors = Mutex::new([unknown, down].into());
        let store = Flaky { store: log.store.clone(), aggregate_type: HANDLER_TYPE, errors };
        let bus = EventBus::open(Arc::new(store), BusOptions::default()).await.unwrap();
        let book = Book::default();
        let writes = book.clone();
        let code = move |delivery: &Delivery| {
            if delivery.record().event_type() == "Bad" {
                return Err("it is bad".into());
            }
            writes.write(delivery);
            Ok(())
        };
        bus.subscribe(handler(), code).await.unwrap();
        let at = log.store(&[("a", "Bad"), ("a", "Begun")]).await;
        until_parked(&bus, "h", 1).await;
        let notes = notes(&log).await;
        notes.drop_parked(Position(at[0]), "a test call").await.unwrap();
        book.filled(1).await;
        assert_eq!(log.store.version(&notes.stream()).await, Ok(Version(2)));
        assert_eq!((parked(&bus, "h").await, metrics(&bus, "h").await.parked), (vec![], 0));
        bus.stop().await.unwrap();
    });
}

/// It was read before the log was: it came first.
#[test]
fn an_event_asked_for_comes_behind_those_before_it_that_come_a_second_time() {
    block_on(async {
        let log = Log::new();
        let at = log.store(&[("slow", "Begun"), ("a", "Begun"), ("a", "Bad")]).await;
        park_and_be_killed(&log).await;
        notes(&log).await.replay_parked(Position(at[2])).await.unwrap();
        let store = Outage::of(&log);
        store.of_subscriptions.store(true, Ordering::SeqCst);
        let bus = EventBus::open(store.clone(), BusOptions::default()).await.unwrap();
        let book = Book::default();
        bus.subscribe(handler(), book.writer()).await.unwrap();
        // Long enough to hand out what need not wait for the log.
        Delay::new(Duration::from_millis(300)).await;
        store.of_subscriptions.store(false, Ordering::SeqCst);
        book.filled(3).await;
        assert_eq!(book.positions(), at);
        until_parked(&bus, "h", 0).await;
        bus.stop().await.unwrap();
    });
}

/// One read that failed stopped the handler for good.
#[test]
fn a_log_that_cannot_be_read_for_a_while_does_not_stop_a_handler_that_is_asked_for_an_event() {
    block_on(async {
        let log = Log::new();
        let store = Outage::of(&log);
        let bus = EventBus::open(store.clone(), BusOptions::default()).await.unwrap();
        let code = |delivery: &Delivery| {
            if delivery.was_parked() { Ok(()) } else { Err("it is bad".into()) }
        };
        bus.subscribe(handler(), code).await.unwrap();
        let at = log.store(&[("a", "Bad")]).await;
        until_parked(&bus, "h", 1).await;
        store.of_reads.store(true, Ordering::SeqCst);
        notes(&log).await.replay_parked(Position(at[0])).await.unwrap();
        until(async || store.reads.load(Ordering::SeqCst) > 0).await;
        Delay::new(Duration::from_millis(300)).await;
        assert_eq!(metrics(&bus, "h").await.status, HandlerStatus::Running);
        store.of_reads.store(false, Ordering::SeqCst);
        until_parked(&bus, "h", 0).await;
        bus.stop().await.unwrap();
    });
}

/// All of them were read at once.
#[test]
fn events_that_are_asked_for_are_read_as_the_window_has_room() {
    block_on(async {
        let log = Log::new();
        let store = Outage::of(&log);
        let bus = EventBus::open(store.clone(), BusOptions::default()).await.unwrap();
        let gate = Arc::new(Gate::default());
        let opened = Arc::clone(&gate);
        let code = move |delivery: Delivery| {
            let gate = Arc::clone(&opened);
            async move {
                if !delivery.was_parked() {
                    return Err("it is bad".into());
                }
                gate.opened().await;
                Ok(())
            }
        };
        bus.subscribe_async(handler().window(3), code).await.unwrap();
        log.fill(20, 20).await;
        let notes = notes(&log).await;
        for event in until_parked(&bus, "h", 20).await {
            notes.replay_parked(event.position).await.unwrap();
        }
        until(async || store.reads.load(Ordering::SeqCst) >= 3).await;
        Delay::new(Duration::from_millis(300)).await;
        assert_eq!((store.reads.load(Ordering::SeqCst), metrics(&bus, "h").await.queue), (3, 3));
        gate.open();
        until_parked(&bus, "h", 0).await;
        until(async || metrics(&bus, "h").await.queue_bytes == 0).await;
        assert_eq!(store.reads.load(Ordering::SeqCst), 20, "each once");
        bus.stop().await.unwrap();
    });
}

/// A handler that leaves replays alone left these alone, too, and so they were handled.
#[test]
fn a_parked_event_is_no_replay_in_whatever_way_it_comes_again() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        let (book, is_well) = (Book::default(), Arc::new(AtomicBool::new(false)));
        let (writes, well) = (book.clone(), Arc::clone(&is_well));
        let code = move |delivery: &Delivery| {
            if delivery.is_replay() {
                return Ok(());
            }
            let is_bad = delivery.record().event_type() == "Bad";
            if is_bad && !well.load(Ordering::SeqCst) {
                return Err("it is bad".into());
            }
            writes.write(delivery);
            Ok(())
        };
        bus.subscribe(handler(), code).await.unwrap();
        let at = log.store(&[("a", "Bad"), ("b", "Good"), ("c", "Bad")]).await;
        until_parked(&bus, "h", 2).await;
        is_well.store(true, Ordering::SeqCst);
        let notes = notes(&log).await;
        notes.replay_parked(Position(at[0])).await.unwrap();
        until_parked(&bus, "h", 1).await;
        let replay = notes.replay(ReplayRequest::default()).await.unwrap();
        assert_eq!(within(notes.replayed(replay)).await.unwrap(), 3);
        assert_eq!(book.positions(), [at[1], at[0], at[2]], "each was handled, and once");
        until_parked(&bus, "h", 0).await;
        bus.stop().await.unwrap();
    });
}
