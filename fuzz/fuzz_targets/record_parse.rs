//! No bytes, however broken, make `Record::parse` or a record's accessors panic, and a record that
//! is accepted survives being taken apart and archived again.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use quipu_types::record::{self, EventBody, HEADER_BYTES, RECORD_FORMAT, RecordBuffer};
use quipu_types::{
    AggregateKey, Filter, Metadata, NewEvent, Position, Record, Timestamp, Uuid, Version,
};
use rkyv::ser::allocator::Arena;

// The first byte says how the rest is read, so that every seed is plain bytes: as a whole record,
// as an archive behind a header that fits it (past the checksum, where the archive's own checks
// must hold), or as edits of a valid record.
fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        b'r' => take(aligned(rest)),
        b'a' => take(behind_header(rest)),
        _ => take(edited(rest)),
    }
});

fn take(bytes: RecordBuffer) {
    let Ok(record) = Record::parse(Bytes::from_owner(bytes)) else { return };
    read_everything(&record);
    let event = record.to_new_event();
    let again = Record::parse(Bytes::from_owner(encoded(&event)))
        .expect("what was just encoded is a record");
    assert!(record.has_content_of(&again), "the content changed when archived again");
    assert_eq!(event, again.to_new_event());
}

fn read_everything(record: &Record) {
    let key = record.aggregate();
    assert!(record.is_of(&key));
    assert!(Filter::aggregate(key).matches(record));
    assert_eq!(record.payload_bytes(), record.payload());
    assert_eq!(record.user_id(), record.to_new_event().metadata.user_id);
    assert!(!format!("{record:?} {} {}", record.recorded_at(), record.timestamp()).is_empty());
    assert!(record.position() <= Position::MAX && record.version() >= Version::NONE);
}

fn aligned(bytes: &[u8]) -> RecordBuffer {
    let mut buffer = RecordBuffer::new();
    buffer.extend_from_slice(bytes);
    buffer
}

fn behind_header(archive: &[u8]) -> RecordBuffer {
    let mut buffer = aligned(&[0; HEADER_BYTES]);
    buffer.extend_from_slice(archive);
    buffer[38] = RECORD_FORMAT;
    mend(&mut buffer);
    buffer
}

/// Each edit is three bytes: where (two, little-endian, taken modulo the length) and what to flip.
fn edited(edits: &[u8]) -> RecordBuffer {
    let mut buffer = encoded(&full_event());
    record::stamp(&mut buffer, Position(7), Version(3), Timestamp::from_micros(1));
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % buffer.len();
        buffer[at] ^= edit[2];
    }
    mend(&mut buffer);
    if edits.len() < 3 {
        assert!(Record::parse(Bytes::from_owner(buffer.clone())).is_ok(), "nothing was edited");
    }
    buffer
}

fn mend(record: &mut RecordBuffer) {
    let archive = &record[HEADER_BYTES..];
    let length = u32::try_from(archive.len()).expect("an input is far below 4 GiB");
    let crc = crc32fast::hash(archive);
    record[0..4].copy_from_slice(&length.to_le_bytes());
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn encoded(event: &NewEvent) -> RecordBuffer {
    record::encode(RecordBuffer::new(), &EventBody::from(event), &mut Arena::new())
}

/// Every field is present, some short enough to stand inline and some not.
fn full_event() -> NewEvent {
    NewEvent {
        event_id: Uuid::from_u128(0x0190_aaaa_bbbb_7ccc_8ddd_eeee_ffff_0001),
        aggregate: AggregateKey::new("LoanApplication", "173688"),
        event_type: "Submitted".to_owned(),
        timestamp: Timestamp::from_micros(1_317_422_324_546_000),
        schema_version: 2,
        metadata: Metadata {
            user_id: Some(Uuid::from_u128(112)),
            correlation_id: "c".to_owned(),
            causation_id: "cause of this event".to_owned(),
            ip_address: "192.0.2.1".to_owned(),
            user_agent: "curl/8".to_owned(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            custom: br#"{"branch":"A"}"#.to_vec(),
        },
        content_type: "application/json".to_owned(),
        payload: br#"{"amount":20000}"#.to_vec(),
    }
}
