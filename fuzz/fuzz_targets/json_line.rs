//! No line, however broken, makes the JSON reader or the checks of a new event panic, and a line
//! that is accepted is exported as a line that says the same.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use quipu_types::json::{EventLine, parse_line, write_record};
use quipu_types::record::{self, EventBody, RecordBuffer};
use quipu_types::{Limits, NewEvent, Position, Record, Timestamp, Version};
use rkyv::ser::allocator::Arena;

const VERSION: Version = Version(3);

fuzz_target!(|line: &[u8]| {
    let Ok(EventLine { event, .. }) = parse_line(line) else { return };
    if event.check(&Limits::default()).is_ok() {
        comes_back_the_same(event);
    }
});

fn comes_back_the_same(event: NewEvent) {
    let line = exported(&event);
    assert!(!line.contains(&b'\n'), "an event is one line");
    let again = parse_line(&line).expect("an exported line can be read");
    assert_eq!(again.version, Some(VERSION));
    assert_eq!(again.event, in_one_line(event));
    assert_eq!(exported(&again.event), line, "the second export differs from the first");
}

fn exported(event: &NewEvent) -> Vec<u8> {
    let body = EventBody::from(event);
    let mut bytes = record::encode(RecordBuffer::new(), &body, &mut Arena::new());
    record::stamp(&mut bytes, Position(7), VERSION, Timestamp::from_micros(1));
    let record = Record::parse(Bytes::from_owner(bytes)).expect("what was encoded is a record");
    let mut line = Vec::new();
    write_record(&record, &mut line);
    line
}

/// Custom metadata is kept but for its line breaks, which are spaces in a line.
fn in_one_line(mut event: NewEvent) -> NewEvent {
    for byte in &mut event.metadata.custom {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    event
}
