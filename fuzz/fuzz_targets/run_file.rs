//! No bytes, however broken, make the opening of a run, a look-up in it, or reading it whole, panic
//! or allocate more than the file is long.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use quipu_engine::format::run_file::{Entry, RunHeader, Span};
use quipu_engine::format::sum::{crc64, crc64_of};
use quipu_engine::index::generation::Generation;
use quipu_engine::index::keys::KeyHasher;
use quipu_engine::index::run::Run;
use quipu_engine::index::run_writer::write_generation;
use quipu_engine::index::sealed::FilterBits;
use quipu_engine::index::table_reader::TableReader;
use quipu_engine::shared::Counters;
use quipu_engine::storage::run_name;
use quipu_tests::memory_disk::MemoryDisk;
use quipu_types::{Position, Uuid, Version};

const LOG: Uuid = Uuid::from_u128(1);
const SEGMENTS: (u64, u64) = (2, 2);
const RECORDS: u64 = 400;
const BLOCK: usize = 4_096;

static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let hasher = KeyHasher::new(LOG);
    let mut generation = Generation::new(hasher);
    for number in 0..RECORDS {
        let key = hasher.wide("Call", &(number / 2).to_string());
        let version = Version(1 + number % 2);
        generation.raise(&key, version.previous(), version, Position(40 + number));
        generation.insert_id(&hasher.id(Uuid::from_u128(number.into())), Position(40 + number));
    }
    let disk = MemoryDisk::default();
    let storage = disk.environment().storage;
    let span = Span {
        first_segment: SEGMENTS.0,
        last_segment: SEGMENTS.1,
        seal_sum: 9,
        first_position: Position(40),
        next_position: Position(40 + RECORDS),
    };
    let bits = FilterBits { ids: 16, aggregates: 16 };
    write_generation(&storage, LOG, &generation, span, bits).expect("memory takes it");
    disk.content(&run_name(SEGMENTS.0, SEGMENTS.1))
});

// Raw bytes, or edits of a valid file whose sums are mended, so that the checks behind the sums are
// met.
fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let file = if *kind == b'r' { rest.to_vec() } else { edited(rest) };
    let disk = MemoryDisk::default();
    disk.put(&run_name(SEGMENTS.0, SEGMENTS.1), &file);
    for filter_bytes in [0, u64::MAX] {
        let run = Run::open(&*disk, SEGMENTS, LOG, filter_bytes);
        if rest.len() < 3 && *kind != b'r' {
            assert!(run.is_ok(), "nothing was edited");
        }
        if let Ok(run) = run {
            take(&disk, &Arc::new(run));
        }
    }
});

fn take(disk: &MemoryDisk, run: &Arc<Run>) {
    let (hasher, counters) = (KeyHasher::new(LOG), Counters::default());
    for number in [0, 1, 77, 399, 400, u128::MAX] {
        black_box(run.position_of(&hasher.id(Uuid::from_u128(number)), &counters).ok());
        black_box(run.version(&hasher.wide("Call", &number.to_string()), &counters).ok());
    }
    let span = run.span();
    assert_eq!((span.first_segment, span.last_segment), SEGMENTS);
    assert!(run.memory().0 <= run.file_bytes());
    read(TableReader::of_ids(&**disk, run).ok());
    read(TableReader::of_aggregates(&**disk, run).ok());
}

fn read<const N: usize>(table: Option<TableReader<N>>) {
    let mut last: Option<Entry<N>> = None;
    let Some(mut table) = table else { return };
    while let Some(entry) = table.head() {
        // From block to block only the first keys say the order.
        black_box(last.replace(entry));
        if table.advance().is_err() {
            return;
        }
    }
}

/// Each edit is three bytes: where (two, little-endian, taken modulo the length) and what to flip.
fn edited(edits: &[u8]) -> Vec<u8> {
    let mut file = VALID.clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % file.len();
        file[at] ^= edit[2];
    }
    mend_blocks(&mut file);
    mend_header(&mut file);
    file
}

/// Makes every sum of a block of entries right, as the header places them.
fn mend_blocks(file: &mut [u8]) {
    let valid = RunHeader::decode(&VALID).expect("it is valid");
    let blocks = usize::try_from(valid.tail_at()).expect("it is short") / BLOCK;
    for number in 1..blocks {
        let block = &mut file[number * BLOCK..(number + 1) * BLOCK];
        let place = [number as u64, valid.span.first_segment, valid.span.seal_sum];
        let place = place.map(u64::to_le_bytes);
        let sum = crc64_of(&[&block[..BLOCK - 8], place.as_flattened()]);
        block[BLOCK - 8..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Makes the sum of the tail, where the header says that it is, and that of the header right.
fn mend_header(file: &mut [u8]) {
    const TAIL_SUM_AT: usize = 144;
    mend_sum(file);
    let header = RunHeader::decode(file).ok();
    if let Some(header) = header.filter(|header| header.file_bytes().is_some()) {
        let from = usize::try_from(header.tail_at()).unwrap_or(usize::MAX);
        let length = header.tail_parts().iter().fold(0_u64, |sum, part| sum.saturating_add(*part));
        let to = from.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        if let Some(sum) = file.get(from..to).map(crc64) {
            file[TAIL_SUM_AT..TAIL_SUM_AT + 8].copy_from_slice(&sum.to_le_bytes());
        }
    }
    mend_sum(file);
}

fn mend_sum(file: &mut [u8]) {
    let sum = crc64(&file[..BLOCK - 8]);
    file[BLOCK - 8..BLOCK].copy_from_slice(&sum.to_le_bytes());
}
