//! No folder, however broken, makes opening it or reading it panic or hang, and where only bytes
//! were flipped, what is read is what was written.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use quipu_engine::format::sum::crc64;
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::{EventLog, LogOptions, Origin};
use quipu_tests::memory_disk::MemoryDisk;
use quipu_tests::stepped_log::SteppedLog;
use quipu_tests::varied_events::varied_appends;
use quipu_types::{Direction, Filter, ReadRequest, Record};

struct Made {
    disk: MemoryDisk,
    names: Vec<String>,
    records: Vec<Record>,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let disk = MemoryDisk::default();
    let log = SteppedLog::open(disk.environment(), options()).expect("a new log");
    for appends in varied_appends(1..24).chunks(3) {
        let answers = log.append_together(appends, Origin::System);
        answers.into_iter().for_each(|answer| drop(answer.expect("stored")));
    }
    let records = read_all(log.log(), Direction::Forward);
    log.close();
    Made { names: disk.names(), disk, records }
});

fn options() -> LogOptions {
    quipu_client::Options::default().with_segment_bytes(32 * 1024).log
}

// Each edit is four bytes: which file, and what is done to it; where (two, little-endian); what
// to flip.
fuzz_target!(|edits: &[u8]| {
    let disk = MADE.disk.copy();
    let mut only_flips = true;
    for edit in edits.chunks_exact(4) {
        only_flips &= apply(&disk, edit);
    }
    let beside = EventLog::open_read_only(disk.environment(), options());
    read_both_ways(beside.ok(), only_flips);
    let log = EventLog::open_stepped(disk.environment(), options(), &mut |_, _| {});
    if edits.len() < 4 {
        assert!(log.as_ref().is_ok_and(|log| log.recovery_report().clean), "nothing was edited");
    }
    read_both_ways(log.ok(), only_flips);
});

/// Does one edit; returns whether it flipped bytes and no more.
fn apply(disk: &MemoryDisk, edit: &[u8]) -> bool {
    let name = &MADE.names[usize::from(edit[0] & 15) % MADE.names.len()];
    if !disk.names().contains(name) {
        return false;
    }
    let at = usize::from(u16::from_le_bytes([edit[1], edit[2]]));
    match edit[0] >> 4 {
        0..=9 => disk.change(name, |bytes| flip(bytes, at, edit[3])),
        10 | 11 => {
            disk.change(name, |bytes| {
                flip(bytes, at % 4_096, edit[3]);
                mend(bytes);
            });
            return false;
        }
        12 => disk.change(name, |bytes| bytes.truncate(at)),
        13 => disk.change(name, |bytes| bytes.resize(bytes.len() + at, edit[3])),
        14 => {
            let other = &MADE.names[usize::from(edit[3]) % MADE.names.len()];
            disk.put(name, &MADE.disk.content(other));
        }
        _ => disk.put(name, &[]),
    }
    edit[0] >> 4 <= 9
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if !bytes.is_empty() {
        bytes[at % bytes.len()] ^= bits;
    }
}

/// Makes the sum of the header of a segment or run, or of an index file, right.
fn mend(bytes: &mut [u8]) {
    let has_header = bytes.starts_with(b"QUIPUSEG") || bytes.starts_with(b"QUIPURUN");
    let end = if has_header { 4_096 } else { bytes.len() };
    if let (Some(sum_at), true) = (end.checked_sub(8), end <= bytes.len()) {
        let sum = crc64(&bytes[..sum_at]);
        bytes[sum_at..end].copy_from_slice(&sum.to_le_bytes());
    }
}

fn read_both_ways(log: Option<EventLog>, only_flips: bool) {
    let Some(log) = log else { return };
    assert!(!log.recovery_report().to_string().is_empty());
    for direction in [Direction::Forward, Direction::Backward] {
        for record in read_all(&log, direction) {
            let original = usize::try_from(record.position().0 - 1);
            let original = original.ok().and_then(|index| MADE.records.get(index));
            assert!(!only_flips || original == Some(&record), "another record was read");
        }
    }
}

/// Every record up to the end or an error.
fn read_all(log: &EventLog, direction: Direction) -> Vec<Record> {
    let filter = Filter { include_system: true, ..Filter::default() };
    let mut cursor = log.read(ReadRequest { filter, direction, ..ReadRequest::default() });
    let mut records = Vec::new();
    while let Ok(page) = cursor.next_page(PageLimits::default()) {
        records.extend(page.records);
        if page.is_last {
            break;
        }
    }
    records
}
