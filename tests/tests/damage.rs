//! Bad folders: each is either mended with a report or refused with one, acknowledged events are
//! never cut, and what is read is what was written.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use quipu_client::{
    AggregateKey, AppendError, Corruption, Embedded, EventStore, LogState, OpenError, ReadError,
    StartAfter, SubscribeRequest, SubscriptionItem,
};
use quipu_engine::format::IN_FLIGHT_BYTES_MAX;
use quipu_engine::format::group::{FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupKind};
use quipu_engine::format::sum::crc64;
use quipu_engine::storage::{FileKind, segment_name, torn_name};
use quipu_engine::{Access, DiskStorage};
use quipu_tests::faulty_disk::{Fault, Faults, FaultyDisk, Operation};
use quipu_tests::filled_log::{
    ENDS, EVENTS, append, filled, goes_on, is_prefix_of_originals, open, open_read_only, options,
    originals, read_all, record_at, says,
};
use quipu_tests::memory_disk::environment;
use quipu_tests::patience::block_on;
use quipu_tests::tamper::{Folder, bytes, change, flip, range, remove, write};
use quipu_types::record::HEADER_BYTES;

/// A byte in each part of a group of one record.
fn parts(group: &GroupHeader) -> [(&'static str, usize); 6] {
    let start = range(group).start;
    let frame = start + GROUP_HEADER_BYTES;
    let record = frame + FRAME_HEADER_BYTES;
    let body_end = frame + group.body_bytes as usize;
    [
        ("group header", start + 24),
        ("frame header", frame),
        ("record header", record + 16),
        ("archive's contents", record + HEADER_BYTES + 2),
        ("archive's root", body_end - 100),
        ("padding", body_end + 10),
    ]
}

fn segments_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Folder(folder).snapshot();
    let is_kept =
        |name: &str| matches!(FileKind::of(name), FileKind::Segment(_) | FileKind::Marker);
    files.retain(|(name, _)| is_kept(name));
    files
}

/// The log opens, read-only, with everything up to `readable`; the report has these words.
fn opens_damaged(folder: &Path, readable: u64, words: &[&str]) {
    let before = segments_of(folder);
    let log = open(folder).expect("a damaged log opens read-only");
    let report = log.recovery_report().clone();
    says(&report.to_string(), words);
    says(&report.to_string(), &["DAMAGED", "quipu verify"]);
    let damage = report.damage.expect("the report has the damage");
    assert_eq!((damage.first.0, report.torn), (readable + 1, None));
    assert_eq!(log.status().expect("the folder is there").state, LogState::Damaged(damage.clone()));
    is_prefix_of_originals(&log, readable);
    let (records, error) = read_all(&log);
    assert_eq!((records.len() as u64, error), (readable, Some(damage.clone().into())));
    follows_up_to_the_damage(&log, readable, &damage);
    // Newer ones may be where the damage is.
    for knot in ["0", "1", "2"] {
        let version = log.log().version(&AggregateKey::new("Knot", knot));
        assert_eq!(version, Err(damage.clone().into()));
    }
    match append(&log, EVENTS + 1) {
        Err(AppendError::ReadOnly(reason)) => says(&reason, words),
        other => panic!("an append to a damaged log: {other:?}"),
    }
    drop(log);
    assert!(segments_of(folder) == before, "nothing is cut or changed");
    let log = open_read_only(folder).expect("a damaged log opens read-only");
    says(&log.recovery_report().to_string(), words);
    is_prefix_of_originals(&log, readable);
    let (records, error) = read_all(&log);
    assert_eq!((records.len() as u64, error), (readable, Some(damage.into())));
}

fn follows_up_to_the_damage(log: &Embedded, readable: u64, damage: &Corruption) {
    let request = SubscribeRequest {
        after: StartAfter::Position(quipu_client::Position::START),
        ..SubscribeRequest::default()
    };
    let mut subscription = log.subscribe(request).expect("a damaged log can be followed");
    let mut events = 0;
    let error = loop {
        match block_on(subscription.next_batch()) {
            Ok(items) => {
                events +=
                    items.iter().filter(|it| matches!(it, SubscriptionItem::Event(_))).count();
                let caught_up = |it: &SubscriptionItem| matches!(it, SubscriptionItem::CaughtUp(_));
                assert!(!items.iter().any(caught_up), "damage lies ahead");
            }
            Err(error) => break error,
        }
    };
    assert_eq!((events as u64, error), (readable, damage.clone().into()));
}

/// The log cannot be opened at all, says why, and stays as it is.
fn is_refused(folder: &Path, words: &[&str]) {
    let before = Folder(folder).snapshot();
    for result in [open(folder), open_read_only(folder)] {
        let error = result.map(drop).expect_err("it cannot be opened");
        says(&error.to_string(), words);
    }
    assert!(Folder(folder).snapshot() == before, "nothing was changed");
}

/// The log opens for writing with everything up to `readable`, takes an append, and is whole when
/// opened again. Returns what the first opening reported.
fn is_mended(folder: &Path, readable: u64) -> quipu_client::RecoveryReport {
    let log = open(folder).expect("the log opens");
    let report = log.recovery_report().clone();
    assert_eq!(report.damage, None, "{report}");
    is_prefix_of_originals(&log, readable);
    goes_on(&log, readable);
    drop(log);
    let log = open(folder).expect("the log opens again");
    let again = log.recovery_report();
    assert!(again.clean && again.torn.is_none() && again.damage.is_none(), "{again}");
    assert_eq!(read_all(&log).0.len() as u64, readable + 20);
    report
}

#[test]
fn the_log_to_be_damaged_is_as_the_tests_expect() {
    let folder = filled();
    let folder = Folder(folder.path());
    assert_eq!(folder.active(), 3);
    let ends = [1, 2].map(|number| folder.header(number + 1).first_position.0 - 1);
    assert_eq!(ends, ENDS);
    assert_eq!(folder.groups(2).last().map(|group| group.kind), Some(GroupKind::Seal));
    assert_eq!(folder.groups(3).last().map(|group| group.kind), Some(GroupKind::Clean));
    assert_eq!(folder.data_groups(3).len() as u64, EVENTS - ENDS[1]);
    is_mended(folder.0, EVENTS);
}

// Folders that are no log.

#[test]
fn a_folder_with_other_things_is_no_log_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("letter.txt"), "dear");
    write(&folder.path().join("draft.tmp"), "half a letter");
    is_refused(folder.path(), &["not a log", "LOG"]);
    assert!(!folder.path().join("lock").exists(), "not even a lock is left behind");
    remove(&folder.path().join("letter.txt"));
    is_refused(folder.path(), &["not a log", "draft.tmp"]);
}

#[test]
fn a_file_instead_of_a_folder_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.log");
    write(&file, "text");
    for result in [open(&file), open_read_only(&file)] {
        says(&result.map(drop).unwrap_err().to_string(), &["events.log"]);
    }
    assert_eq!(bytes(&file), b"text");
}

#[test]
fn a_read_only_opening_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for path in [folder.path(), &missing] {
        let error = open_read_only(path).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::NoLog), "{error}");
        says(&error.to_string(), &["no log"]);
    }
    assert!(!missing.exists());
    assert_eq!(Folder(folder.path()).names(), [""; 0]);
}

// A newer format.

#[test]
fn a_newer_segment_is_refused_naming_both_versions() {
    for number in 1..=3 {
        let folder = filled();
        change(&Folder(folder.path()).segment(number), |bytes| {
            bytes[8] = 2;
            let sum = crc64(&bytes[..4_088]);
            bytes[4_088..4_096].copy_from_slice(&sum.to_le_bytes());
        });
        let segment = format!("segment {number}");
        is_refused(folder.path(), &[&segment, "format 2", "up to 1"]);
    }
}

#[test]
fn a_newer_log_is_refused_naming_both_versions() {
    let folder = filled();
    let text = String::from_utf8(bytes(&folder.path().join("LOG"))).unwrap();
    write(&folder.path().join("LOG"), text.replace("format: 1", "format: 2"));
    is_refused(folder.path(), &["LOG", "format 2", "up to 1"]);
}

#[test]
fn a_damaged_marker_is_refused_by_its_name() {
    for text in ["", "quipu log\n", "quipu log\nlog_id: x\nformat: 1\n", "\u{0}\u{0}\u{0}"] {
        let folder = filled();
        write(&folder.path().join("LOG"), text);
        is_refused(folder.path(), &["LOG", "damaged"]);
    }
}

#[test]
fn a_marker_of_another_log_is_damage_in_the_chain() {
    let folder = filled();
    let id = "log_id: 00000000-0000-4000-8000-000000000001";
    write(&folder.path().join("LOG"), format!("quipu log\n{id}\nformat: 1\n"));
    is_refused(folder.path(), &["segment 1", "belongs to log"]);
}

// Segments that are missing or in the wrong place.

#[test]
fn a_missing_first_segment_is_named() {
    let folder = filled();
    remove(&Folder(folder.path()).segment(1));
    is_refused(folder.path(), &["segment 1", "missing"]);
}

#[test]
fn a_missing_middle_segment_is_named() {
    let folder = filled();
    remove(&Folder(folder.path()).segment(2));
    opens_damaged(folder.path(), ENDS[0], &["segment 2", "position 12", "missing"]);
}

#[test]
fn a_missing_active_segment_is_named() {
    let folder = filled();
    remove(&Folder(folder.path()).segment(3));
    opens_damaged(folder.path(), ENDS[1], &["segment 3", "position 24", "missing"]);
}

#[test]
fn swapped_segments_are_named() {
    let folder = filled();
    let (two, three) = (Folder(folder.path()).segment(2), Folder(folder.path()).segment(3));
    let (content_two, content_three) = (bytes(&two), bytes(&three));
    write(&two, content_three);
    write(&three, content_two);
    opens_damaged(folder.path(), ENDS[0], &["segment 2", "holds segment 3"]);
}

#[test]
fn a_segment_under_another_number_is_named() {
    let folder = filled();
    write(&Folder(folder.path()).segment(4), bytes(&Folder(folder.path()).segment(2)));
    opens_damaged(folder.path(), EVENTS, &["segment 4", "holds segment 2"]);
}

#[test]
fn a_segment_of_another_log_is_named() {
    let folder = filled();
    let other = tempfile::tempdir().unwrap();
    let log = open(other.path()).unwrap();
    goes_on(&log, 0);
    drop(log);
    write(&Folder(folder.path()).segment(2), bytes(&Folder(other.path()).segment(2)));
    opens_damaged(folder.path(), ENDS[0], &["segment 2", "belongs to log"]);
}

#[test]
fn a_truncated_sealed_segment_is_named() {
    for keep in [4_096 * 5, 4_096 * 5 + 1_000] {
        let folder = filled();
        change(&Folder(folder.path()).segment(2), |bytes| bytes.truncate(keep));
        opens_damaged(folder.path(), ENDS[0] + 4, &["segment 2", "does not end"]);
    }
    let folder = filled();
    change(&Folder(folder.path()).segment(2), |bytes| bytes.truncate(1_000));
    opens_damaged(folder.path(), ENDS[0], &["segment 2", "ends inside the segment header"]);
}

/// Nothing is left that could prove that more was there; but it is no clean end.
#[test]
fn a_truncated_active_segment_ends_where_its_bytes_end() {
    let folder = filled();
    let third = Folder(folder.path()).data_groups(3)[2];
    change(&Folder(folder.path()).segment(3), |bytes| bytes.truncate(range(&third).end));
    let report = is_mended(folder.path(), ENDS[1] + 3);
    assert!(!report.clean);
    says(&report.to_string(), &["not closed in order"]);
}

#[test]
fn a_segment_truncated_in_its_header_is_damaged_if_a_later_one_shows_that_it_was_active() {
    let folder = filled();
    change(&Folder(folder.path()).segment(3), |bytes| bytes.truncate(1_000));
    write(&Folder(folder.path()).segment(4), vec![0; 64 * 1024]);
    opens_damaged(folder.path(), ENDS[1], &["segment 3", "ends inside the segment header"]);
}

// One flipped bit.

fn is_damage_of(error: &ReadError, group: &GroupHeader, part: &str) {
    let ReadError::Corruption(damage) = error else { panic!("{part}: {error}") };
    let position = group.first_position;
    assert_eq!((damage.segment, damage.first, damage.last), (2, position, position));
    let offset = format!("offset {}", group.offset);
    says(&error.to_string(), &["segment 2", &format!("position {position}")]);
    assert!(part.starts_with("archive") || error.to_string().contains(&offset), "{error}");
}

#[test]
fn a_flip_in_a_sealed_group_fails_the_reads_that_need_it_and_nothing_else() {
    let group = Folder(filled().path()).data_groups(2)[5];
    let position = group.first_position.0;
    for (part, at) in parts(&group) {
        let folder = filled();
        flip(&Folder(folder.path()).segment(2), at);
        let log = open(folder.path()).unwrap();
        assert_eq!(log.recovery_report().damage, None, "{part}");
        for other in (1..=EVENTS).filter(|other| *other != position) {
            let index = usize::try_from(other).unwrap() - 1;
            assert_eq!(record_at(&log, other).as_ref(), Ok(&originals()[index]), "{part}");
        }
        let is_of_record = part.starts_with("archive") || part == "record header";
        match record_at(&log, position) {
            // The index knows where it stands, and that it is as it was written.
            Ok(record) => {
                let original = &originals()[usize::try_from(position).unwrap() - 1];
                assert!(!is_of_record && record == *original, "{part}");
            }
            Err(error) => {
                assert!(is_of_record, "{part}: {error}");
                is_damage_of(&error, &group, part);
            }
        }
        let (records, error) = read_all(&log);
        is_damage_of(error.as_ref().unwrap(), &group, part);
        assert_eq!((records.len() as u64, error.is_some()), (position - 1, true), "{part}");
        goes_on(&log, EVENTS);
    }
}

#[test]
fn a_flip_in_a_sealed_group_without_an_index_makes_the_log_read_only() {
    let group = Folder(filled().path()).data_groups(2)[5];
    for (part, at) in parts(&group) {
        let folder = filled();
        flip(&Folder(folder.path()).segment(2), at);
        remove(&Folder(folder.path()).index(2));
        let readable = group.first_position.0 - 1;
        let offset = format!("offset {}", group.offset);
        println!("{part}");
        opens_damaged(folder.path(), readable, &["segment 2", &offset]);
    }
}

#[test]
fn there_is_no_record_before_the_first() {
    let folder = filled();
    let log = open(folder.path()).unwrap();
    assert!(matches!(record_at(&log, 0), Err(ReadError::PastEnd { .. })));
    assert_eq!(record_at(&log, 1).as_ref(), Ok(&originals()[0]));
}

#[test]
fn a_flip_in_a_seal_breaks_the_chain() {
    let folder = filled();
    let seal = *Folder(folder.path()).groups(2).last().unwrap();
    flip(&Folder(folder.path()).segment(2), range(&seal).start + 24);
    let offset = format!("SEAL at offset {}", seal.offset);
    opens_damaged(folder.path(), ENDS[1], &["segment 2", &offset]);
}

#[test]
fn a_flip_in_a_segment_header_makes_the_log_read_only() {
    for at in [3, 9, 13, 20, 50, 60, 2_000, 4_090] {
        let folder = filled();
        flip(&Folder(folder.path()).segment(1), at);
        is_refused(folder.path(), &["segment 1"]);
        let folder = filled();
        flip(&Folder(folder.path()).segment(2), at);
        opens_damaged(folder.path(), ENDS[0], &["segment 2", "position 12"]);
        let folder = filled();
        flip(&Folder(folder.path()).segment(3), at);
        opens_damaged(folder.path(), ENDS[1], &["segment 3", "position 24", "has groups"]);
    }
}

#[test]
fn a_flip_below_what_was_durable_in_the_active_segment_makes_the_log_read_only() {
    let group = Folder(filled().path()).data_groups(3)[2];
    for (part, at) in parts(&group) {
        let folder = filled();
        flip(&Folder(folder.path()).segment(3), at);
        println!("{part}");
        let words = ["segment 3", &format!("offset {}", group.offset), "was durable"];
        opens_damaged(folder.path(), ENDS[1] + 2, &words);
    }
}

#[test]
fn a_flip_in_the_last_unproven_group_is_a_torn_tail() {
    let group = *Folder(filled().path()).data_groups(3).last().unwrap();
    for (part, at) in parts(&group) {
        let folder = filled();
        Folder(folder.path()).erase_last_group(3);
        flip(&Folder(folder.path()).segment(3), at);
        let torn_bytes = bytes(&Folder(folder.path()).segment(3))[range(&group)].to_vec();
        let beside = open_read_only(folder.path()).unwrap();
        assert_eq!(beside.recovery_report().damage, None, "{part}");
        // Nothing proves the group before it either: a reader does not see it yet.
        is_prefix_of_originals(&beside, EVENTS - 2);
        let report = is_mended(folder.path(), EVENTS - 1);
        let torn = report.torn.clone().expect("a torn tail");
        assert_eq!((torn.segment, torn.offset, torn.bytes), (3, group.offset, 4_096), "{part}");
        let copy = torn.copy.expect("a copy is kept");
        says(&report.to_string(), &["segment 3", &format!("offset {}", group.offset), &copy]);
        assert_eq!(FileKind::of(&copy), FileKind::Torn);
        assert!(bytes(&folder.path().join(copy)) == torn_bytes, "{part}: the copy");
    }
}

#[test]
fn bytes_behind_a_clean_end_are_a_torn_tail() {
    let clean = *Folder(filled().path()).groups(3).last().unwrap();
    for at in [range(&clean).start + 24, range(&clean).end + 5_000] {
        let folder = filled();
        flip(&Folder(folder.path()).segment(3), at);
        let report = is_mended(folder.path(), EVENTS);
        says(&report.to_string(), &["torn tail", "segment 3", ".torn"]);
    }
}

#[test]
fn a_tail_is_torn_as_far_as_groups_can_have_been_in_flight_and_beyond_it_is_damage() {
    let in_flight = usize::try_from(IN_FLIGHT_BYTES_MAX).unwrap();
    let clean = *Folder(filled().path()).groups(3).last().unwrap();
    let garbage = |bytes: usize| {
        let folder = filled();
        change(&Folder(folder.path()).segment(3), |content| {
            content.truncate(range(&clean).end);
            content.resize(range(&clean).end + bytes, 0x55);
        });
        folder
    };
    let folder = garbage(in_flight);
    let report = is_mended(folder.path(), EVENTS);
    let [(name, copy)] = copies(folder.path()).try_into().expect("one copy");
    assert!(copy.len() == in_flight && copy.iter().all(|byte| *byte == 0x55));
    assert_eq!(report.torn.and_then(|torn| torn.copy), Some(name));
    let folder = garbage(in_flight + 4_096);
    let place = format!("offset {} is too far behind", range(&clean).end + in_flight);
    opens_damaged(folder.path(), EVENTS, &["segment 3", &place]);
}

#[test]
fn groups_behind_a_hole_are_not_salvaged() {
    let folder = filled();
    let groups = Folder(folder.path()).data_groups(3);
    let [.., hole, last] = groups.as_slice() else { panic!("few groups") };
    Folder(folder.path()).erase_last_group(3);
    // As if both had been in flight: the last one does not claim that the one before is durable.
    let segment = Folder(folder.path()).segment(3);
    change(&segment, |bytes| bytes[range(last)].fill(0x55));
    change(&segment, |bytes| bytes[range(hole)].fill(0));
    let report = is_mended(folder.path(), EVENTS - 2);
    let torn = report.torn.expect("a torn tail");
    assert_eq!((torn.offset, torn.bytes), (hole.offset, 8_192));
}

// Index files.

#[test]
fn an_index_that_is_missing_cut_or_of_another_segment_is_built_again() {
    let whole = filled();
    let original = bytes(&Folder(whole.path()).index(2));
    let other = bytes(&Folder(whole.path()).index(1));
    let half = original[..original.len() / 2].to_vec();
    let longer = [original.as_slice(), &[0]].concat();
    for broken in [Vec::new(), half, longer, other, vec![0; 3]] {
        let folder = filled();
        let index = Folder(folder.path()).index(2);
        write(&index, broken);
        let report = is_mended(folder.path(), EVENTS);
        assert_eq!(report.rebuilt_indexes, [2]);
        says(&report.to_string(), &["index", "[2]"]);
        assert!(bytes(&index) == original, "the index is what it was");
    }
    let folder = filled();
    for number in 1..=2 {
        remove(&Folder(folder.path()).index(number));
    }
    assert_eq!(is_mended(folder.path(), EVENTS).rebuilt_indexes, [1, 2]);
}

// What crashes leave.

#[test]
fn a_torn_header_of_a_segment_that_was_never_activated_is_kept_and_made_again() {
    let junk: [(&str, Range<usize>); 3] =
        [("a sector", 0..512), ("all but the sum", 0..4_088), ("the end", 512..4_096)];
    for (what, torn) in junk {
        let folder = filled();
        let mut spare = vec![0; 64 * 1024];
        spare[torn].fill(0x55);
        write(&Folder(folder.path()).segment(4), &spare);
        is_mended(folder.path(), EVENTS);
        let names = Folder(folder.path()).names();
        let copy = names.iter().find(|name| FileKind::of(name) == FileKind::Torn).expect(what);
        assert!(copy.starts_with(segment_name(4).trim_end_matches("seg")), "{what}: {copy}");
        let copy = bytes(&folder.path().join(copy));
        let rest = spare.strip_prefix(copy.as_slice()).expect("the copy is of its beginning");
        assert!(rest.iter().all(|byte| *byte == 0), "{what}: all that is not zero is kept");
        assert_eq!(Folder(folder.path()).header(4).number, 4, "{what}: it is used");
    }
}

fn copies(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = Folder(folder).snapshot().into_iter();
    files.filter(|(name, _)| FileKind::of(name) == FileKind::Torn).collect()
}

/// Opens the log on a disk of which something fails.
fn open_failing(folder: &Path, operation: Operation, fault: Fault) -> Result<Embedded, OpenError> {
    let faults = Arc::new(Faults::default());
    faults.fail_nth(operation, 1, fault);
    let options = options();
    let disk = DiskStorage::open(folder, Access::ReadWrite, options.backend, options.mapping);
    let storage = Arc::new(FaultyDisk::new(disk.expect("the folder is there"), faults));
    Embedded::open_on(environment(storage, Arc::default()), options)
}

#[test]
fn a_next_file_that_ends_within_a_block_is_kept_whole_and_made_again() {
    for length in [1, 5, 4_097, 5_000, 70_001] {
        let folder = filled();
        let next = vec![0x55; length];
        write(&Folder(folder.path()).segment(4), &next);
        let report = is_mended(folder.path(), EVENTS);
        let kept = copies(folder.path());
        assert_eq!(kept.len(), 1, "{length}");
        assert!(kept[0].1 == next, "{length}: the copy");
        assert_eq!(report.torn_header.as_ref(), Some(&kept[0].0), "{length}");
        let folder = filled();
        write(&Folder(folder.path()).segment(4), vec![0; length]);
        is_mended(folder.path(), EVENTS);
        assert_eq!(copies(folder.path()), [], "{length}: zeros");
    }
}

#[test]
fn a_next_file_of_which_no_copy_can_be_kept_is_not_cleared() {
    let folder = filled();
    let next = Folder(folder.path()).segment(4);
    write(&next, [0x55; 5_000]);
    let refused = Fault::Refused(ErrorKind::StorageFull);
    let error = open_failing(folder.path(), Operation::WriteAtomic, refused).map(drop);
    says(&error.expect_err("nothing is cleared").to_string(), &[&segment_name(4), "no copy"]);
    assert!(bytes(&next) == [0x55; 5_000]);
    is_mended(folder.path(), EVENTS);
}

#[test]
fn a_copy_of_a_torn_tail_outlives_a_crash_while_the_tail_is_cut() {
    let folder = filled();
    let end = range(Folder(folder.path()).groups(3).last().unwrap()).end;
    let tail: Vec<u8> = (0..16_384_u32).map(|at| (at % 251) as u8 + 1).collect();
    change(&Folder(folder.path()).segment(3), |bytes| {
        bytes[end..end + tail.len()].copy_from_slice(&tail);
    });
    for _ in 0..2 {
        let error = open_failing(folder.path(), Operation::Write, Fault::Short).map(drop);
        says(&error.expect_err("the disk stopped").to_string(), &["cut a torn tail"]);
        let kept = copies(folder.path());
        assert!(kept.len() == 1 && kept[0].1 == tail, "{} copies", kept.len());
    }
    let report = is_mended(folder.path(), EVENTS);
    let kept = copies(folder.path());
    assert!(kept.len() == 1 && kept[0].1 == tail, "{} copies", kept.len());
    assert_eq!(report.torn.and_then(|torn| torn.copy).as_ref(), Some(&kept[0].0));
}

#[test]
fn a_new_copy_stays_however_many_are_of_later_epochs() {
    let folder = filled();
    for epoch in 200..220 {
        write(&folder.path().join(torn_name(3, 4_096, epoch)), "an older one");
    }
    let end = range(Folder(folder.path()).groups(3).last().unwrap()).end;
    change(&Folder(folder.path()).segment(3), |bytes| bytes[end..end + 8_192].fill(0x55));
    let report = is_mended(folder.path(), EVENTS);
    let copy = report.torn.and_then(|torn| torn.copy).expect("a copy is kept");
    assert!(bytes(&folder.path().join(copy)) == [0x55; 8_192]);
    assert_eq!(copies(folder.path()).len(), 16, "the oldest go");
}

#[test]
fn without_space_to_clear_what_a_crash_has_left_the_log_is_read() {
    type Tear = fn(&Folder<'_>, usize);
    let clean = *Folder(filled().path()).groups(3).last().unwrap();
    let tears: [(&str, Tear); 2] = [
        ("cut a torn tail", |folder, end| {
            change(&folder.segment(3), |bytes| bytes[end..end + 8_192].fill(0x55));
        }),
        ("clear a torn header", |folder, _| write(&folder.segment(4), [0x55; 8_192])),
    ];
    for (action, tear) in tears {
        let folder = filled();
        tear(&Folder(folder.path()), range(&clean).end);
        let before = segments_of(folder.path());
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let log = open_failing(folder.path(), Operation::Write, Fault::Refused(kind));
            let log = log.expect("a log without space opens");
            is_prefix_of_originals(&log, EVENTS);
            match append(&log, EVENTS + 1) {
                Err(AppendError::NoSpace(reason)) => says(&reason, &[action, "open the log again"]),
                other => panic!("{action}: {other:?}"),
            }
            let report = log.recovery_report();
            assert!(report.torn.is_none() && report.torn_header.is_none(), "{report}");
        }
        assert!(segments_of(folder.path()) == before, "{action}: nothing is cleared");
        is_mended(folder.path(), EVENTS);
    }
}

#[test]
fn a_copy_of_something_else_is_not_overwritten() {
    let folder = filled();
    let end = range(Folder(folder.path()).groups(3).last().unwrap()).end;
    for filler in [0x55, 0x66] {
        change(&Folder(folder.path()).segment(3), |bytes| bytes[end..end + 8_192].fill(filler));
        open_failing(folder.path(), Operation::Write, Fault::Refused(ErrorKind::Other))
            .map(drop)
            .expect_err("the disk stopped");
    }
    let kept: Vec<Vec<u8>> =
        copies(folder.path()).into_iter().map(|(_, content)| content).collect();
    assert!(kept == [vec![0x55; 8_192], vec![0x66; 8_192]], "{} copies", kept.len());
}

#[test]
fn a_roll_that_a_crash_interrupted_is_finished() {
    let mut torn = vec![0; 64 * 1024];
    torn[..512].fill(0x55);
    for (what, next) in [("zeros", vec![0; 64 * 1024]), ("empty", Vec::new()), ("torn", torn)] {
        let folder = filled();
        write(&Folder(folder.path()).segment(3), next);
        let report = is_mended(folder.path(), ENDS[1]);
        assert!(report.finished_roll, "{what}");
        says(&report.to_string(), &["finished the roll"]);
    }
}

#[test]
fn a_creation_that_a_crash_interrupted_is_done_again() {
    let mut torn = vec![0; 64 * 1024];
    torn[..512].copy_from_slice(&bytes(&Folder(filled().path()).segment(1))[..512]);
    for (what, first) in [("empty", Vec::new()), ("zeros", vec![0; 64 * 1024]), ("torn", torn)] {
        let folder = tempfile::tempdir().unwrap();
        write(&Folder(folder.path()).segment(1), first);
        let error = open_read_only(folder.path()).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::NoLog), "{what}: {error}");
        let report = is_mended(folder.path(), 0);
        assert!(report.created, "{what}");
        let is_copy = |name: &String| FileKind::of(name) == FileKind::Torn;
        let is_kept = Folder(folder.path()).names().iter().any(is_copy);
        assert_eq!(is_kept, what == "torn", "what is not understood is kept: {what}");
    }
}

#[test]
fn a_missing_marker_beside_segments_is_written_again() {
    let folder = filled();
    let marker = bytes(&folder.path().join("LOG"));
    remove(&folder.path().join("LOG"));
    is_mended(folder.path(), EVENTS);
    assert_eq!(bytes(&folder.path().join("LOG")), marker);
}

#[test]
fn a_first_segment_with_groups_is_never_taken_for_an_interrupted_creation() {
    let folder = tempfile::tempdir().unwrap();
    let content = bytes(&Folder(filled().path()).segment(1));
    write(&Folder(folder.path()).segment(1), content);
    flip(&Folder(folder.path()).segment(1), 20);
    is_refused(folder.path(), &["segment 1"]);
}

#[test]
fn temporary_files_go_and_unknown_files_stay() {
    let folder = filled();
    let index = Folder(folder.path()).index(2).with_extension("idx.tmp");
    let ours = [folder.path().join("LOG.tmp"), index];
    let foreign = ["notes.txt", "draft.tmp", "0001.seg"].map(|name| folder.path().join(name));
    for path in ours.iter().chain(&foreign) {
        write(path, "left over");
    }
    drop(open_read_only(folder.path()).unwrap());
    assert!(ours.iter().all(|path| path.exists()), "a reader changes nothing");
    let report = is_mended(folder.path(), EVENTS);
    assert!(!ours.iter().any(|path| path.exists()));
    assert!(foreign.iter().all(|path| bytes(path) == b"left over"));
    says(&report.to_string(), &["left alone", "notes.txt", "draft.tmp", "0001.seg"]);
}
