//! No bytes, however broken, make the check of an index file, or a look-up in one that passes it,
//! panic or allocate more than the file is long; and what was found good as a whole answers.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use std::hint::black_box;
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use quipu_engine::format::index_file::{IndexFile, seal};
use quipu_engine::format::index_header::IndexFault;
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
        builder.push_record(&record, 4_200 + 8 * number);
    }
    builder.finish(SEGMENT, SEAL).expect("a built index is valid").as_bytes().to_vec()
});

// Raw bytes, or edits of a valid file whose sums are mended, so that the checks behind them are
// met, or are not.
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
    let asked = ask(&index);
    assert!(asked.is_ok() || index.check_all().is_err(), "{asked:?}: all of it was found good");
}

/// Looks up all that there is.
fn ask(index: &IndexFile) -> Result<(), IndexFault> {
    let length = index.as_bytes().len();
    for entry in index.aggregates() {
        let entry = entry?;
        assert!(entry.last_version() >= entry.first_version);
        assert_eq!(index.positions(&entry)?.last(), Some(&index.last_position(&entry)?));
        let key = AggregateKey::new(entry.aggregate_type, entry.aggregate_id);
        black_box(index.aggregate(entry.hash, &key)?);
        let listed = index.may_have_name(0, entry.aggregate_type)?;
        assert!(listed || index.header().names_complete, "a list with gaps rules nothing out");
        assert!(index.correlated(entry.hash)?.len() <= length);
    }
    for id in index.ids() {
        black_box(index.position_of(id?.0)?);
    }
    for position in [0, FIRST - 1, FIRST, FIRST + 5, FIRST + 12, u64::MAX].map(Position) {
        black_box(index.group_of(position)?);
        let is_there = position.0.wrapping_sub(FIRST) < index.records();
        assert!(
            index.header().first_position != Position(FIRST)
                || index.place_of(position)?.is_some() == is_there
        );
    }
    Ok(())
}

/// Each edit is three bytes: where (two, little-endian, taken modulo the length) and what to flip.
/// The first byte says whether the sums are mended after it.
fn edited(input: &[u8]) -> Vec<u8> {
    let Some((mends, edits)) = input.split_first() else { return VALID.clone() };
    let mut file = VALID.clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % file.len();
        file[at] ^= edit[2];
    }
    if mends.is_multiple_of(2) {
        // It is one block: its sum, and the last one.
        file.truncate(file.len() - 16);
        file = seal(file);
    }
    if edits.len() < 3 {
        let index =
            IndexFile::check(file.clone().into(), SEGMENT, SEAL).expect("nothing was edited");
        index.check_all().expect("nothing was edited");
    }
    file
}
