//! A folder in memory, for the tests of hosts and of the log: what is there instead of a disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use quipu_engine::format::zeroed_blocks;
use quipu_engine::storage::{
    FileEntry, GroupWrite, LockError, LockGuard, ReadOrder, Space, Storage, StorageFile,
};

/// A folder in memory. A clone is the same folder, [`Self::copy`] another one.
#[derive(Clone, Default)]
pub struct MemoryStorage(Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>);

/// Its content is shared with copies of the folder until one of them writes to it.
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

impl MemoryStorage {
    /// A folder with what is in this one now.
    #[must_use]
    pub fn copy(&self) -> Self {
        let share = |file: &Arc<MemoryFile>| MemoryFile::new(Arc::clone(&file.content.lock()));
        let files = self.0.lock();
        let copies = files.iter().map(|(name, file)| (name.clone(), share(file))).collect();
        Self(Arc::new(Mutex::new(copies)))
    }

    /// How many bytes of a file have been read since it was written whole, or copied.
    ///
    /// # Errors
    /// That there is no such file.
    pub fn bytes_read(&self, name: &str) -> io::Result<u64> {
        Ok(self.file(name)?.bytes_read.load(Ordering::Relaxed))
    }

    fn file(&self, name: &str) -> io::Result<Arc<MemoryFile>> {
        let file = self.0.lock().get(name).cloned();
        file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Storage for MemoryStorage {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> Result<LockGuard, LockError> {
        Ok(Box::new(()))
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let files = self.0.lock();
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
        let mut files = self.0.lock();
        if files.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let file = Arc::new(MemoryFile::default());
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open_cached(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.open(name)
    }

    fn map(&self, name: &str, _: ReadOrder) -> io::Result<Bytes> {
        let file = self.file(name)?;
        let content = file.content.lock();
        let mut aligned = zeroed_blocks(content.len());
        aligned.copy_from_slice(&content);
        file.note_read(content.len());
        Ok(Bytes::from_owner(aligned))
    }

    fn write_atomic(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let file = MemoryFile::new(Arc::new(content.to_vec()));
        self.0.lock().insert(name.to_owned(), file);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.0.lock().remove(name);
        removed.map(drop).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { free: u64::MAX, total: u64::MAX })
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
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut content = self.content.lock();
        let content = Arc::make_mut(&mut *content);
        content.resize(content.len().max(end), 0);
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
