//! What `verify` says of a log: beside a writer, on a bad disk, behind damage.

use std::path::Path;
use std::sync::Arc;

use quipu_engine::format::group::GroupHeader;
use quipu_engine::storage::{index_name, segment_name};
use quipu_engine::{
    Access, Backend, DiskStorage, LogOptions, Mapping, OpenError, Storage, VerifyReport, verify,
};
use quipu_tests::events::event;
use quipu_tests::faulty_disk::{Faults, FaultyDisk};
use quipu_tests::filled_log::{ENDS, EVENTS, filled, goes_on, open};
use quipu_tests::memory_disk::MemoryDisk;
use quipu_tests::stepped_log::SteppedLog;
use quipu_tests::tamper::{Folder, bytes, flip, remove, write};
use quipu_types::{AggregateKey, Append};

/// Segments of a few events each.
fn options() -> LogOptions {
    let mut options = LogOptions { segment_bytes: 32 * 1024, ..LogOptions::default() };
    options.limits.append_bytes_max = 8 * 1024;
    options.limits.event_bytes_max = 4 * 1024;
    options
}

/// A log that is written to, and how many events it has.
struct Writer {
    log: SteppedLog,
    events: u64,
}

impl Writer {
    fn open(disk: &MemoryDisk) -> Self {
        let log = SteppedLog::open(disk.environment(), options()).expect("the log opens");
        Self { log, events: 0 }
    }

    fn append(&mut self) {
        self.events += 1;
        let key = AggregateKey::new("Call", (self.events % 5).to_string());
        self.log.append_each(&[Append::any(vec![event(self.events.into(), &key, "Created")])]);
    }

    fn segments(&self) -> usize {
        self.log.log().segments().expect("the folder is there").len()
    }

    /// Appends until the segment that is active now is sealed.
    fn roll(&mut self) {
        let before = self.segments();
        while self.segments() == before {
            self.append();
        }
    }
}

fn storage(disk: &MemoryDisk) -> Arc<dyn Storage> {
    disk.environment().storage
}

fn is_sound(report: &VerifyReport) {
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert!(report.indexes.is_empty() && report.runs.is_empty(), "{report:?}");
}

// Beside a writer.

#[test]
fn a_writer_that_seals_whatever_is_being_checked_is_no_damage() {
    let disk = MemoryDisk::default();
    let mut writer = Writer::open(&disk);
    (0..3).for_each(|_| writer.roll());
    for deep in [false, true] {
        let storage = storage(&disk);
        let report = verify(&storage, deep, &mut |_| writer.roll()).expect("there is a log");
        is_sound(&report);
        assert!(report.segments >= 4, "{report:?}");
    }
}

#[test]
fn an_index_that_a_writer_saves_meanwhile_is_not_missing() {
    let disk = MemoryDisk::default();
    let mut writer = Writer::open(&disk);
    (0..3).for_each(|_| writer.roll());
    let name = index_name(3);
    let index = disk.content(&name);
    disk.remove(&name).expect("it is there");
    let storage = storage(&disk);
    let report = verify(&storage, true, &mut |_| ()).expect("there is a log");
    assert_eq!(report.indexes.iter().map(|it| it.0).collect::<Vec<_>>(), [3], "{report:?}");
    let mut segments = 0;
    let mut save_late = |_| {
        segments += 1;
        if segments == 4 {
            disk.put(&name, &index);
        }
    };
    is_sound(&verify(&storage, true, &mut save_late).expect("there is a log"));
    disk.remove(&name).expect("it is there");
    let mut save_another = |_| disk.put(&name, b"another");
    let report = verify(&storage, true, &mut save_another).expect("there is a log");
    assert_eq!(report.indexes.len(), 1, "{report:?}");
}

#[test]
fn a_file_that_is_missing_behind_a_sealed_segment_is_damage() {
    let disk = MemoryDisk::default();
    let mut writer = Writer::open(&disk);
    (0..3).for_each(|_| writer.roll());
    writer.log.close();
    let active = segment_name(4);
    disk.remove(&active).expect("it is there");
    let spare = segment_name(5);
    if disk.names().contains(&spare) {
        disk.remove(&spare).expect("it is there");
    }
    let report = verify(&storage(&disk), false, &mut |_| ()).expect("there is a log");
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].segment, 4);
    assert!(report.damage[0].problem.contains("missing"), "{report:?}");
}

// On a bad disk.

/// Checks the filled log where these places of its files cannot be read.
fn on_a_bad_disk(places: &[(String, std::ops::Range<u64>)]) -> VerifyReport {
    let folder = filled();
    let faults = Arc::new(Faults::default());
    for (name, place) in places {
        faults.make_unreadable(name, place.clone());
    }
    let disk = DiskStorage::open(folder.path(), Access::ReadOnly, Backend::Auto, Mapping::Read);
    let disk = FaultyDisk::new(disk.expect("the folder is there"), faults);
    let storage: Arc<dyn Storage> = Arc::new(disk);
    verify(&storage, true, &mut |_| ()).expect("there is a log")
}

fn place_of(number: u64, group: &GroupHeader) -> (String, std::ops::Range<u64>) {
    (segment_name(number), group.offset..group.offset + 512)
}

#[test]
fn what_cannot_be_read_is_named_and_everything_else_is_checked() {
    let folder = filled();
    let folder = Folder(folder.path());
    let (two, three) = (folder.data_groups(2), folder.data_groups(3));
    let bad = [place_of(2, &two[3]), place_of(2, &two[7]), place_of(3, &three[2])];
    let report = on_a_bad_disk(&bad);
    let (sealed, active): (Vec<_>, Vec<_>) = report
        .damage
        .iter()
        .filter(|it| it.problem.contains("bad sector"))
        .partition(|it| it.segment == 2);
    let positions: Vec<_> = sealed.iter().map(|it| (it.first, it.last)).collect();
    let lost = [two[3].first_position, two[7].first_position];
    assert_eq!(positions, lost.map(|it| (it, it)), "{report:?}");
    for (damage, group) in sealed.iter().zip([&two[3], &two[7]]) {
        let place = format!("at offset {}: 4096 bytes cannot be read", group.offset);
        assert!(damage.problem.contains(&place), "{damage}");
    }
    assert_eq!(active.len(), 1, "{report:?}");
    assert_eq!((active[0].segment, active[0].first), (3, three[2].first_position));
    // All but the two, and what stands behind the third in the active segment.
    assert_eq!(report.events, EVENTS - 2 - (three.len() as u64 - 2));
    assert_eq!((report.segments, report.unproven_bytes), (3, 0));
}

#[test]
fn what_cannot_be_read_behind_the_end_of_the_active_segment_is_named() {
    let bad = (segment_name(3), 60 * 1024..64 * 1024);
    let report = on_a_bad_disk(&[bad]);
    assert_eq!((report.damage.len(), report.events), (1, EVENTS), "{report:?}");
    assert!(report.damage[0].problem.contains("at offset 61440"), "{report:?}");
}

#[test]
fn an_index_that_cannot_be_read_is_no_damage() {
    let report = on_a_bad_disk(&[(index_name(1), 0..1)]);
    assert_eq!((report.damage.len(), report.indexes.len()), (0, 1), "{report:?}");
    assert!(report.indexes[0].1.contains("bad sector"), "{report:?}");
}

fn checked(folder: &Path) -> Result<VerifyReport, OpenError> {
    let disk = DiskStorage::open(folder, Access::ReadOnly, Backend::Auto, Mapping::Read);
    let storage: Arc<dyn Storage> = Arc::new(disk.expect("the folder is there"));
    verify(&storage, true, &mut |_| ())
}

// Behind a break of the chain.

/// Checks the filled log after its folder was changed: what is damaged, by segment and positions.
fn changed(change: impl FnOnce(&Folder<'_>)) -> (VerifyReport, Vec<(u64, u64, u64)>) {
    let folder = filled();
    change(&Folder(folder.path()));
    let report = checked(folder.path()).expect("there is a log");
    let places = report.damage.iter().map(|it| (it.segment, it.first.0, it.last.0)).collect();
    (report, places)
}

#[test]
fn segments_behind_a_lost_header_are_checked() {
    let lost = [(2, ENDS[0] + 1, ENDS[1])];
    let (report, places) = changed(|folder| flip(&folder.segment(2), 20));
    assert_eq!(places, lost, "{report:?}");
    assert_eq!((report.segments, report.events), (2, EVENTS - (ENDS[1] - ENDS[0])));
    let (report, places) = changed(|folder| remove(&folder.segment(2)));
    assert_eq!((places, report.segments), (lost.to_vec(), 2));
    let (report, places) = changed(|folder| flip(&folder.segment(1), 20));
    assert_eq!((places, report.segments), (vec![(1, 1, ENDS[0])], 2));
    let of_three = |folder: &Folder<'_>| folder.data_groups(3)[2];
    let (report, places) = changed(|folder| {
        flip(&folder.segment(2), 20);
        let at = usize::try_from(of_three(folder).offset).expect("a small segment");
        flip(&folder.segment(3), at + 24);
    });
    let [first, second] = places.as_slice() else { panic!("{report:?}") };
    assert_eq!((first, second.0, second.1), (&lost[0], 3, ENDS[1] + 3), "{report:?}");
}

#[test]
fn a_header_that_cannot_be_read_is_damage_and_the_segments_behind_it_are_checked() {
    for number in 1..=3 {
        let report = on_a_bad_disk(&[(segment_name(number), 0..512)]);
        assert_eq!((report.damage.len(), report.segments), (1, 2), "{report:?}");
        assert_eq!(report.damage[0].segment, number);
        assert!(report.damage[0].problem.contains("bad sector"), "{report:?}");
    }
}

#[test]
fn a_seal_that_does_not_fit_costs_nothing_else() {
    let (report, places) = changed(|folder| {
        let seal = folder.groups(2).last().expect("SEAL").offset;
        flip(&folder.segment(2), usize::try_from(seal).expect("a small segment") + 24);
    });
    assert_eq!(places, [(3, ENDS[1] + 1, ENDS[1] + 1)], "{report:?}");
    assert_eq!((report.segments, report.events), (3, EVENTS));
}

#[test]
fn a_segment_of_another_log_is_damage_with_and_without_the_marker() {
    let other = tempfile::tempdir().expect("a temporary folder");
    goes_on(&open(other.path()).expect("a new log"), 0);
    let other = bytes(&Folder(other.path()).segment(2));
    for has_marker in [true, false] {
        let (report, places) = changed(|folder| {
            write(&folder.segment(2), &other);
            if !has_marker {
                remove(&folder.0.join("LOG"));
            }
        });
        assert_eq!(places, [(2, ENDS[0] + 1, ENDS[1])], "{report:?}");
        assert!(report.damage[0].problem.contains("belongs to log"), "{report:?}");
    }
    let (report, places) = changed(|folder| write(&folder.segment(3), &other));
    assert_eq!(places, [(3, ENDS[1] + 1, u64::MAX)], "{report:?}");
}

#[test]
fn a_log_whose_only_segment_has_no_header_is_damaged_and_without_the_marker_it_is_none() {
    for rest in [Vec::new(), vec![0; 64 * 1024], vec![0x55; 64 * 1024]] {
        let wipe = |folder: &Folder<'_>| {
            (2..=3).for_each(|it| remove(&folder.segment(it)));
            write(&folder.segment(1), &rest);
        };
        let (report, places) = changed(wipe);
        assert_eq!(places, [(1, 1, u64::MAX)], "{report:?}");
        assert!(report.damage[0].problem.contains("no valid header"), "{report:?}");
        let folder = filled();
        wipe(&Folder(folder.path()));
        remove(&folder.path().join("LOG"));
        let error = checked(folder.path()).expect_err("its creation was interrupted");
        assert!(matches!(error, OpenError::NoLog), "{error}");
    }
}

#[test]
fn a_log_without_segments_is_damaged() {
    let (report, places) = changed(|folder| (1..=3).for_each(|it| remove(&folder.segment(it))));
    assert_eq!(places, [(1, 1, u64::MAX)], "{report:?}");
}
