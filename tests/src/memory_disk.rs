//! A log's folder in memory: for tests that open thousands of logs, each broken in its own way.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quipu_engine::format::zeroed_blocks;
use quipu_engine::storage::{FileEntry, GroupWrite, LockError, LockGuard, Space, StorageFile};
use quipu_engine::{Clock, Entropy, Environment, Storage};
use quipu_types::{Timestamp, Uuid};

/// Files in memory. A clone is the same folder, [`MemoryDisk::copy`] another one.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>,
}

/// Its content is shared with copies of the disk until one of them writes to it.
#[derive(Default)]
struct MemoryFile {
    content: Mutex<Arc<Vec<u8>>>,
    bytes_read: AtomicU64,
}

impl MemoryFile {
    fn new(content: Arc<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self { content: Mutex::new(content), bytes_read: AtomicU64::new(0) })
    }

    fn note_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl MemoryDisk {
    #[must_use]
    pub fn copy(&self) -> Self {
        let share = |file: &Arc<MemoryFile>| MemoryFile::new(file.content.lock().clone());
        let files = self.files.lock();
        let copies = files.iter().map(|(name, file)| (name.clone(), share(file))).collect();
        Self { files: Arc::new(Mutex::new(copies)) }
    }

    pub fn names(&self) -> Vec<String> {
        self.files.lock().keys().cloned().collect()
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        self.file(name).expect("the test names a file that is there").content.lock().to_vec()
    }

    /// How many bytes of a file have been read since it was written whole, or copied.
    pub fn bytes_read(&self, name: &str) -> u64 {
        let file = self.file(name).expect("the test names a file that is there");
        file.bytes_read.load(Ordering::Relaxed)
    }

    pub fn put(&self, name: &str, content: Vec<u8>) {
        self.files.lock().insert(name.to_owned(), MemoryFile::new(Arc::new(content)));
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.file(name).expect("the test names a file that is there");
        change(Arc::make_mut(&mut *file.content.lock()));
    }

    /// This disk with a clock and ids that are the same in every run.
    pub fn environment(&self) -> Environment {
        environment(Arc::new(self.clone()), Arc::new(SetClock::default()))
    }

    fn file(&self, name: &str) -> io::Result<Arc<MemoryFile>> {
        let file = self.files.lock().get(name).cloned();
        file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// A disk with a clock of the test's, and ids that are the same in every run.
pub fn environment(storage: Arc<dyn Storage>, clock: Arc<SetClock>) -> Environment {
    Environment { storage, clock, entropy: Arc::new(CountedIds::default()) }
}

/// A clock that stands still until the test sets it.
pub struct SetClock(AtomicI64);

impl Default for SetClock {
    fn default() -> Self {
        Self(AtomicI64::new(1_767_323_045_000_000))
    }
}

impl SetClock {
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// Ids that differ, in a fixed order.
#[derive(Default)]
pub struct CountedIds(AtomicU64);

impl Entropy for CountedIds {
    fn uuid(&self) -> Uuid {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        // Spread over all 16 bytes, so that a byte order that is wrong shows.
        Uuid::from_u128(u128::from(number) * 0x0123_4567_89ab_4def_8123_4567_89ab_cdef)
    }
}

impl Storage for MemoryDisk {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> Result<LockGuard, LockError> {
        Ok(Box::new(()))
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let files = self.files.lock();
        let entry = |(name, file): (&String, &Arc<MemoryFile>)| FileEntry {
            name: name.clone(),
            bytes: file.content.lock().len() as u64,
        };
        Ok(files.iter().map(entry).collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(name)?)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        if self.file(name).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.put(name, Vec::new());
        self.open(name)
    }

    fn open_cached(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.open(name)
    }

    fn map(&self, name: &str) -> io::Result<Bytes> {
        let file = self.file(name)?;
        let content = file.content.lock();
        let mut aligned = zeroed_blocks(content.len());
        aligned.copy_from_slice(&content);
        file.note_read(content.len());
        Ok(Bytes::from_owner(aligned))
    }

    fn write_atomic(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.put(name, content.to_vec());
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.files.lock().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.lock().insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.files.lock().remove(name);
        removed.map(drop).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { free: 1 << 40, total: 1 << 40 })
    }

    fn submitters(&self, groups_in_flight: usize) -> usize {
        groups_in_flight
    }

    fn submit(&self, write: GroupWrite) -> Option<io::Result<()>> {
        Some(write.file.write_durable(write.offset, &write.bytes))
    }
}

impl StorageFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = self.content.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?.min(content.len());
        let read = buffer.len().min(content.len() - start);
        self.note_read(read);
        buffer[..read].copy_from_slice(&content[start..start + read]);
        Ok(read)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content.lock();
        let content = Arc::make_mut(&mut *content);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        let end = usize::try_from(end).map_err(io::Error::other)?;
        let mut content = self.content.lock();
        if content.len() < end {
            Arc::make_mut(&mut *content).resize(end, 0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
