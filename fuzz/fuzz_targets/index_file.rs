//! No bytes, however broken, make the check of an index file, or a look-up in one that passes it,
//! panic or allocate more than the file is long.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use std::hint::black_box;
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use quipu_engine::format::index_file::IndexFile;
use quipu_engine::format::sum::crc64;
use quipu_engine::index::builder::IndexBuilder;
use quipu_engine::index::keys::KeyHasher;
use quipu_tests::varied_events::varied_event;
use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
use quipu_types::{AggregateKey, Position, Record, Timestamp, Uuid, Version};
use rkyv::ser::allocator::Arena;

const SEGMENT: Uuid = Uuid::from_u128(7);
const SEAL: u64 = 9;
const FIRST: u64 = 40;

static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut builder = IndexBuilder::new(KeyHasher::new(Uuid::from_u128(1)), Position(FIRST));
    for number in 0..12 {
        let mut record = RecordBuffer::new();
        let event = varied_event(u128::from(number) + 3);
        record = encode(record, &EventBody::from(&event), &mut Arena::new());
        stamp(&mut record, Position(FIRST + number), Version(1), Timestamp::from_micros(1));
        let record = Record::parse(Bytes::from_owner(record)).expect("it was just encoded");
        builder.push_record(&record);
    }
    builder.finish(SEGMENT, SEAL).expect("a built index is valid").as_bytes().to_vec()
});

// Raw bytes, or edits of a valid file whose sum is mended, so that the checks behind the sum are
// met.
fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        b'r' => take(rest.to_vec()),
        _ => take(edited(rest)),
    }
});

fn take(bytes: Vec<u8>) {
    let length = bytes.len();
    let Ok(index) = IndexFile::check(Bytes::from(bytes), SEGMENT, SEAL) else { return };
    assert_eq!(index.as_bytes().len(), length);
    for entry in index.aggregates() {
        assert!(entry.last_version() >= entry.first_version);
        let key = AggregateKey::new(entry.aggregate_type, entry.aggregate_id);
        if let Some((found, positions)) = index.aggregate(entry.hash, &key) {
            assert_eq!(positions.len(), found.records as usize);
        }
        let listed = index.may_have_name(0, entry.aggregate_type);
        assert!(listed || index.header().names_complete, "a list with gaps rules nothing out");
        assert!(index.correlated(entry.hash).len() <= length);
    }
    assert_eq!(index.ids().count() as u64, index.records());
    for position in [0, FIRST - 1, FIRST, FIRST + 5, FIRST + 12, u64::MAX] {
        black_box(index.group_of(Position(position)));
    }
    for number in 0..index.header().groups as usize {
        black_box(index.group(number));
    }
}

/// Each edit is three bytes: where (two, little-endian, taken modulo the length) and what to flip.
fn edited(edits: &[u8]) -> Vec<u8> {
    let mut file = VALID.clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % file.len();
        file[at] ^= edit[2];
    }
    let sum_at = file.len() - 8;
    let sum = crc64(&file[..sum_at]);
    file[sum_at..].copy_from_slice(&sum.to_le_bytes());
    if edits.len() < 3 {
        assert!(IndexFile::check(file.clone().into(), SEGMENT, SEAL).is_ok(), "nothing was edited");
    }
    file
}
