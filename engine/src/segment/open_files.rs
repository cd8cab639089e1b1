//! Files of sealed segments that are open for reading: a few, for a log may have more segments than
//! a process may have open files.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::{Storage, StorageFile, segment_name};

/// Files that are kept open; the one that was needed longest ago is closed for another.
const FILES_MAX: usize = 32;

/// The files of sealed segments that were read from last.
pub struct OpenFiles {
    storage: Arc<dyn Storage>,
    /// By number of the segment, the latest first.
    files: Mutex<VecDeque<(u64, Arc<dyn StorageFile>)>>,
}

impl OpenFiles {
    /// None yet.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, files: Mutex::default() }
    }

    /// The file of a sealed segment, to be read here and there.
    ///
    /// # Errors
    /// That it cannot be opened.
    pub fn of_segment(&self, number: u64) -> io::Result<Arc<dyn StorageFile>> {
        if let Some(file) = self.take_out(number) {
            self.put(number, &file);
            return Ok(file);
        }
        // Opened under no lock: two may do so at once, and one of them is dropped.
        let file = self.storage.open_cached(&segment_name(number))?;
        self.take_out(number);
        self.put(number, &file);
        Ok(file)
    }

    fn take_out(&self, number: u64) -> Option<Arc<dyn StorageFile>> {
        let mut files = self.files.lock();
        let at = files.iter().position(|(open, _)| *open == number)?;
        files.remove(at).map(|(_, file)| file)
    }

    fn put(&self, number: u64, file: &Arc<dyn StorageFile>) {
        let mut files = self.files.lock();
        files.push_front((number, Arc::clone(file)));
        let kept = files.len().min(FILES_MAX);
        let closed = files.split_off(kept);
        drop(files);
        drop(closed);
    }
}
