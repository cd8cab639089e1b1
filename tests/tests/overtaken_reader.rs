//! Readers that a writer overtakes: what they look at changes between two of their looks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quipu_client::MemoryStorage;
use quipu_engine::storage::{
    FileEntry, GroupWrite, LockError, LockGuard, ReadOrder, Space, StorageFile, segment_name,
};
use quipu_engine::{EventLog, LogOptions, Storage, verify};
use quipu_tests::events::event;
use quipu_tests::memory_disk::{MemoryDisk, environment};
use quipu_tests::stepped_log::SteppedLog;
use quipu_types::{AggregateKey, Append};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Open,
    Read,
}

type Before = Arc<dyn Fn(Look, &str) + Send + Sync>;

/// A folder in memory to which somebody does something before each look at a file.
struct Overtaken {
    disk: MemoryStorage,
    before: Before,
}

impl Storage for Overtaken {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn lock(&self) -> Result<LockGuard, LockError> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        (self.before)(Look::Open, name);
        let (file, before) = (self.disk.open(name)?, Arc::clone(&self.before));
        Ok(Arc::new(OvertakenFile { name: name.to_owned(), file, before }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.disk.create(name)
    }

    fn open_cached(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.disk.open_cached(name)
    }

    fn map(&self, name: &str, order: ReadOrder) -> io::Result<Bytes> {
        self.disk.map(name, order)
    }

    fn write_atomic(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.disk.write_atomic(name, content)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn submitters(&self, groups_in_flight: usize) -> usize {
        self.disk.submitters(groups_in_flight)
    }

    fn submit(&self, write: GroupWrite) -> Option<io::Result<()>> {
        self.disk.submit(write)
    }
}

struct OvertakenFile {
    name: String,
    file: Arc<dyn StorageFile>,
    before: Before,
}

impl StorageFile for OvertakenFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (self.before)(Look::Read, &self.name);
        self.file.read(offset, buffer)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_durable(offset, bytes)
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        self.file.allocate(end)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

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

/// Opens the log for reading and verifies it, each on a copy of the disk, while `before` is done:
/// neither finds damage.
fn is_sound(disk: &MemoryDisk, before: impl Fn(MemoryDisk) -> Before, what: &str) {
    let overtaken = || {
        let disk = disk.copy();
        Arc::new(Overtaken { disk: MemoryStorage::clone(&disk), before: before(disk) })
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
        let activate = |disk: MemoryDisk| -> Before {
            let (name, content, left) = (name.clone(), content.clone(), AtomicUsize::new(looks));
            Arc::new(move |look, file| {
                if look == Look::Read && file == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    let file = disk.open(&name).expect("it is there");
                    file.write_durable(0, &content).expect("memory takes everything");
                }
            })
        };
        is_sound(&disk, activate, &format!("before look {looks}"));
    }
}

#[test]
fn a_next_file_that_goes_between_two_looks_at_it_is_not_there() {
    let (disk, active) = filled();
    let spare = segment_name(active + 1);
    disk.put(&spare, &vec![0; 32 * 1024]);
    let remove = |disk: MemoryDisk| -> Before {
        let spare = spare.clone();
        Arc::new(move |look, file| {
            if look == Look::Open && file == spare {
                disk.remove(&spare).ok();
            }
        })
    };
    is_sound(&disk, remove, "a writer without space");
}
