//! A folder in memory, for the tests of hosts: what is under a log there instead of a disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quipu_engine::format::zeroed_blocks;
use quipu_engine::storage::{
    FileEntry, GroupWrite, LockError, LockGuard, Space, Storage, StorageFile,
};

/// Files in memory, by their names.
#[derive(Default)]
pub(crate) struct MemoryStorage(Mutex<BTreeMap<String, Arc<MemoryFile>>>);

#[derive(Default)]
struct MemoryFile(Mutex<Vec<u8>>);

impl MemoryStorage {
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
            bytes: file.0.lock().len() as u64,
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

    fn map(&self, name: &str) -> io::Result<Bytes> {
        let file = self.file(name)?;
        let content = file.0.lock();
        let mut aligned = zeroed_blocks(content.len());
        aligned.copy_from_slice(&content);
        Ok(Bytes::from_owner(aligned))
    }

    fn write_atomic(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let file = Arc::new(MemoryFile(Mutex::new(content.to_vec())));
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
        Ok(self.0.lock().len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = self.0.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?.min(content.len());
        let read = buffer.len().min(content.len() - start);
        buffer[..read].copy_from_slice(&content[start..start + read]);
        Ok(read)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut content = self.0.lock();
        let grown = content.len().max(end);
        content.resize(grown, 0);
        content[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        let end = usize::try_from(end).map_err(io::Error::other)?;
        let mut content = self.0.lock();
        let grown = content.len().max(end);
        content.resize(grown, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
