//! What `verify` says of a log: beside a writer, on a bad disk, behind damage.

use std::sync::Arc;

use quipu_engine::storage::{index_name, segment_name};
use quipu_engine::{LogOptions, Storage, VerifyReport, verify};
use quipu_tests::events::event;
use quipu_tests::memory_disk::MemoryDisk;
use quipu_tests::stepped_log::SteppedLog;
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
    assert!(report.damage[0].problem.contains(&active), "{report:?}");
}
