//! A small log that was closed in order, and what is asked of it once it has been damaged.

use std::path::Path;
use std::sync::LazyLock;

use quipu_client::{
    AggregateKey, Append, AppendError, AppendOutcome, Direction, Embedded, EventStore,
    ExpectedVersion, OpenError, Options, Position, ReadError, ReadRequest, Record, Version,
};
use tempfile::TempDir;

use crate::events::event;
use crate::patience::block_on;
use crate::tamper::{Folder, copy_folder, remove_if_there};

/// Events in it, one a group: 11 in segment 1, 12 in segment 2, 7 in segment 3, the active one.
pub const EVENTS: u64 = 30;
/// Position of the last event of segments 1 and 2.
pub const ENDS: [u64; 2] = [11, 23];

static MADE: LazyLock<(TempDir, Vec<Record>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = open(folder.path()).expect("a new log");
    for id in 1..=EVENTS {
        append(&log, id).expect("a good append is stored");
    }
    let records = read_all(&log).0;
    drop(log);
    // The next segment's file may have been prepared already, or not.
    remove_if_there(&Folder(folder.path()).segment(4));
    (folder, records)
});

/// Small segments, and no WITNESS: the last group stays unproven until something follows it.
pub fn options() -> Options {
    let mut options = Options::default().with_segment_bytes(64 * 1024);
    options.log.witness_after_us = 3_600_000_000;
    options
}

/// A copy of the log in a folder of its own.
pub fn filled() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy_folder(MADE.0.path(), folder.path());
    folder
}

/// The records as they were written, the first at index 0.
pub fn originals() -> &'static [Record] {
    &MADE.1
}

pub fn open(folder: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(folder, options())
}

pub fn open_read_only(folder: &Path) -> Result<Embedded, OpenError> {
    Embedded::open_read_only(folder, options())
}

/// Appends the event of this id to one of three aggregates.
pub fn append(log: &Embedded, id: u64) -> Result<AppendOutcome, AppendError> {
    let key = AggregateKey::new("Knot", (id % 3).to_string());
    let expected = ExpectedVersion::Exact(Version((id - 1) / 3));
    block_on(log.append(Append::one(event(id.into(), &key, "Tied"), expected)))
}

/// Every record up to the end, or up to an error.
pub fn read_all(log: &Embedded) -> (Vec<Record>, Option<ReadError>) {
    read(log, Direction::Forward)
}

pub fn read(log: &Embedded, direction: Direction) -> (Vec<Record>, Option<ReadError>) {
    let mut stream = log.read(ReadRequest { direction, ..ReadRequest::default() });
    let mut records = Vec::new();
    loop {
        match block_on(stream.next_batch()) {
            Ok(batch) if batch.is_empty() => return (records, None),
            Ok(batch) => records.extend(batch),
            Err(error) => return (records, Some(error)),
        }
    }
}

pub fn record_at(log: &Embedded, position: u64) -> Result<Record, ReadError> {
    log.log().record_at(Position(position))
}

/// The text has these words.
pub fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// What is read are the first `count` of the records as they were written.
pub fn is_prefix_of_originals(log: &Embedded, count: u64) {
    let found = read(log, Direction::Backward);
    assert_eq!(found.1, None, "what precedes the damage is read without an error");
    let found: Vec<_> = found.0.into_iter().rev().collect();
    let count = usize::try_from(count).expect("few events");
    assert_eq!(found, originals()[..count]);
}

/// The log takes twenty appends behind `last`.
pub fn goes_on(log: &Embedded, last: u64) {
    for id in last + 1..=last + 20 {
        let outcome = append(log, id).expect("the log takes appends");
        assert_eq!((outcome.duplicate, outcome.last_position().0), (false, id));
    }
}
