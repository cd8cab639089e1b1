//! What opening reads of a log, and what it leaves for later. Of index files of sealed segments it
//! looks at no more than their headers: whoever first needs a block checks it, and what is not
//! valid is built again or said to be damaged.

use quipu_engine::format::index_header::INDEX_HEADER_BYTES;
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::storage::{FileKind, index_name, segment_name};
use quipu_engine::{EventLog, LogOptions, Origin};
use quipu_tests::events::event;
use quipu_tests::memory_disk::MemoryDisk;
use quipu_tests::stepped_log::SteppedLog;
use quipu_tests::tamper::groups_of;
use quipu_types::{
    AggregateKey, Append, Corruption, Filter, Position, ReadError, ReadRequest, Record,
};

const EVENTS: u64 = 120;
const AGGREGATES: u64 = 5;
/// The segment whose index and groups are damaged.
const DAMAGED: u64 = 3;

fn options() -> LogOptions {
    let mut options = LogOptions { segment_bytes: 32 * 1024, ..LogOptions::default() };
    options.limits.append_bytes_max = 8 * 1024;
    options.limits.event_bytes_max = 4 * 1024;
    options
}

fn key(number: u64) -> AggregateKey {
    AggregateKey::new("Call", (number % AGGREGATES).to_string())
}

fn open(disk: &MemoryDisk) -> EventLog {
    EventLog::open_stepped(disk.environment(), options(), &mut |_, _| {}).expect("it opens")
}

fn open_read_only(disk: &MemoryDisk) -> EventLog {
    EventLog::open_read_only(disk.environment(), options()).expect("it opens")
}

/// A log of many sealed segments with runs, closed in order.
fn filled() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let log = SteppedLog::open(disk.environment(), options()).expect("a new log");
    for number in 1..=EVENTS {
        let appended = event(number.into(), &key(number), "Created");
        log.append_each(&[Append::any(vec![appended])]);
    }
    log.close();
    disk
}

fn sealed(disk: &MemoryDisk) -> Vec<u64> {
    let number = |name: String| match FileKind::of(&name) {
        FileKind::Index(number) => Some(number),
        _ => None,
    };
    let numbers: Vec<u64> = disk.names().into_iter().filter_map(number).collect();
    assert!(numbers.len() > 10 && numbers.contains(&DAMAGED), "{numbers:?}");
    numbers
}

fn read(log: &EventLog, filter: Filter) -> (Vec<Record>, Option<ReadError>) {
    let mut cursor = log.read(ReadRequest { filter, ..ReadRequest::default() });
    let mut records = Vec::new();
    loop {
        match cursor.next_page(PageLimits::default()) {
            Ok(page) => records.extend(page.records),
            Err(error) => return (records, Some(error)),
        }
        if cursor.is_done() {
            return (records, None);
        }
    }
}

fn everything(log: &EventLog) -> Vec<Record> {
    let (records, error) = read(log, Filter::default());
    assert_eq!((records.len() as u64, error), (EVENTS, None));
    records
}

/// First and last positions of a segment.
fn positions(disk: &MemoryDisk, number: u64) -> (Position, Position) {
    let groups = groups_of(&disk.content(&segment_name(number)));
    let (first, seal) = (groups.first().expect("groups"), groups.last().expect("groups"));
    (first.first_position, seal.first_position.previous())
}

/// A bit in the middle of an index: its header says nothing of it.
fn damage_index(disk: &MemoryDisk, number: u64) {
    disk.change(&index_name(number), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    });
}

#[test]
fn opening_reads_the_headers_of_index_files_and_their_first_use_maps_them_once() {
    let disk = filled();
    let sealed = sealed(&disk);
    for read_only in [false, true] {
        let disk = disk.copy();
        let log = if read_only { open_read_only(&disk) } else { open(&disk) };
        let bytes_read = || -> Vec<u64> {
            sealed
                .iter()
                .map(|number| disk.bytes_read(&index_name(*number)).expect("it is there"))
                .collect()
        };
        assert!(bytes_read().iter().all(|bytes| *bytes == INDEX_HEADER_BYTES as u64));
        let (first, last) = positions(&disk, DAMAGED);
        let segments = log.segments().expect("the folder is there");
        assert!(segments.iter().any(|it| (it.first_position, it.last_position) == (first, last)));
        assert!(bytes_read().iter().all(|bytes| *bytes == INDEX_HEADER_BYTES as u64));
        log.record_at(first).expect("it is there");
        for (number, bytes) in sealed.iter().zip(bytes_read()) {
            let whole = disk.content(&index_name(*number)).len() as u64;
            // A block's sum, and the last one, are read ahead.
            let more = if *number == DAMAGED { INDEX_HEADER_BYTES as u64 + 16 + whole } else { 0 };
            assert_eq!(bytes, INDEX_HEADER_BYTES as u64 + more, "segment {number}");
        }
        everything(&log);
        let once = bytes_read();
        read(&log, Filter::aggregate(key(1)));
        everything(&log);
        assert_eq!(bytes_read(), once, "each was mapped once");
    }
}

#[test]
fn of_a_sealed_segment_a_record_is_read_alone() {
    let disk = filled();
    let originals = everything(&open(&disk.copy()));
    let log = open(&disk);
    let (first, _) = positions(&disk, DAMAGED);
    let original = &originals[usize::try_from(first.0).expect("few events") - 1];
    let bytes_read = || disk.bytes_read(&segment_name(DAMAGED)).expect("it is there");
    let before = bytes_read();
    assert_eq!(log.record_at(first).as_ref(), Ok(original));
    let bytes = original.as_bytes().len() as u64;
    assert!(
        (bytes..bytes + 4_096).contains(&(bytes_read() - before)),
        "{} bytes",
        bytes_read() - before
    );
    let before = bytes_read();
    let key = original.aggregate();
    let of_key = |record: &&Record| record.aggregate() == key;
    let (records, error) = read(&log, Filter::aggregate(key.clone()));
    assert_eq!(
        (records.iter().collect(), error),
        (originals.iter().filter(of_key).collect::<Vec<_>>(), None)
    );
    assert!(bytes_read() - before < 4 * 4_096, "{} bytes", bytes_read() - before);
}

#[test]
fn a_segment_that_is_sealed_gives_back_the_group_that_was_read_last() {
    let disk = MemoryDisk::default();
    let log = SteppedLog::open(disk.environment(), options()).expect("a new log");
    let append = |number: u64| {
        log.append_each(&[Append::any(vec![event(number.into(), &key(number), "Created")])]);
    };
    append(1);
    log.log().record_at(Position::FIRST).expect("it is there");
    let segments = || log.log().shared().segments.snapshot();
    assert!(segments()[0].is_in_memory(Position::FIRST));
    (2..=EVENTS).for_each(append);
    assert!(segments().len() > 2 && segments()[0].is_indexed());
    assert!(!segments()[0].is_in_memory(Position::FIRST), "a buffer for each segment is kept");
}

/// Blocks of an index's content, of 4,096 bytes.
const BLOCK: usize = 4_096;

#[test]
fn whatever_block_of_an_index_is_damaged_questions_are_answered_and_it_is_mended_when_met() {
    let disk = MemoryDisk::default();
    let mut options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
    options.limits.append_bytes_max = 256 << 10;
    options.limits.event_bytes_max = 64 << 10;
    let log = SteppedLog::open(disk.environment(), options.clone()).expect("a new log");
    let (events, aggregates) = (8_000_u64, 300_u64);
    let numbers: Vec<u64> = (1..=events).collect();
    let of = |number: u64| AggregateKey::new("Call", (number % aggregates).to_string());
    for batch in numbers.chunks(100) {
        let batch = batch.iter().map(|it| event((*it).into(), &of(*it), "Created")).collect();
        log.append_each(&[Append::any(batch)]);
    }
    log.close();
    let name = index_name(1);
    let whole = disk.content(&name);
    let blocks = whole.len() / BLOCK;
    assert!(blocks > 20, "{blocks} blocks");
    let open = |disk: &MemoryDisk| {
        EventLog::open_stepped(disk.environment(), options.clone(), &mut |_, _| {})
            .expect("it opens")
    };
    let (originals, error) = read(&open(&disk.copy()), Filter::default());
    assert_eq!((originals.len() as u64, error), (events, None));
    let mut mended = 0;
    for block in 0..blocks {
        let disk = disk.copy();
        // Behind the header, of which opening looks at parts.
        disk.change(&name, |bytes| bytes[block * BLOCK + 200] ^= 1);
        let log = open(&disk);
        for number in 1..=aggregates {
            // Its events are so many apart.
            let first = usize::try_from(number).expect("few") - 1;
            let step = usize::try_from(aggregates).expect("few");
            let expected: Vec<&Record> = originals.iter().skip(first).step_by(step).collect();
            let (records, error) = read(&log, Filter::aggregate(of(number)));
            assert_eq!((records.iter().collect(), error), (expected, None), "block {block}");
        }
        assert!(read(&log, Filter::default()) == (originals.clone(), None), "block {block}");
        mended += usize::from(disk.content(&name) == whole);
    }
    // Ids, nearly half of the file, are asked for where a run is damaged, and correlation ids here
    // by nobody.
    assert!(mended > blocks / 3 && mended < blocks, "{mended} of {blocks}");
}

#[test]
fn a_large_active_segment_is_loaded_whole() {
    let disk = MemoryDisk::default();
    let options = LogOptions::default();
    let open = || SteppedLog::open(disk.environment(), options.clone()).expect("it opens");
    let large = |number: u64| {
        let mut event = event(number.into(), &key(number), "Created");
        event.payload = format!("\"{}\"", "x".repeat(400_000)).into_bytes();
        Append::any(vec![event])
    };
    let log = open();
    (1..=EVENTS).for_each(|number| log.append_each(&[large(number)]));
    log.close();
    let log = open();
    assert!(log.log().segments().expect("the folder is there")[0].bytes > 32 << 20);
    assert_eq!(log.log().known(), (AGGREGATES, EVENTS));
    everything(log.log());
    for number in 1..=EVENTS {
        let answers = log.append_together(&[large(number)], Origin::Client);
        let outcome = answers.into_iter().next().expect("one answer").expect("it is known");
        assert_eq!((outcome.duplicate, outcome.positions), (true, vec![Position(number)]));
    }
}

/// A block that begins as a group of 8 MiB does.
fn head_of_a_long_group(offset: u64) -> [u8; BLOCK] {
    let mut block = [0x11; BLOCK];
    let bytes: u32 = 8 << 20;
    block[..4].copy_from_slice(b"QGRP");
    block[4..8].copy_from_slice(&[1, 0, 0, 0]);
    for (at, field) in [(8, bytes), (12, bytes - 96), (16, 1), (20, 1)] {
        block[at..at + 4].copy_from_slice(&field.to_le_bytes());
    }
    for (at, field) in [(24, 1), (32, offset), (40, 2), (48, 4_096), (56, 0)] {
        block[at..at + 8].copy_from_slice(&u64::to_le_bytes(field));
    }
    block[64..88].fill(0);
    block
}

#[test]
fn a_tail_that_claims_a_long_group_at_every_block_is_read_a_few_times_and_no_more() {
    let disk = MemoryDisk::default();
    let options = LogOptions::default();
    let log = SteppedLog::open(disk.environment(), options.clone()).expect("a new log");
    log.append_each(&[Append::any(vec![event(1, &key(1), "Created")])]);
    log.close();
    let (name, length) = (segment_name(1), 16 << 20);
    let end = groups_of(&disk.content(&name)).last().expect("groups").end();
    // Where they say they stand, and then a block too far.
    for (error, times_max) in [(0, 6), (4_096, 3)] {
        let disk = disk.copy();
        disk.change(&name, |bytes| {
            bytes.truncate(usize::try_from(end).expect("a small segment"));
            for offset in (end..length).step_by(BLOCK) {
                bytes.extend_from_slice(&head_of_a_long_group(offset + error));
            }
        });
        let log = EventLog::open_stepped(disk.environment(), options.clone(), &mut |_, _| {})
            .expect("a torn tail is cut");
        let torn = log.recovery_report().torn.clone().expect("a torn tail");
        assert_eq!((torn.offset, torn.bytes, torn.groups), (end, length - end, 0));
        let times = disk.bytes_read(&name).expect("it is there") / length;
        assert!(times < times_max, "{times} times");
    }
}

#[test]
fn an_index_that_is_found_damaged_when_it_is_needed_is_built_again() {
    let disk = filled();
    let original = everything(&open(&disk.copy()));
    for number in sealed(&disk) {
        let (disk, before) = (disk.copy(), disk.content(&index_name(number)));
        damage_index(&disk, number);
        let log = open(&disk);
        assert_eq!(log.recovery_report().rebuilt_indexes, [0; 0], "nobody has needed it yet");
        assert!(disk.content(&index_name(number)) != before);
        assert!(everything(&log) == original);
        assert!(disk.content(&index_name(number)) == before, "it is what it was");
        for aggregate in 0..AGGREGATES {
            let (records, error) = read(&log, Filter::aggregate(key(aggregate)));
            assert_eq!((records.len() as u64, error), (EVENTS / AGGREGATES, None));
        }
        assert_eq!(log.shared().found_damage(), None);
    }
}

#[test]
fn a_reader_beside_a_writer_builds_an_index_again_and_leaves_the_file_alone() {
    let disk = filled();
    damage_index(&disk, DAMAGED);
    let damaged = disk.content(&index_name(DAMAGED));
    everything(&open_read_only(&disk));
    assert!(disk.content(&index_name(DAMAGED)) == damaged, "a reader writes nothing");
}

#[test]
fn a_run_is_made_again_by_way_of_an_index_that_is_not_valid_either() {
    let disk = filled();
    let before = disk.content(&index_name(DAMAGED));
    damage_index(&disk, DAMAGED);
    let is_run = |name: &String| matches!(FileKind::of(name), FileKind::Run(..));
    for run in disk.names().into_iter().filter(is_run) {
        disk.change(&run, Vec::clear);
    }
    let log = open(&disk);
    let report = log.recovery_report();
    assert_eq!(report.rebuilt_indexes, [DAMAGED], "{report}");
    assert_eq!(report.made_runs, sealed(&disk).len());
    assert!(disk.content(&index_name(DAMAGED)) == before, "it is what it was");
    assert_eq!(log.known(), (AGGREGATES, EVENTS));
}

#[test]
fn without_index_and_segment_its_readers_are_told_and_everyone_else_is_served() {
    let disk = filled();
    let originals = everything(&open(&disk.copy()));
    damage_index(&disk, DAMAGED);
    disk.change(&segment_name(DAMAGED), |bytes| {
        let data = &groups_of(bytes)[2];
        bytes[usize::try_from(data.offset).expect("a small segment") + 100] ^= 1;
    });
    let log = SteppedLog::open(disk.environment(), options()).expect("it opens");
    assert_eq!(log.log().recovery_report().damage, None, "nobody has needed it yet");
    let (first, last) = positions(&disk, DAMAGED);
    let is_told = |error: &ReadError| {
        let ReadError::Corruption(damage) = error else { panic!("{error}") };
        let Corruption { segment, problem, .. } = damage;
        assert_eq!((*segment, damage.first, damage.last), (DAMAGED, first, last));
        let words = ["its index is not valid", "cannot be built again", "at offset"];
        assert!(words.iter().all(|word| problem.contains(word)), "{problem}");
    };
    for original in &originals {
        let found = log.log().record_at(original.position());
        if (first..=last).contains(&original.position()) {
            is_told(&found.expect_err("nobody knows where it is"));
        } else {
            assert_eq!(found.as_ref(), Ok(original));
        }
    }
    let (there, elsewhere): (Vec<&Record>, Vec<&Record>) =
        originals.iter().partition(|it| (first..=last).contains(&it.position()));
    let held = there[0].aggregate();
    for filter in [Filter::default(), Filter::aggregate(held)] {
        let mut cursor = log.log().read(ReadRequest { filter, ..ReadRequest::default() });
        let page = cursor.next_page(PageLimits::default()).expect("what comes before");
        assert!(page.records.iter().all(|record| record.position() < first) && !page.is_last);
        for _ in 0..2 {
            is_told(&cursor.next_page(PageLimits::default()).expect_err("again and again"));
        }
    }
    let is_there = |key: &AggregateKey| there.iter().any(|record| record.aggregate() == *key);
    let other = elsewhere.iter().map(|record| record.aggregate()).find(|key| !is_there(key));
    let other = other.expect("not all aggregates are in it");
    let request =
        ReadRequest { filter: Filter::aggregate(other.clone()), ..ReadRequest::default() };
    let page = log.log().read(request).next_page(PageLimits::default()).expect("it is not needed");
    let expected: Vec<&Record> =
        elsewhere.into_iter().filter(|record| record.aggregate() == other).collect();
    assert!(page.is_last && page.records.iter().eq(expected));
    let damage = log.log().shared().found_damage().expect("health says so");
    assert_eq!(damage.segment, DAMAGED);
    let status = quipu_server::status::document(log.log()).expect("the folder is there");
    assert_eq!((&status["state"], &status["damaged"]), (&"writable".into(), &true.into()));
    let told = &status["found_damage"];
    assert_eq!(told["segment"], DAMAGED);
    assert!(told["problem"].as_str().is_some_and(|it| it == damage.problem), "{status}");
    assert_eq!(status["ends_in_damage"], false, "reads of everything else are whole");
    log.append_each(&[Append::any(vec![event(9_999, &key(0), "Created")])]);
}
