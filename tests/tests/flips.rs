//! Every byte of a small log flipped, one at a time: opening and reading either gives exactly what
//! was written or says what is damaged, and never anything else.

use quipu_engine::format::segment_header::SegmentHeader;
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::storage::{index_name, segment_name};
use quipu_engine::{EventLog, LogOptions, RecoveryReport};
use quipu_tests::memory_disk::MemoryDisk;
use quipu_tests::stepped_log::SteppedLog;
use quipu_tests::tamper::{groups_of, range};
use quipu_tests::varied_events::varied_appends;
use quipu_types::{Filter, Position, ReadError, ReadRequest, Record};

fn options() -> LogOptions {
    quipu_client::Options::default().with_segment_bytes(32 * 1024).log
}

/// A log of two sealed segments and an active one, closed in order or left by a crash.
fn small_log(closed: bool) -> (MemoryDisk, Vec<Record>) {
    let disk = MemoryDisk::default();
    let log = SteppedLog::open(disk.environment(), options()).expect("a new log");
    log.append_each(&varied_appends(5..7));
    let log = if closed {
        log.close();
        SteppedLog::open(disk.environment(), options()).expect("it opens again")
    } else {
        log
    };
    for appends in varied_appends(10..34).chunks(2) {
        let answers = log.append_together(appends, quipu_engine::Origin::System);
        for answer in answers {
            answer.expect("stored");
        }
    }
    let records = read_all(log.log()).0;
    assert!(log.log().segments().expect("memory").len() >= 3);
    if closed {
        log.close();
    } else {
        log.crash();
    }
    (disk, records)
}

fn read_all(log: &EventLog) -> (Vec<Record>, Option<ReadError>) {
    let filter = Filter { include_system: true, ..Filter::default() };
    let mut cursor = log.read(ReadRequest { filter, ..ReadRequest::default() });
    let mut records = Vec::new();
    loop {
        match cursor.next_page(PageLimits::default()) {
            Ok(page) => {
                records.extend(page.records);
                if page.is_last {
                    return (records, None);
                }
            }
            Err(error) => return (records, Some(error)),
        }
    }
}

/// Number of the last segment with a header.
fn active(disk: &MemoryDisk) -> u64 {
    let is_active = |number: &u64| {
        let name = segment_name(*number);
        disk.names().contains(&name) && SegmentHeader::decode(&disk.content(&name)).is_ok()
    };
    (1..u64::MAX).take_while(is_active).last().expect("the log has segments")
}

/// Flips one bit of every byte of a file, a different one each time, on a copy of the disk.
fn flip_each(disk: &MemoryDisk, name: &str, mut check: impl FnMut(usize, MemoryDisk)) {
    let length = disk.content(name).len();
    for at in 0..length {
        let copy = disk.copy();
        copy.change(name, |bytes| bytes[at] ^= 1 << (at * 5 % 8));
        check(at, copy);
    }
}

fn open(disk: &MemoryDisk) -> Result<EventLog, quipu_engine::OpenError> {
    EventLog::open_stepped(disk.environment(), options(), &mut |_, _| {})
}

/// What is read is what was written; what is missing is reported.
fn gives_originals_or_damage(log: &EventLog, originals: &[Record], at: usize) -> usize {
    let (records, error) = read_all(log);
    assert_eq!(records, originals[..records.len()], "byte {at}");
    if let Some(error) = &error {
        let ReadError::Corruption(damage) = error else { panic!("byte {at}: {error}") };
        let next = Position(records.len() as u64 + 1);
        assert!((damage.first..=damage.last).contains(&next), "byte {at}: {damage}");
    }
    let report = log.recovery_report();
    let is_whole = records.len() == originals.len();
    assert!(is_whole || error.is_some() || report.torn.is_some(), "byte {at}: {report}");
    records.len()
}

fn says_where(report: &RecoveryReport, segment: u64, at: usize) {
    let text = report.to_string();
    assert!(text.contains(&format!("segment {segment}")), "byte {at}: {text}");
}

#[test]
fn every_flip_in_a_closed_active_segment_is_reported_and_costs_no_record_silently() {
    let (disk, originals) = small_log(true);
    let number = active(&disk);
    let name = segment_name(number);
    let groups = groups_of(&disk.content(&name));
    let [.., last_data, clean] = groups.as_slice() else { panic!("few groups") };
    let proven = range(last_data).end;
    flip_each(&disk, &name, |at, copy| {
        let log = open(&copy).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        let report = log.recovery_report();
        says_where(report, number, at);
        let read = gives_originals_or_damage(&log, &originals, at);
        if at < proven {
            assert!(report.damage.is_some() && report.torn.is_none(), "byte {at}: {report}");
            assert!(copy.content(&name) != disk.content(&name), "byte {at}: nothing is mended");
        } else {
            // CLEAN itself and what lies behind it: no record is there.
            assert!(report.torn.is_some() && report.damage.is_none(), "byte {at}: {report}");
            assert_eq!(read, originals.len(), "byte {at}");
        }
        let beside = EventLog::open_read_only(copy.environment(), options()).expect("it opens");
        gives_originals_or_damage_beside(&beside, &originals, at);
    });
    assert_eq!(usize::try_from(clean.offset).unwrap(), proven);
}

/// A reader beside a writer may see less without an error: what is not proven yet.
fn gives_originals_or_damage_beside(log: &EventLog, originals: &[Record], at: usize) {
    let (records, error) = read_all(log);
    assert_eq!(records, originals[..records.len()], "byte {at}, read-only");
    let is_damage = error.is_none_or(|error| matches!(error, ReadError::Corruption(_)));
    assert!(is_damage, "byte {at}, read-only");
}

#[test]
fn every_flip_in_an_active_segment_after_a_crash_costs_at_most_the_unproven_group() {
    let (disk, originals) = small_log(false);
    let number = active(&disk);
    let name = segment_name(number);
    let groups = groups_of(&disk.content(&name));
    let last = groups.last().expect("the segment has groups");
    let before_last = usize::try_from(last.first_position.0).unwrap() - 1;
    flip_each(&disk, &name, |at, copy| {
        let log = open(&copy).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        says_where(log.recovery_report(), number, at);
        let read = gives_originals_or_damage(&log, &originals, at);
        let report = log.recovery_report();
        let (is_torn, is_damaged) = (report.torn.is_some(), report.damage.is_some());
        assert!(is_torn != is_damaged, "byte {at}: {report}");
        if at >= range(last).start {
            assert!(is_torn, "byte {at}: {report}");
            let kept = if range(last).contains(&at) { before_last } else { originals.len() };
            assert_eq!(read, kept, "byte {at}");
        } else {
            assert!(is_damaged, "byte {at}: {report}");
        }
    });
}

#[test]
fn every_flip_in_a_sealed_segment_is_met_by_those_who_read_it_and_by_nobody_else() {
    let (disk, originals) = small_log(true);
    let name = segment_name(2);
    let groups = groups_of(&disk.content(&name));
    let end = range(groups.last().expect("SEAL")).end;
    flip_each(&disk, &name, |at, copy| {
        let log = open(&copy).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        let hit = groups.iter().find(|group| range(group).contains(&at));
        let lost = hit.map(|group| group.first_position..group.next_position());
        let (_, error) = read_all(&log);
        gives_originals_or_damage(&log, &originals, at);
        let is_open = log.recovery_report().damage.is_none();
        let in_records = lost.as_ref().is_some_and(|lost| !lost.is_empty());
        assert_eq!(is_open, 4_096 <= at && (at + 4_096 < end || at >= end), "byte {at}");
        assert_eq!(error.is_some(), !is_open || in_records, "byte {at}");
        if let (true, Some(lost)) = (is_open, lost) {
            for original in &originals {
                let found = log.record_at(original.position());
                if lost.contains(&original.position()) {
                    assert!(found.is_err() || found.as_ref() == Ok(original), "byte {at}");
                } else {
                    assert_eq!(found.as_ref(), Ok(original), "byte {at}");
                }
            }
        }
    });
}

#[test]
fn every_flip_in_a_sealed_segment_without_its_index_is_damage() {
    let (disk, originals) = small_log(true);
    disk.change(&index_name(2), Vec::clear);
    let name = segment_name(2);
    let end = range(groups_of(&disk.content(&name)).last().expect("SEAL")).end;
    flip_each(&disk, &name, |at, copy| {
        let log = open(&copy).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        let report = log.recovery_report();
        assert_eq!(report.damage.is_some(), at < end, "byte {at}: {report}");
        let read = gives_originals_or_damage(&log, &originals, at);
        assert_eq!(read == originals.len(), at >= end, "byte {at}");
        if at < end {
            says_where(report, 2, at);
        }
    });
}

#[test]
fn every_flip_in_an_index_file_is_seen_and_mended() {
    let (disk, originals) = small_log(true);
    let name = index_name(2);
    flip_each(&disk, &name, |at, copy| {
        let log = open(&copy).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        assert_eq!(log.recovery_report().rebuilt_indexes, [2], "byte {at}");
        assert_eq!(read_all(&log), (originals.clone(), None), "byte {at}");
        assert!(copy.content(&name) == disk.content(&name), "byte {at}: the index is mended");
    });
}
