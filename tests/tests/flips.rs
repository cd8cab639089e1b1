//! Every bit of a small log flipped, one at a time: opening and reading either gives exactly what
//! was written or says what is damaged, and never anything else. With `--nocapture` each test
//! prints what became of its flips.
#![expect(clippy::print_stdout, reason = "the counts are worth reading")]

use std::collections::BTreeMap;

use quipu_engine::format::segment_header::SegmentHeader;
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::storage::{index_name, segment_name};
use quipu_engine::{EventLog, LogOptions, OpenError, Origin, RecoveryReport, verify};
use quipu_tests::memory_disk::MemoryDisk;
use quipu_tests::stepped_log::SteppedLog;
use quipu_tests::tamper::{groups_of, range};
use quipu_tests::varied_events::varied_event;
use quipu_types::{Append, Filter, Position, ReadError, ReadRequest, Record, Version};

/// The smallest segments that take appends of 4,000 bytes: six blocks, 196,608 bits.
fn options() -> LogOptions {
    let mut options = LogOptions { segment_bytes: 24 * 1024, ..LogOptions::default() };
    options.limits.append_bytes_max = 4_000;
    options.limits.event_bytes_max = 4_000;
    options
}

/// Two events each, of every kind but the large ones.
fn appends(ids: std::ops::Range<u128>) -> Vec<Append> {
    let ids: Vec<u128> = ids.filter(|id| id % 5 != 2).collect();
    let append = |ids: &[u128]| Append::any(ids.iter().map(|id| varied_event(*id)).collect());
    ids.chunks(2).map(append).collect()
}

/// A log of two sealed segments and an active one, closed in order or left by a crash.
fn small_log(closed: bool) -> (MemoryDisk, Vec<Record>) {
    let disk = MemoryDisk::default();
    let log = SteppedLog::open(disk.environment(), options()).expect("a new log");
    log.append_each(&appends(5..8));
    log.close();
    let log = SteppedLog::open(disk.environment(), options()).expect("it opens again");
    for together in appends(10..29).chunks(2) {
        for answer in log.append_together(together, Origin::System) {
            answer.expect("stored");
        }
    }
    let records = read_all(log.log()).0;
    if closed {
        log.close();
    } else {
        log.crash();
    }
    assert_eq!(active(&disk), 3);
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

/// What became of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// Opening is refused, and says what is damaged: the header of segment 1, which says whose log
    /// this is.
    RefusedToOpen,
    /// Opening reports damage; the log is read-only.
    Damage,
    /// Opening reports a torn tail and keeps a copy; no record is lost.
    TornTail,
    /// Opening reports a torn tail: the group was not proven durable, and its records are gone.
    TornGroup,
    /// Whoever reads the record is told that its segment is damaged.
    RefusedToReaders,
    /// The bit belongs to a group without records, which no reader needs; `verify` finds it.
    FoundByVerify,
    /// Opening reports that the index was not valid and has built it again.
    Rebuilt,
    /// Who first needs the index finds that it is not valid, and builds it again.
    RebuiltWhenNeeded,
    /// Behind the SEAL, where nothing is ever read.
    BehindSeal,
}

/// Flips every bit of a file, one at a time, each on a copy of the disk of its own, and says how
/// many bits met which fate.
fn flip_each(
    disk: &MemoryDisk,
    name: &str,
    mut check: impl FnMut(usize, MemoryDisk) -> Fate,
) -> BTreeMap<Fate, usize> {
    let mut fates = BTreeMap::new();
    let bits = disk.content(name).len() * 8;
    for bit in 0..bits {
        let copy = disk.copy();
        copy.change(name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        *fates.entry(check(bit / 8, copy)).or_default() += 1;
    }
    println!("{name}: {bits} bits flipped: {fates:?}");
    assert_eq!(fates.values().sum::<usize>(), bits);
    fates
}

fn open(disk: &MemoryDisk) -> EventLog {
    try_open(disk).expect("it opens")
}

fn try_open(disk: &MemoryDisk) -> Result<EventLog, OpenError> {
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

/// Damage or a torn tail, never both, never neither; and a copy is kept of what is cut.
fn fate_of_tail(log: &EventLog, disk: &MemoryDisk, records_lost: usize, at: usize) -> Fate {
    let report = log.recovery_report();
    match (&report.damage, &report.torn) {
        (Some(_), None) => Fate::Damage,
        (None, Some(torn)) => {
            let copy = torn.copy.as_ref().expect("there is room for a copy");
            assert!(disk.names().contains(copy), "byte {at}: {copy} is not there");
            if records_lost == 0 { Fate::TornTail } else { Fate::TornGroup }
        }
        _ => panic!("byte {at}: {report}"),
    }
}

#[test]
fn every_flip_in_a_closed_active_segment_is_reported_and_costs_no_record_silently() {
    let (disk, originals) = small_log(true);
    let number = active(&disk);
    let name = segment_name(number);
    let content = disk.content(&name);
    let groups = groups_of(&content);
    let [.., last_data, clean] = groups.as_slice() else { panic!("few groups") };
    let proven = range(last_data).end;
    assert_eq!(usize::try_from(clean.offset).unwrap(), proven);
    let fates = flip_each(&disk, &name, |at, copy| {
        let beside = EventLog::open_read_only(copy.environment(), options()).expect("it opens");
        gives_originals_or_damage_beside(&beside, &originals, at);
        let log = open(&copy);
        says_where(log.recovery_report(), number, at);
        let read = gives_originals_or_damage(&log, &originals, at);
        let fate = fate_of_tail(&log, &copy, originals.len() - read, at);
        // From CLEAN on no record is there.
        assert_eq!(fate, if at < proven { Fate::Damage } else { Fate::TornTail }, "byte {at}");
        let is_mended = copy.content(&name) == content;
        assert!(fate != Fate::Damage || !is_mended, "byte {at}: damage is never mended");
        fate
    });
    assert_eq!(fates[&Fate::Damage], 8 * proven);
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
    let fates = flip_each(&disk, &name, |at, copy| {
        let log = open(&copy);
        says_where(log.recovery_report(), number, at);
        let read = gives_originals_or_damage(&log, &originals, at);
        let fate = fate_of_tail(&log, &copy, originals.len() - read, at);
        let expected = match at {
            _ if at < range(last).start => Fate::Damage,
            _ if at < range(last).end => Fate::TornGroup,
            _ => Fate::TornTail,
        };
        assert_eq!(fate, expected, "byte {at}");
        assert!(fate != Fate::TornGroup || read == before_last, "byte {at}");
        fate
    });
    assert_eq!(fates[&Fate::TornGroup], 8 * last.group_bytes as usize);
}

/// Opening checks the header and the SEAL of a sealed segment, readers the groups they read,
/// `verify` every group; behind the SEAL nobody looks.
fn flip_sealed(number: u64) -> BTreeMap<Fate, usize> {
    let (disk, originals) = small_log(true);
    let name = segment_name(number);
    let groups = groups_of(&disk.content(&name));
    let seal = range(groups.last().expect("SEAL"));
    flip_each(&disk, &name, |at, copy| {
        let hit = groups.iter().find(|group| range(group).contains(&at));
        let expected = match hit {
            None if at < 4_096 => Fate::Damage,
            None => Fate::BehindSeal,
            Some(_) if seal.contains(&at) => Fate::Damage,
            Some(group) if group.records > 0 => Fate::RefusedToReaders,
            Some(_) => Fate::FoundByVerify,
        };
        if number == 1 && at < 4_096 {
            let refused = try_open(&copy).err().expect("nobody knows whose log this is");
            assert!(refused.to_string().contains("segment 1"), "byte {at}: {refused}");
            return Fate::RefusedToOpen;
        }
        let log = open(&copy);
        let read = gives_originals_or_damage(&log, &originals, at);
        let is_open = log.recovery_report().damage.is_none();
        assert_eq!(is_open, expected != Fate::Damage, "byte {at}");
        match expected {
            Fate::Damage => says_where(log.recovery_report(), number, at),
            Fate::RefusedToReaders => {
                assert!(read < originals.len(), "byte {at}");
                let lost = hit.map(|group| group.first_position..group.next_position());
                others_are_served(&log, &originals, &lost.expect("a group was hit"), at);
            }
            _ => assert_eq!(read, originals.len(), "byte {at}"),
        }
        if matches!(expected, Fate::FoundByVerify | Fate::BehindSeal) {
            let storage = copy.environment().storage;
            let damage = verify(&storage, false, &mut |_| {}).expect("a log").damage;
            let is_found = damage.iter().any(|damage| damage.segment == number);
            assert_eq!(is_found, expected == Fate::FoundByVerify, "byte {at}: {damage:?}");
        }
        expected
    })
}

/// All but the records of one damaged group.
fn others_are_served(
    log: &EventLog,
    originals: &[Record],
    lost: &std::ops::Range<Position>,
    at: usize,
) {
    for original in originals {
        let found = log.record_at(original.position());
        if lost.contains(&original.position()) {
            assert!(found.is_err() || found.as_ref() == Ok(original), "byte {at}");
        } else {
            assert_eq!(found.as_ref(), Ok(original), "byte {at}");
        }
    }
}

#[test]
fn every_flip_in_a_sealed_segment_with_starts_and_a_clean_is_found() {
    let fates = flip_sealed(1);
    // Two STARTs and a CLEAN, a block each; the SEAL fills the segment.
    assert_eq!(fates[&Fate::FoundByVerify], 3 * 4_096 * 8);
    assert!(!fates.contains_key(&Fate::BehindSeal));
}

#[test]
fn every_flip_in_a_sealed_segment_is_met_by_those_who_read_it_and_by_nobody_else() {
    let fates = flip_sealed(2);
    assert_eq!(fates[&Fate::RefusedToReaders], 2 * 4_096 * 8);
    assert_eq!(fates[&Fate::BehindSeal], 2 * 4_096 * 8);
}

#[test]
fn every_flip_in_a_sealed_segment_without_its_index_is_damage() {
    let (disk, originals) = small_log(true);
    disk.change(&index_name(2), Vec::clear);
    let name = segment_name(2);
    let end = range(groups_of(&disk.content(&name)).last().expect("SEAL")).end;
    let fates = flip_each(&disk, &name, |at, copy| {
        let log = open(&copy);
        let report = log.recovery_report();
        assert_eq!(report.damage.is_some(), at < end, "byte {at}: {report}");
        let read = gives_originals_or_damage(&log, &originals, at);
        assert_eq!(read == originals.len(), at >= end, "byte {at}");
        if at >= end {
            return Fate::BehindSeal;
        }
        says_where(report, 2, at);
        Fate::Damage
    });
    assert_eq!(fates[&Fate::Damage], end * 8);
}

/// What the indexes answer: each aggregate's newest version, and who has a correlation id.
fn answers(log: &EventLog, originals: &[Record]) -> (Vec<Version>, Vec<Position>) {
    let version = |record: &Record| log.version(&record.aggregate()).expect("it can be read");
    let correlation_id = Some(originals[0].correlation_id().to_owned());
    let filter = Filter { correlation_id, include_system: true, ..Filter::default() };
    let mut cursor = log.read(ReadRequest { filter, ..ReadRequest::default() });
    let page = cursor.next_page(PageLimits::default()).expect("it can be read");
    (originals.iter().map(version).collect(), page.records.iter().map(Record::position).collect())
}

#[test]
fn every_flip_in_an_index_file_is_seen_and_mended() {
    let (disk, originals) = small_log(true);
    let expected = answers(&open(&disk.copy()), &originals);
    assert!(expected.1.len() > 1, "a correlation id that several records have");
    for number in [1, 2] {
        let name = index_name(number);
        let content = disk.content(&name);
        let fates = flip_each(&disk, &name, |at, copy| {
            let log = open(&copy);
            let at_once = log.recovery_report().rebuilt_indexes == [number];
            // Whose index it is, and how long: that is looked at when the log is opened.
            let expected_at_once = matches!(at, 0..12 | 16..40 | 64..88);
            let is_flag = (12..16).contains(&at);
            assert!(at_once == expected_at_once || is_flag, "byte {at}: {at_once}");
            let (records, error) = read_all(&log);
            assert!(records == originals && error.is_none(), "byte {at}: {error:?}");
            assert_eq!(answers(&log, &originals), expected, "byte {at}");
            assert!(copy.content(&name) == content, "byte {at}: the index is mended");
            if at_once { Fate::Rebuilt } else { Fate::RebuiltWhenNeeded }
        });
        assert_eq!(fates.len(), 2, "{fates:?}");
    }
}
