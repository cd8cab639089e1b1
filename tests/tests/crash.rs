//! A process that appends is killed at any moment, again and again: every append that it had been
//! told was stored is there, and running it again from the start stores each event exactly once.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a crash has its moment in real time, and the process that is killed tells of its work"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use quipu_client::{
    AggregateKey, Append, Embedded, EventStore, ExpectedVersion, Options, Uuid, Version,
};
use quipu_engine::{Entropy, System};
use quipu_tests::events::event;
use quipu_tests::filled_log::read_all;
use quipu_tests::patience::block_on;
use quipu_tests::running::Running;

const FOLDER: &str = "QUIPU_TEST_CRASH_FOLDER";
const EVENTS: u64 = 3_000;
const KILLS: u64 = 20;
const IN_FLIGHT: usize = 16;
const AGGREGATES: u64 = 7;

fn open(folder: &Path) -> Embedded {
    Embedded::open(folder, Options::default().with_segment_bytes(64 * 1024)).expect("it opens")
}

fn append_of(id: u64) -> Append {
    let key = AggregateKey::new("Cord", (id % AGGREGATES).to_string());
    let before = Version((id - 1) / AGGREGATES);
    Append::one(event(id.into(), &key, "Knotted"), ExpectedVersion::Exact(before))
}

/// Appends every event from the first on, and says on standard error which were acknowledged.
async fn append_all(log: &Embedded) {
    let mut waiting = FuturesOrdered::new();
    let mut acknowledged = 0;
    let mut next = 1;
    while acknowledged < EVENTS {
        while next <= EVENTS && waiting.len() < IN_FLIGHT {
            waiting.push_back(log.append(append_of(next)));
            next += 1;
        }
        let outcome = waiting.next().await.expect("appends are waiting").expect("stored");
        acknowledged += 1;
        assert_eq!(outcome.last_position().0, acknowledged);
        eprintln!("{acknowledged}");
    }
}

#[test]
#[ignore = "the process that the other test kills"]
fn appender() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let log = open(Path::new(&folder));
    block_on(append_all(&log));
}

fn start_appender(folder: &Path) -> (Running, BufReader<ChildStderr>) {
    let program = std::env::current_exe().expect("a test knows its program");
    let mut command = Command::new(program);
    command.args(["appender", "--exact", "--ignored", "--nocapture"]).env(FOLDER, folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Running::start(&mut command);
    let acknowledged = BufReader::new(child.stderr.take().expect("its errors are piped"));
    (child, acknowledged)
}

/// The number of the next event acknowledged; `None` if the process has ended.
fn next_acknowledged(lines: &mut BufReader<ChildStderr>) -> Option<u64> {
    let mut line = String::new();
    lines.read_line(&mut line).expect("a pipe can be read");
    if !line.ends_with('\n') {
        return None;
    }
    Some(line.trim().parse().unwrap_or_else(|_| panic!("the appender says: {line}")))
}

fn random_below(limit: u64) -> u64 {
    let (random, _) = System.uuid().as_u64_pair();
    (random >> 16) % limit
}

/// The events that are stored are the first ones, each once, in order. Returns how many.
fn check_stored(log: &Embedded) -> u64 {
    let report = log.recovery_report();
    assert_eq!(report.damage, None, "{report}");
    let (records, error) = read_all(log);
    assert_eq!(error, None);
    for (record, id) in records.iter().zip(1_u64..) {
        assert_eq!(record.event_id(), Uuid::from_u128(id.into()));
        assert_eq!(record.position().0, id);
    }
    records.len() as u64
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment_and_nothing_is_stored_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for kill in 1..=KILLS {
        let at = (acknowledged + 1 + random_below(EVENTS / KILLS)).min(EVENTS);
        let delay = Duration::from_micros(random_below(3_000));
        let (mut child, mut lines) = start_appender(folder.path());
        child.within(|_| {
            while acknowledged < at {
                let id = next_acknowledged(&mut lines).expect("it runs until it is killed");
                acknowledged = acknowledged.max(id);
            }
        });
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(id) = next_acknowledged(&mut lines) {
            acknowledged = acknowledged.max(id);
        }
        let about = format!("kill {kill}, at {at} and {delay:?} later");
        // Every other time the next appender finds what the kill has left.
        if kill % 2 == 0 {
            let stored = check_stored(&open(folder.path()));
            assert!(stored >= acknowledged, "{about}: {stored} of {acknowledged} are stored");
        } else {
            let options = Options::default().with_segment_bytes(64 * 1024);
            check_stored(&Embedded::open_read_only(folder.path(), options).expect(&about));
        }
    }
    let (mut child, mut lines) = start_appender(folder.path());
    let last = child.within(|_| std::iter::from_fn(|| next_acknowledged(&mut lines)).last());
    assert_eq!((last, child.wait().unwrap().success()), (Some(EVENTS), true));
    let log = open(folder.path());
    assert!(log.recovery_report().clean);
    assert_eq!(check_stored(&log), EVENTS);
    let segments = log.status().unwrap().segments.len();
    assert!(segments > 10, "rolls were among what was interrupted: {segments} segments");
}
