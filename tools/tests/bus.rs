//! `quipu bus` and `quipu replay`: on a log whose bus has ended, and on a server while one runs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use futures::executor::block_on;
use quipu_client::{
    AggregateKey, Append, Backoff, BusOptions, Delivery, Embedded, EventBus, EventStore, Handler,
    HandlerError, Options, Remote,
};
use support::{Place, run, serve};

/// What a handler was given: its position, and whether again.
type Heard = (u64, bool);

/// Subscribes a handler that fails on aggregate `bad` until it is well.
async fn subscribe(bus: &EventBus, is_well: &Arc<AtomicBool>) -> Receiver<Heard> {
    let (heard, hears) = channel();
    let is_well = Arc::clone(is_well);
    let code = move |delivery: &Delivery| {
        let record = delivery.record();
        if record.aggregate_id() == "bad" && !is_well.load(Ordering::SeqCst) {
            return Err("no such customer".into());
        }
        let is_again = delivery.is_replay() || delivery.was_parked();
        heard.send((record.position().0, is_again)).map_err(HandlerError::because)
    };
    let at_once = Backoff { pauses: Vec::new(), jitter: 0.0 };
    let handler = Handler::new("invoices").of_type("Ended").backoff(at_once);
    bus.subscribe(handler, code).await.unwrap();
    hears
}

async fn fill(store: &dyn EventStore, log: &Embedded) {
    let event = |id: &str, kind: &str| log.new_event(AggregateKey::new("Call", id), kind, "{}");
    let events =
        [("a", "Begun"), ("a", "Ended"), ("bad", "Ended"), ("b", "Ended"), ("bad", "Ended")];
    let events = events.into_iter().map(|(id, kind)| event(id, kind)).collect();
    store.append(Append::any(events)).await.unwrap();
}

fn next(hears: &Receiver<Heard>) -> Heard {
    hears.recv_timeout(Duration::from_secs(30)).unwrap()
}

/// Looks until a command says this.
fn until(line: &str, text: &str) {
    for _ in 0..600 {
        if run(line).code(0).out.contains(text) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("{line} never said {text}");
}

/// A log with a bus that has ended and parked positions 3 and 5.
fn parked(place: &Place, is_well: &Arc<AtomicBool>) {
    let log = Embedded::open(&place.log, Options::default()).unwrap();
    block_on(async {
        let store = Arc::new(log.clone());
        fill(&log, &log).await;
        let bus = EventBus::open(store, BusOptions::default()).await.unwrap();
        let hears = subscribe(&bus, is_well).await;
        assert_eq!([next(&hears), next(&hears)], [(2, false), (4, false)]);
        let notes = bus.notes("invoices").await.unwrap();
        for look in 0.. {
            if notes.parked().await.unwrap().len() == 2 {
                break;
            }
            assert!(look < 6_000, "two are parked");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        bus.stop().await.unwrap();
    });
    log.close();
}

#[test]
fn a_log_tells_of_its_bus_and_takes_what_is_to_become_of_parked_events() {
    let (place, is_well) = (Place::new(), Arc::new(AtomicBool::new(false)));
    let log = &place.log;
    parked(&place, &is_well);
    run(&format!("bus status --log {log}"))
        .code(0)
        .says("ended in order")
        .says("invoices")
        .says("event_type:Ended");
    let status = run(&format!("bus status --log {log} --json")).code(0).json().remove(0);
    let handler = &status["handlers"][0];
    assert_eq!((&handler["handler"], &handler["parked"]), (&"invoices".into(), &2.into()));
    run(&format!("bus status --log {log} --bus other")).code(1).complains("\"other\"");

    let list = format!("bus parked list invoices --log {log}");
    run(&list).code(0).says("Call/bad").says("no such customer");
    let listed = run(&format!("{list} --json")).code(0).json();
    let positions: Vec<_> = listed.iter().map(|event| event["position"].as_u64()).collect();
    assert_eq!(positions, [Some(3), Some(5)]);
    run(&format!("bus parked list nobody --log {log}")).code(1).complains("\"nobody\"");

    run(&format!("bus parked drop invoices 3 --log {log}")).code(2).complains("--reason");
    run(&format!("bus parked drop invoices 3 999 --reason test --log {log}"))
        .code(1)
        .complains("999");
    assert_eq!(run(&format!("{list} --json")).code(0).json().len(), 2, "nothing was dropped");
    run(&format!("bus parked drop invoices 3 --reason test --log {log}")).code(0).says("1 event");
    run(&format!("bus parked drop invoices 3 --reason test --log {log}")).code(1).complains("3");
    run(&format!("bus parked replay invoices --log {log}")).code(2);
    run(&format!("bus parked replay invoices --all --log {log}")).code(0).says("1 event");

    // The next bus does what was asked for.
    is_well.store(true, Ordering::SeqCst);
    let replay = format!("replay --handler invoices --log {log} --to 4");
    run(&format!("{replay} --dry-run")).code(0).says("3 events would be replayed");
    run(&format!("{replay} --json")).code(0).says("\"asked\"");
    let opened = Embedded::open(log, Options::default()).unwrap();
    block_on(async {
        let bus = EventBus::open(Arc::new(opened.clone()), BusOptions::default()).await.unwrap();
        let hears = subscribe(&bus, &is_well).await;
        let mut heard = [(); 4].map(|()| next(&hears));
        heard.sort_unstable();
        assert_eq!(heard, [(2, true), (3, true), (4, true), (5, true)]);
        bus.stop().await.unwrap();
    });
    opened.close();
    assert_eq!(run(&format!("{list} --json")).code(0).json().len(), 0);
}

#[test]
fn events_are_printed_as_they_would_be_replayed() {
    let place = Place::new();
    let log = Embedded::open(&place.log, Options::default()).unwrap();
    block_on(fill(&log, &log));
    log.close();
    let replay = |more: &str| {
        let line = format!("replay --stdout --log {} --json {more}", place.log);
        let lines = run(line.trim()).code(0);
        lines.json().iter().map(|event| event["position"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(replay(""), [1, 2, 3, 4, 5]);
    assert_eq!(replay("--from 2 --to 4"), [2, 3, 4]);
    assert_eq!(replay("--aggregate Call/bad --from 4"), [5]);
    assert_eq!(replay("--aggregate Call --event-type Begun --rate 100"), [1]);
    assert!(replay("--after 2999-01-01T00:00:00Z").is_empty());
    let dry = format!("replay --stdout --dry-run --log {} --json", place.log);
    assert_eq!(run(&dry).code(0).json()[0]["by_type"]["Ended"], 4);
    run(&format!("replay --log {}", place.log)).code(2).complains("--handler");
    run(&format!("replay --handler nobody --log {}", place.log)).code(1).complains("nobody");
}

#[test]
fn a_log_that_is_not_there_is_not_made_to_be_asked() {
    let place = Place::new();
    for line in ["replay --handler h", "bus parked replay h 5", "bus parked drop h 5 --reason x"] {
        run(&format!("{line} --log {}", place.log)).code(3);
        assert!(!std::path::Path::new(&place.log).exists(), "{line}");
    }
}

#[test]
fn a_bus_that_runs_does_what_it_is_asked_for() {
    let (place, is_well) = (Place::new(), Arc::new(AtomicBool::new(false)));
    parked(&place, &is_well);
    let serving = serve(&place.log);
    let at = format!("--server {}", serving.listen);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let remote = runtime.block_on(Remote::connect(&serving.listen)).unwrap();
    let bus = block_on(EventBus::open(Arc::new(remote.clone()), BusOptions::default())).unwrap();
    let hears = block_on(subscribe(&bus, &is_well));
    until(&format!("bus status {at}"), "running");
    is_well.store(true, Ordering::SeqCst);
    run(&format!("bus parked replay invoices 5 {at}")).code(0);
    assert_eq!(next(&hears), (5, true));
    run(&format!("replay --handler invoices {at} --from 3")).code(0).says("3 events replayed");
    assert_eq!([(); 3].map(|()| next(&hears)), [(3, true), (4, true), (5, true)]);
    let list = format!("bus parked list invoices {at} --json");
    assert_eq!(run(&list).code(0).out, "", "the replay handled what was parked");
    block_on(bus.stop()).unwrap();
    until(&format!("bus status {at}"), "ended in order");
    drop(remote);
    serving.stop();
}
