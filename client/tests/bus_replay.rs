//! Parts of the past, handled again because somebody asks for it.
#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "a rate is kept in real time")]

mod bus_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bus_support::*;
use futures::FutureExt;
use futures_timer::Delay;
use parking_lot::Mutex;
use quipu_client::*;

async fn until_ended(notes: &HandlerNotes, replay_id: Uuid) -> u64 {
    let events = within(notes.replayed(replay_id)).await.unwrap();
    let state = notes.replay_state(replay_id).await.unwrap();
    assert_eq!(state, ReplayState::Ended { events });
    events
}

#[test]
fn the_past_is_handled_again_and_the_handler_can_see_it() {
    block_on(async {
        let log = Log::new();
        log.fill(100, 4).await;
        let bus = log.bus().await;
        let book = Book::default();
        bus.subscribe(Handler::new("again"), book.writer()).await.unwrap();
        book.filled(100).await;
        let notes = bus.notes("again").await.unwrap();
        let key = AggregateKey::new("Call", "1");
        let requests = [
            (ReplayRequest::default(), (1..=100).collect::<Vec<u64>>()),
            (
                ReplayRequest {
                    from: Some(Position(20)),
                    to: Some(Position(29)),
                    ..ReplayRequest::default()
                },
                (20..=29).collect(),
            ),
            (
                ReplayRequest {
                    aggregate: Some(key),
                    from: Some(Position(90)),
                    ..ReplayRequest::default()
                },
                vec![90, 94, 98],
            ),
            (
                ReplayRequest { event_types: vec!["Never".to_owned()], ..ReplayRequest::default() },
                vec![],
            ),
        ];
        for (request, expected) in requests {
            let before = book.len();
            let replay_id = notes.replay(request).await.unwrap();
            assert_eq!(until_ended(&notes, replay_id).await, expected.len() as u64);
            let heard = book.heard().split_off(before);
            assert_eq!(heard.iter().map(|it| it.position).collect::<Vec<_>>(), expected);
            assert!(heard.iter().all(|heard| heard.is_replay && heard.attempt == 1));
        }
        // What came meanwhile comes now.
        let (before, later) = (book.len(), log.store(&[("a", "Begun")]).await);
        let heard = book.filled(before + 1).await;
        assert_eq!((heard[before].position, heard[before].is_replay), (later[0], false));
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_time_that_cannot_be_noted_is_refused() {
    block_on(async {
        let log = Log::new();
        let bus = log.bus().await;
        bus.subscribe(Handler::new("again"), Book::default().writer()).await.unwrap();
        let notes = bus.notes("again").await.unwrap();
        let after = Some(Timestamp::from_micros(i64::MAX));
        let refused = notes.replay(ReplayRequest { after, ..ReplayRequest::default() }).await;
        assert!(refused.unwrap_err().to_string().contains(&i64::MAX.to_string()));
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_handler_replays_only_what_it_hears_of() {
    block_on(async {
        let log = Log::new();
        let at = log.store(&[("a", "Begun"), ("a", "Ended"), ("b", "Ended")]).await;
        let bus = log.bus().await;
        let book = Book::default();
        bus.subscribe(Handler::new("ended").of_type("Ended"), book.writer()).await.unwrap();
        book.filled(2).await;
        let notes = bus.notes("ended").await.unwrap();
        let all = notes.replay(ReplayRequest::default()).await.unwrap();
        assert_eq!(until_ended(&notes, all).await, 2);
        let other = ReplayRequest { event_types: vec!["Begun".to_owned()], ..Default::default() };
        let none = notes.replay(other).await.unwrap();
        assert_eq!(until_ended(&notes, none).await, 0);
        assert_eq!(book.positions(), [at[1], at[2], at[1], at[2]]);
        let nobody = notes.replay_state(Uuid::from_u128(9)).await.unwrap();
        assert_eq!(nobody, ReplayState::Unknown);
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_replay_keeps_to_its_rate_and_holds_back_what_is_new() {
    block_on(async {
        let log = Log::new();
        log.fill(30, 1).await;
        let bus = log.bus().await;
        let book = Book::default();
        bus.subscribe(Handler::new("slow"), book.writer()).await.unwrap();
        book.filled(30).await;
        let notes = bus.notes("slow").await.unwrap();
        let request = ReplayRequest { rate: Some(100), ..ReplayRequest::default() };
        let begun = Instant::now();
        let replay_id = notes.replay(request).await.unwrap();
        book.filled(31).await;
        let new = log.store(&[("a", "Begun")]).await;
        assert_eq!(until_ended(&notes, replay_id).await, 30);
        assert!(begun.elapsed() >= Duration::from_millis(280), "{:?}", begun.elapsed());
        let heard = book.filled(61).await;
        assert_eq!(heard[60].position, new[0], "behind the past");
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_replay_outlives_its_bus() {
    block_on(async {
        let log = Log::new();
        log.fill(400, 1).await;
        let bus = log.bus().await;
        let book = Book::default();
        bus.subscribe(Handler::new("long"), book.writer()).await.unwrap();
        book.filled(400).await;
        let notes = bus.notes("long").await.unwrap();
        let request = ReplayRequest { rate: Some(100), ..ReplayRequest::default() };
        let replay_id = notes.replay(request).await.unwrap();
        // Until it has noted how far it is: then it is not begun again.
        let state = async || notes.replay_state(replay_id).await.unwrap();
        until(async || matches!(state().await, ReplayState::Running { .. })).await;
        drop(bus);
        let before = book.len();
        let bus = log.bus().await;
        bus.subscribe(Handler::new("long"), book.writer()).await.unwrap();
        until_ended(&notes, replay_id).await;
        let again = book.heard().split_off(before);
        let first = again.iter().find(|heard| heard.is_replay).unwrap().position;
        assert!(first > 1, "it went on at {first}");
        let mut replayed: Vec<u64> =
            book.heard().iter().filter(|it| it.is_replay).map(|it| it.position).collect();
        replayed.sort_unstable();
        replayed.dedup();
        assert_eq!(replayed, (1..=400).collect::<Vec<_>>());
        bus.stop().await.unwrap();
    });
}

#[test]
fn what_fails_in_a_replay_is_parked_and_what_was_parked_is_not_any_more() {
    block_on(async {
        let log = Log::new();
        log.fill(20, 20).await;
        let bus = log.bus().await;
        let fails = Arc::new(AtomicBool::new(true));
        let code = {
            let fails = Arc::clone(&fails);
            move |delivery: &Delivery| {
                let is_bad = delivery.record().position().0.is_multiple_of(10);
                if is_bad && fails.load(Ordering::SeqCst) { Err("no".into()) } else { Ok(()) }
            }
        };
        bus.subscribe(Handler::new("h").backoff(hasty(0)), code).await.unwrap();
        until_parked(&bus, "h", 2).await;
        let notes = bus.notes("h").await.unwrap();
        let replay_id = notes.replay(ReplayRequest::default()).await.unwrap();
        assert_eq!(until_ended(&notes, replay_id).await, 20);
        assert_eq!(parked(&bus, "h").await.len(), 2, "parked again");
        fails.store(false, Ordering::SeqCst);
        let replay_id = notes.replay(ReplayRequest::default()).await.unwrap();
        assert_eq!(until_ended(&notes, replay_id).await, 20);
        assert_eq!(parked(&bus, "h").await, []);
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_replay_that_is_asked_for_while_its_handler_begins_is_not_missed() {
    block_on(async {
        let log = Log::new();
        log.fill(20, 1).await;
        let bus = log.bus().await;
        let book = Book::default();
        bus.subscribe(Handler::new("h"), book.writer()).await.unwrap();
        book.filled(20).await;
        let notes = bus.notes("h").await.unwrap();
        bus.stop().await.unwrap();
        // When the handler has read its notes; and the bus has time to hear of it.
        let moment = Moment::Read(notes.stream());
        let asks = async move {
            notes.replay(ReplayRequest::default()).await.unwrap();
            Delay::new(Duration::from_millis(200)).await;
        };
        let happens = Mutex::new(Some(asks.boxed()));
        let store = Arc::new(Unlucky { store: log.store.clone(), moment, happens });
        let bus = EventBus::open(store, BusOptions::default()).await.unwrap();
        bus.subscribe(Handler::new("h"), book.writer()).await.unwrap();
        book.filled(40).await;
        bus.stop().await.unwrap();
    });
}
