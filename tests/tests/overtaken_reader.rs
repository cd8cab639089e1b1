//! Readers that a writer overtakes: what they look at changes between two of their looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quipu_client::MemoryStorage;
use quipu_engine::storage::segment_name;
use quipu_engine::{EventLog, LogOptions, Storage, verify};
use quipu_tests::events::event;
use quipu_tests::faulty_disk::{Faults, FaultyDisk, Look};
use quipu_tests::memory_disk::{MemoryDisk, environment};
use quipu_tests::stepped_log::SteppedLog;
use quipu_types::{AggregateKey, Append};

fn options() -> LogOptions {
    let mut options = LogOptions { segment_bytes: 32 * 1024, ..LogOptions::default() };
    options.limits.append_bytes_max = 8 * 1024;
    options.limits.event_bytes_max = 4 * 1024;
    options
}

/// A log of a few segments, closed in order; which of them is active.
fn filled() -> (MemoryDisk, u64) {
    let disk = MemoryDisk::default();
    let log = SteppedLog::open(disk.environment(), options()).expect("a new log");
    for number in 1..=20_u64 {
        let appended = event(number.into(), &AggregateKey::new("Call", "1"), "Created");
        log.append_each(&[Append::any(vec![appended])]);
    }
    let active = log.log().segments().expect("the folder is there").len() as u64;
    assert!(active > 2, "{active} segments");
    log.close();
    (disk, active)
}

/// Opens the log for reading and verifies it, each on a copy of the disk to which a writer does
/// something before each look: neither finds damage.
fn is_sound(disk: &MemoryDisk, set_writer: impl Fn(MemoryDisk, &Faults), what: &str) {
    let overtaken = || {
        let (disk, faults) = (disk.copy(), Arc::new(Faults::default()));
        let storage = MemoryStorage::clone(&disk);
        set_writer(disk, &faults);
        Arc::new(FaultyDisk::new(storage, faults))
    };
    let log = EventLog::open_read_only(environment(overtaken(), Arc::default()), options());
    let log = log.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(log.recovery_report().damage, None, "{what}");
    let storage: Arc<dyn Storage> = overtaken();
    let report = verify(&storage, false, &mut |_| ()).unwrap_or_else(|it| panic!("{what}: {it}"));
    assert!(report.damage.is_empty(), "{what}: {:?}", report.damage);
}

#[test]
fn a_segment_that_is_activated_between_two_looks_at_it_is_no_damage() {
    let (disk, active) = filled();
    let name = segment_name(active);
    let content = disk.content(&name);
    disk.put(&name, &vec![0; content.len()]);
    for looks in 1..=12 {
        let activate = |disk: MemoryDisk, faults: &Faults| {
            let (name, content, left) = (name.clone(), content.clone(), AtomicUsize::new(looks));
            faults.before_each_look(move |look, file| {
                if look == Look::Read && file == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    let file = disk.open(&name).expect("it is there");
                    file.write_durable(0, &content).expect("memory takes everything");
                }
            });
        };
        is_sound(&disk, activate, &format!("before look {looks}"));
    }
}

#[test]
fn a_next_file_that_goes_between_two_looks_at_it_is_not_there() {
    let (disk, active) = filled();
    let spare = segment_name(active + 1);
    disk.put(&spare, &vec![0; 32 * 1024]);
    let remove = |disk: MemoryDisk, faults: &Faults| {
        let spare = spare.clone();
        faults.before_each_look(move |look, file| {
            if look == Look::Open && file == spare {
                disk.remove(&spare).ok();
            }
        });
    };
    is_sound(&disk, remove, "a writer without space");
}
