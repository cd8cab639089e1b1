//! Real events through the generic side: 13,087 loan applications of a real log, as an aggregate
//! whose events no type describes, at any version, time and position; compared with a plain fold
//! of the file. Skipped, loudly, where the file is not there.
#![expect(clippy::disallowed_types, reason = "tests read files")]

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use quipu_client::json::parse_line;
use quipu_client::{
    Aggregate, Append, At, Embedded, EventStore, Folded, Inapplicable, NewEvent, Options, Position,
    Repository, Timestamp, UntypedEvent, Version,
};
use quipu_tests::patience::block_on;
use quipu_tests::shared_data;
use serde_json::{Map, Value};

const EVENTS: usize = 262_200;
const APPLICATIONS: usize = 13_087;
const APPEND_EVENTS: usize = 1_000;

/// What is known of an application: the last state of each of its parts (`A_…` the application,
/// `O_…` the offer, `W_…` the work on it), every field its events ever carried, and their number.
#[derive(Clone, Debug, Default, PartialEq)]
struct LoanApplication {
    parts: BTreeMap<String, String>,
    fields: Map<String, Value>,
    events: u64,
}

impl LoanApplication {
    fn take(&mut self, event_type: &str, data: &Value) -> Result<(), String> {
        let (part, state) = event_type.split_once('_').ok_or("the event type names no part")?;
        let data = data.as_object().ok_or("the data is no object")?;
        self.parts.insert(part.to_owned(), state.to_owned());
        self.fields.extend(data.clone());
        self.events += 1;
        Ok(())
    }
}

impl Aggregate for LoanApplication {
    const TYPE: &'static str = "LoanApplication";
    type Event = UntypedEvent;

    fn apply(&mut self, event: &UntypedEvent) -> Result<(), Inapplicable> {
        self.take(&event.event_type, &event.data).map_err(Inapplicable::because)
    }
}

/// One line of the file: its place in it is its position in the log.
struct Line {
    position: Position,
    timestamp: Timestamp,
    event_type: String,
    data: Value,
}

/// Every application's lines, in order.
fn by_application(events: &[NewEvent]) -> HashMap<&str, Vec<Line>> {
    let mut applications: HashMap<&str, Vec<Line>> = HashMap::new();
    for (position, event) in (1..).map(Position).zip(events) {
        let line = Line {
            position,
            timestamp: event.timestamp,
            event_type: event.event_type.clone(),
            data: serde_json::from_slice(&event.payload).expect("the data is JSON"),
        };
        applications.entry(&event.aggregate.aggregate_id).or_default().push(line);
    }
    applications
}

/// The state after the lines for which `includes` holds, up to the first for which it does not.
fn plain_fold(lines: &[Line], includes: impl Fn(u64, &Line) -> bool) -> Folded<LoanApplication> {
    let mut folded = Folded::<LoanApplication>::default();
    for (version, line) in (1..).zip(lines) {
        if !includes(version, line) {
            break;
        }
        folded.state.take(&line.event_type, &line.data).expect("the file folds");
        (folded.version, folded.position) = (Version(version), line.position);
    }
    folded
}

fn read_file() -> Option<Vec<NewEvent>> {
    let file = std::fs::File::open(shared_data::file("bpic2012.ndjson.gz")?).expect("a file");
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("the file is gzip");
    let lines = text.lines().map(|line| parse_line(line.as_bytes()).expect("a legal line").event);
    Some(lines.collect())
}

#[test]
fn every_loan_application_is_what_a_plain_fold_of_the_file_says() {
    let Some(events) = read_file() else { return };
    assert_eq!(events.len(), EVENTS);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = Embedded::open(folder.path(), Options::default()).expect("a new log opens");
    for events in events.chunks(APPEND_EVENTS) {
        block_on(log.append(Append::any(events.to_vec()))).expect("the events are stored");
    }
    let applications = by_application(&events);
    assert_eq!(applications.len(), APPLICATIONS);
    let loans = Repository::<_, LoanApplication>::new(Arc::new(log));
    for (number, (id, lines)) in applications.iter().enumerate() {
        compare_newest(&loans, id, lines);
        if number % 400 == 0 {
            compare_past(&loans, id, lines);
        }
    }
}

fn compare_newest(loans: &Repository<Embedded, LoanApplication>, id: &str, lines: &[Line]) {
    let loaded = block_on(loans.load(id)).expect("the application loads");
    let plain = plain_fold(lines, |_, _| true);
    assert_eq!((loaded.state(), loaded.version()), (&plain.state, plain.version), "{id}");
}

/// At every version, and just before, at and after the time and the position of every event.
fn compare_past(loans: &Repository<Embedded, LoanApplication>, id: &str, lines: &[Line]) {
    let at = |at| block_on(loans.state_at(id, at)).expect("the application folds");
    for (version, line) in (1..).zip(lines) {
        let plain = plain_fold(lines, |other, _| other <= version);
        assert_eq!(at(At::Version(Version(version))), plain, "{id} at version {version}");
        let micros = line.timestamp.as_micros();
        for time in [micros - 1, micros, micros + 1].map(Timestamp::from_micros) {
            let plain = plain_fold(lines, |_, line| line.timestamp <= time);
            assert_eq!(at(At::Timestamp(time)), plain, "{id} at {time}");
        }
        for position in [line.position.previous(), line.position, line.position.next()] {
            let plain = plain_fold(lines, |_, line| line.position <= position);
            assert_eq!(at(At::Position(position)), plain, "{id} at position {position}");
        }
    }
}
