//! A log that is read beside its writer: everything is shown, damage too, and nothing is kept that
//! need not be.
#![expect(clippy::disallowed_methods, reason = "it reads how much memory it has")]

use quipu_client::{Embedded, LogState, Options, ReadError};
use quipu_engine::format::sum::crc64;
use quipu_tests::filled_log::{append, open, open_read_only, read_all, says};
use quipu_tests::tamper::{Folder, change, flip, range, remove, remove_if_there};
use tempfile::TempDir;

/// Looks after which zeros are no longer taken for the end, and some.
const MANY_LOOKS: usize = 1_100;

fn write(log: &Embedded, ids: std::ops::RangeInclusive<u64>) {
    ids.for_each(|id| drop(append(log, id).expect("a good append is stored")));
}

/// A log of so many events, and a reader beside its writer.
fn followed(events: u64) -> (TempDir, Embedded, Embedded) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = open(folder.path()).expect("a new log");
    write(&log, 1..=events);
    let reader = open_read_only(folder.path()).expect("the log can be read");
    (folder, log, reader)
}

/// A log of five events, a reader of it, and five more events.
fn half_read() -> (TempDir, Embedded) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = open(folder.path()).expect("a new log");
    write(&log, 1..=5);
    drop(log);
    let reader = open_read_only(folder.path()).expect("the log can be read");
    assert_eq!(read_all(&reader).0.len(), 5);
    write(&open(folder.path()).expect("the log opens again"), 6..=10);
    (folder, reader)
}

/// The reader shows so many events, and then the damage.
fn tells_of_damage(reader: &Embedded, readable: usize, words: &[&str]) {
    (0..MANY_LOOKS).for_each(|_| reader.refresh().expect("the disk is sound"));
    let state = reader.status().expect("the folder is there").state;
    assert!(matches!(&state, LogState::Damaged(_)), "{state:?}");
    let (records, error) = read_all(reader);
    assert_eq!(records.len(), readable);
    let Some(ReadError::Corruption(damage)) = error else { panic!("{error:?}") };
    assert_eq!(damage.first.0, readable as u64 + 1);
    says(&damage.to_string(), words);
}

#[test]
fn a_group_that_rots_while_it_is_followed_is_told() {
    let (folder, reader) = half_read();
    let group = Folder(folder.path()).data_groups(1)[7];
    flip(&Folder(folder.path()).segment(1), range(&group).start + 200);
    tells_of_damage(&reader, 7, &["segment 1", &format!("offset {}", group.offset)]);
}

#[test]
fn a_group_that_is_lost_while_it_is_followed_is_told() {
    let (folder, reader) = half_read();
    let group = Folder(folder.path()).data_groups(1)[7];
    change(&Folder(folder.path()).segment(1), |bytes| bytes[range(&group)].fill(0));
    tells_of_damage(&reader, 7, &["segment 1", &format!("offset {}", group.offset)]);
}

#[test]
fn the_end_of_the_log_is_no_damage_however_often_it_is_looked_at() {
    let (_folder, reader) = half_read();
    (0..MANY_LOOKS).for_each(|_| reader.refresh().expect("the disk is sound"));
    let (records, error) = read_all(&reader);
    assert_eq!((records.len(), error), (10, None));
}

#[test]
fn a_header_that_rots_before_it_is_reached_is_told() {
    let (folder, log, reader) = followed(5);
    write(&log, 6..=40);
    drop(log);
    let sealed = Folder(folder.path()).header(2).first_position.0 - 1;
    flip(&Folder(folder.path()).segment(2), 20);
    let readable = usize::try_from(sealed).expect("a few events");
    tells_of_damage(&reader, readable, &["segment 2"]);
}

#[test]
fn a_header_that_rots_behind_a_reader_does_not_hold_it_up() {
    let (folder, log, reader) = followed(5);
    write(&log, 6..=40);
    reader.refresh().expect("the disk is sound");
    flip(&Folder(folder.path()).segment(2), 20);
    write(&log, 41..=80);
    drop(log);
    (0..60).for_each(|_| reader.refresh().expect("the disk is sound"));
    assert_eq!(reader.status().expect("the folder is there").state, LogState::ReadOnly);
    let (records, error) = read_all(&reader);
    assert_eq!((records.len(), error), (80, None));
}

#[test]
fn a_last_segment_that_is_lost_or_has_lost_its_header_is_told() {
    for is_lost in [true, false] {
        let (folder, log, reader) = followed(5);
        write(&log, 6..=13);
        drop(log);
        let (files, segment) = (Folder(folder.path()), Folder(folder.path()).segment(2));
        assert_eq!(files.active(), 2, "and it has groups");
        let readable = usize::try_from(files.header(2).first_position.0 - 1).expect("few events");
        remove_if_there(&files.segment(3));
        if is_lost {
            remove(&segment);
        } else {
            flip(&segment, 20);
        }
        tells_of_damage(&reader, readable, &["segment 2"]);
    }
}

#[test]
fn a_segment_of_a_newer_format_is_an_error_not_silence() {
    let (folder, log, reader) = followed(5);
    write(&log, 6..=40);
    drop(log);
    change(&Folder(folder.path()).segment(2), |bytes| {
        bytes[8] = 2;
        let sum = crc64(&bytes[..4_088]);
        bytes[4_088..4_096].copy_from_slice(&sum.to_le_bytes());
    });
    let error = reader.refresh().expect_err("it cannot be read");
    says(&error.to_string(), &["segment 2", "format 2", "up to 1"]);
}

#[test]
fn segments_that_are_left_behind_are_served_from_their_index_files() {
    let (_folder, log, reader) = followed(1);
    for id in 2..=200 {
        write(&log, id..=id);
        reader.refresh().expect("the disk is sound");
    }
    let segments = reader.log().shared().segments.snapshot();
    assert!(segments.len() > 10, "{} segments", segments.len());
    let live = segments.iter().filter(|segment| !segment.is_indexed()).count();
    assert!(live <= 4, "{live} of {} segments are held in memory", segments.len());
    let (records, error) = read_all(&reader);
    assert_eq!(error, None);
    assert!(records.len() >= 199);
}

/// Each look reads far more than the event that has come; only the event may stay in memory.
#[test]
fn a_trickle_of_events_takes_no_more_memory_than_they_are() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options::default().with_segment_bytes(64 << 20);
    let log = Embedded::open(folder.path(), options.clone()).expect("a new log");
    write(&log, 1..=1);
    let reader = Embedded::open_read_only(folder.path(), options).expect("the log can be read");
    let before = memory_bytes();
    for id in 2..=100 {
        write(&log, id..=id);
        reader.refresh().expect("the disk is sound");
    }
    let more = memory_bytes().saturating_sub(before);
    assert!(more < 32 << 20, "{more} bytes for 100 events");
}

fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has a size");
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kib.expect("a number") << 10
}
