//! Event buses of several processes on one log: one works, the others are refused or wait; and a
//! process that is killed between handling an event and saving that.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use futures::future::{FutureExt, join};
use quipu_client::{
    AggregateKey, Append, Begin, BusError, BusOptions, CHECKPOINT_TYPE, Embedded, EventBus,
    EventStore, Handler, HandlerError, HandlerStatus, IfHeld, Options, Places, Remote,
};
use quipu_server::ServerOptions;
use quipu_tests::events::event;
use quipu_tests::patience::block_on;
use quipu_tests::running::Running;
use quipu_tests::served::Served;
use tempfile::TempDir;

const FOLDER: &str = "QUIPU_TEST_BUS_FOLDER";
const EVENTS: u64 = 2_000;
const KILLS: u64 = 12;
const PATIENCE: Duration = Duration::from_secs(30);

fn serve(folder: &TempDir) -> Served {
    Served::open(folder.path(), Options::default(), ServerOptions::default())
}

fn options(holder: &str) -> BusOptions {
    let lease_within = Duration::from_millis(400);
    BusOptions { holder: holder.to_owned(), lease_within, ..BusOptions::default() }
}

async fn open(remote: &Remote, options: BusOptions) -> Result<EventBus, BusError> {
    EventBus::open(Arc::new(remote.clone()), options).await
}

/// Subscribes a handler that says which positions it is given.
async fn subscribe(bus: &EventBus) -> Receiver<u64> {
    let (heard, hears) = channel();
    let code = move |delivery: &quipu_client::Delivery| {
        heard.send(delivery.record().position().0).map_err(HandlerError::because)
    };
    bus.subscribe(Handler::new("h").of_type("Begun").begin(Begin::Beginning), code).await.unwrap();
    hears
}

async fn append(store: &dyn EventStore, id: u128) -> u64 {
    let event = event(id, &AggregateKey::new("Call", "1"), "Begun");
    store.append(Append::any(vec![event])).await.unwrap().last_position().0
}

fn next(hears: &Receiver<u64>) -> u64 {
    hears.recv_timeout(PATIENCE).expect("the handler is given the event")
}

/// Two processes, as far as the log can tell.
fn on_one_log(test: impl AsyncFnOnce(&Remote, &Remote)) {
    let folder = TempDir::new().unwrap();
    let served = serve(&folder);
    let (one, two) = (served.connect(), served.connect());
    block_on(test(&one, &two));
    drop((one, two));
    served.stop();
}

#[test]
fn of_two_processes_one_runs_the_bus_and_the_other_is_refused_or_waits() {
    on_one_log(async |one, two| {
        let first = open(one, options("one")).await.unwrap();
        let hears = subscribe(&first).await;
        let refused = open(two, options("two")).await.map(drop).unwrap_err();
        assert!(refused.to_string().contains("one"), "{refused}");
        assert!(matches!(refused, BusError::Held { .. }));
        let position = append(two, 1).await;
        assert_eq!(next(&hears), position);

        let waiting = BusOptions { if_held: IfHeld::Wait, ..options("two") };
        let mut second = Box::pin(open(two, waiting));
        assert!((&mut second).now_or_never().is_none());
        let (stopped, second) = join(first.stop(), second).await;
        stopped.unwrap();
        let second = second.unwrap();
        let hears = subscribe(&second).await;
        let position = append(one, 2).await;
        assert_eq!(next(&hears), position, "it goes on where the first one stopped");
        second.stop().await.unwrap();
    });
}

#[test]
fn a_bus_whose_process_is_gone_is_taken_over() {
    on_one_log(async |one, two| {
        let first = open(one, options("one")).await.unwrap();
        let hears = subscribe(&first).await;
        let position = append(one, 1).await;
        assert_eq!(next(&hears), position);
        drop(first);
        let second = open(two, options("two")).await.unwrap();
        let hears = subscribe(&second).await;
        // Its place was not saved: at least once.
        assert_eq!(next(&hears), position);
        second.stop().await.unwrap();
    });
}

#[test]
fn a_bus_that_was_taken_over_behind_its_back_stops_and_moves_no_place() {
    on_one_log(async |one, two| {
        let first = open(one, options("one")).await.unwrap();
        let _hears = subscribe(&first).await;
        // What a process does that got no answer from one that was asleep.
        let (at, places) = Places::newest(two, "main").await.unwrap();
        let run = two.new_id();
        let places = Places { run, holder: "two".to_owned(), ..places.unwrap() };
        let json = serde_json::to_vec(&places).unwrap();
        let taken = two.new_event(AggregateKey::new(CHECKPOINT_TYPE, "main"), "PlacesSaved", json);
        let expected = quipu_client::ExpectedVersion::Exact(at.version);
        two.append_system(Append::one(taken, expected)).await.unwrap();
        let told = loop {
            let status = first.metrics().await.unwrap().remove("h").unwrap().status;
            if let HandlerStatus::Stopped(reason) = status {
                break reason;
            }
            futures_timer::Delay::new(Duration::from_millis(5)).await;
        };
        assert!(told.contains("taken over"), "{told}");
        let lost = first.stop().await.unwrap_err();
        assert_eq!(lost, BusError::Lost { bus: "main".to_owned() });
        assert_eq!(Places::newest(two, "main").await.unwrap().1, Some(places));
    });
}

#[test]
fn a_bus_over_tcp_goes_on_when_its_server_comes_back() {
    let folder = TempDir::new().unwrap();
    let served = serve(&folder);
    let port = served.port();
    let remote = served.connect();
    block_on(async {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let address = format!("quipu://127.0.0.1:{port}");
        let own = runtime.block_on(Remote::connect(&address)).unwrap();
        drop(remote);
        let bus = open(&own, options("one")).await.unwrap();
        let hears = subscribe(&bus).await;
        let position = append(&own, 1).await;
        assert_eq!(next(&hears), position);
        drop(served);
        let served =
            Served::open_at(port, folder.path(), Options::default(), ServerOptions::default());
        let position = append(&own, 2).await;
        assert_eq!(next(&hears), position);
        bus.stop().await.unwrap();
        drop(own);
        served.stop();
    });
}

#[test]
#[ignore = "the process that the other test kills"]
fn handling_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let log = Embedded::open(Path::new(&folder), Options::default()).unwrap();
    block_on(async {
        let bus = EventBus::open(Arc::new(log), BusOptions::default()).await.unwrap();
        let code = |delivery: &quipu_client::Delivery| {
            eprintln!("{}", delivery.record().position());
            // So that it lasts for a few kills.
            std::thread::park_timeout(Duration::from_millis(1));
            Ok(())
        };
        bus.subscribe(Handler::new("h").of_type("Begun"), code).await.unwrap();
        loop {
            std::thread::park();
        }
    });
}

fn start_handling(folder: &Path) -> (Running, BufReader<ChildStderr>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["handling_process", "--exact", "--ignored", "--nocapture"]).env(FOLDER, folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Running::start(&mut command);
    let handled = BufReader::new(child.stderr.take().unwrap());
    (child, handled)
}

#[test]
fn a_process_killed_between_handling_and_saving_gets_the_event_again_and_skips_none() {
    let folder = TempDir::new().unwrap();
    {
        let log = Embedded::open(folder.path(), Options::default()).unwrap();
        let key = AggregateKey::new("Call", "1");
        let events = (1..=u128::from(EVENTS)).map(|id| event(id, &key, "Begun")).collect();
        block_on(log.append(Append::any(events))).unwrap();
    }
    let mut handled = BTreeSet::new();
    let (mut lines, mut kills) = (0, 0);
    while handled.len() < usize::try_from(EVENTS).unwrap() {
        let (mut child, told) = start_handling(folder.path());
        let patience = 40 + 97 * kills;
        let mut first = true;
        child.within(|_| {
            for line in told.lines().map_while(Result::ok) {
                let Ok(position) = line.parse::<u64>() else { continue };
                if std::mem::take(&mut first) {
                    // Never behind what nobody has handled.
                    let expected = handled.last().copied().unwrap_or(0) + 1;
                    assert!(position <= expected, "at {position}, {expected} was never handled");
                }
                handled.insert(position);
                lines += 1;
                let is_all = handled.len() as u64 == EVENTS;
                if is_all || (kills < KILLS && lines % patience == 0) {
                    break;
                }
            }
        });
        assert!(kills <= KILLS, "it ended by itself or hung, at {lines} lines");
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert_eq!(handled, (1..=EVENTS).collect());
    assert!(kills > 3 && lines > EVENTS, "{kills} kills, {lines} events with repetitions");
}
