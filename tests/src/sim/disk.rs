//! A disk in memory that behaves as badly as segments-format.md §2 allows.
//!
//! Group writes are held until the simulation completes them, in any order. At a loss of power
//! each 512-byte sector of a write in flight is old, new or garbage; directory entries that were
//! not synced may be lost; space that was allocated and not written may be gone. A fuse takes the
//! power away in the middle of any operation; a fault lets any one fail.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use quipu_engine::format::BlockBuffer;
use quipu_engine::storage::{
    FileEntry, FileKind, GroupWrite, LockError, LockGuard, ReadOrder, Space, Storage, StorageFile,
};

mod content;
mod file;
mod operation;
mod rot;

use content::{Content, FileState};
use file::SimFile;
use operation::Operation;
pub use operation::{Defect, IoFault, UNREADABLE};

const PLENTY: u64 = 1 << 40;

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    files: BTreeMap<String, Content>,
    /// The files as the directory on the medium has them.
    durable_names: BTreeMap<String, Content>,
    in_flight: Vec<GroupWrite>,
    rng: Rng,
    /// Operations until the power goes off in the middle of one.
    fuse: Option<u64>,
    /// The n-th operation from now fails so.
    fault: Option<(u64, IoFault)>,
    faults_met: u64,
    powered: bool,
    /// What was under way when the power went off.
    interrupted: Option<&'static str>,
    /// How far the writes under way come.
    reach: Reach,
    free: u64,
    defect: Option<Defect>,
    operations: u64,
    changes: u64,
}

/// How far a write comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Onto the medium.
    Medium,
    /// Into the disk's cache.
    Cache,
    /// Into the disk's cache, with some of its sectors: its process has died.
    Partly,
    /// Anywhere: the power is gone.
    Torn,
}

impl SimDisk {
    pub fn new(seed: u64, defect: Option<Defect>) -> Self {
        let state = State {
            files: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            in_flight: Vec::new(),
            rng: Rng::with_seed(seed),
            fuse: None,
            fault: None,
            faults_met: 0,
            powered: true,
            interrupted: None,
            reach: Reach::Medium,
            free: PLENTY,
            defect,
            operations: 0,
            changes: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The power goes off in the middle of the n-th operation from now that changes anything.
    pub fn set_fuse(&self, operations: Option<u64>) {
        self.state.lock().fuse = operations;
    }

    /// The n-th operation from now fails.
    pub fn set_fault(&self, fault: Option<(u64, IoFault)>) {
        self.state.lock().fault = fault;
    }

    /// There is no space, or there is again.
    pub fn set_full(&self, full: bool) {
        self.state.lock().free = if full { 0 } else { PLENTY };
    }

    pub fn is_full(&self) -> bool {
        self.state.lock().free == 0
    }

    /// Operations that were made to fail so far.
    pub fn faults_met(&self) -> u64 {
        self.state.lock().faults_met
    }

    pub fn is_powered(&self) -> bool {
        self.state.lock().powered
    }

    /// Operations so far, and those of them that change anything.
    pub fn operations(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.operations, state.changes)
    }

    pub fn in_flight(&self) -> usize {
        self.state.lock().in_flight.len()
    }

    /// Completes the `index`th write in flight.
    pub fn complete(&self, index: usize) {
        let (write, defect) = {
            let mut state = self.state.lock();
            (state.in_flight.swap_remove(index), state.defect)
        };
        let result = match defect {
            Some(Defect::LiesAboutFlush) => self.write(&write, Reach::Cache),
            _ => write.file.write_durable(write.offset, &write.bytes),
        };
        let result = match defect {
            // The flush is tried again and succeeds; what it should have flushed was dropped.
            Some(Defect::RetriesFailedFlush) if self.is_powered() => {
                result.or_else(|_| self.write(&write, Reach::Cache))
            }
            _ => result,
        };
        write.done.complete(result);
    }

    fn write(&self, write: &GroupWrite, reach: Reach) -> io::Result<()> {
        self.state.lock().reach = reach;
        let result = write.file.write_durable(write.offset, &write.bytes);
        self.state.lock().reach = Reach::Medium;
        result
    }

    /// What a crash now would interrupt.
    pub fn moment(&self) -> &'static str {
        let state = self.state.lock();
        let header_or_mark = |write: &GroupWrite| match operation::name(write.offset, &write.bytes)
        {
            "group" => None,
            other => Some(other),
        };
        match (state.interrupted, state.in_flight.as_slice()) {
            (Some(interrupted), _) => interrupted,
            (None, []) => "nothing",
            (None, writes) if writes.len() > 1 => "several groups",
            (None, [write, ..]) => header_or_mark(write).unwrap_or("group"),
        }
    }

    /// The process dies: sectors of its writes in flight have reached the disk's cache, or not.
    pub fn kill(&self) {
        for write in self.take_in_flight() {
            self.write(&write, Reach::Partly).ok();
        }
    }

    /// Takes the power away: every write in flight is torn, and what was not synced may be lost.
    pub fn crash(&self) {
        let in_flight = self.take_in_flight();
        self.state.lock().powered = false;
        for write in in_flight {
            let torn = self.write(&write, Reach::Torn);
            assert!(torn.is_err(), "without power nothing is written whole");
        }
        let mut state = self.state.lock();
        state.lose_names();
        let State { durable_names, rng, .. } = &mut *state;
        for content in durable_names.values() {
            content.lock().lose_cache(rng);
        }
        state.files = state.durable_names.clone();
    }

    fn take_in_flight(&self) -> Vec<GroupWrite> {
        std::mem::take(&mut self.state.lock().in_flight)
    }

    /// The power is back.
    pub fn power_on(&self) {
        let mut state = self.state.lock();
        (state.powered, state.interrupted) = (true, None);
    }

    /// Nothing will go wrong until planned again.
    pub fn calm(&self) {
        let mut state = self.state.lock();
        (state.fuse, state.fault, state.free) = (None, None, PLENTY);
    }

    /// Deletes every index file, as an operator may.
    pub fn delete_indexes(&self) {
        let is_index =
            |name: &str| matches!(FileKind::of(name), FileKind::Index(_) | FileKind::Run(..));
        let mut state = self.state.lock();
        state.files.retain(|name, _| !is_index(name));
        state.durable_names.retain(|name, _| !is_index(name));
    }

    fn operate(&self, operation: Operation, what: &'static str) -> io::Result<()> {
        self.state.lock().operate(operation, || what)
    }
}

impl State {
    /// Counts an operation: it may fail, and the power may go off in the middle of it.
    fn operate(
        &mut self,
        operation: Operation,
        what: impl FnOnce() -> &'static str,
    ) -> io::Result<()> {
        if !self.powered {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        self.changes += u64::from(operation.changes());
        if let Some((left, fault)) = &mut self.fault {
            if *left == 0 {
                let error = fault.error(operation);
                self.fault = None;
                self.faults_met += 1;
                return Err(error);
            }
            *left -= 1;
        }
        match &mut self.fuse {
            Some(0) if operation.changes() => {
                (self.powered, self.fuse, self.interrupted) = (false, None, Some(what()));
                Err(io::Error::other("the power went off"))
            }
            Some(left) if operation.changes() => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A crash keeps or loses each directory change that was not synced.
    fn lose_names(&mut self) {
        let all: Vec<String> =
            self.files.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in all {
            let (now, before) = (self.files.get(&name), self.durable_names.get(&name));
            let is_same = match (now, before) {
                (Some(now), Some(before)) => Arc::ptr_eq(now, before),
                _ => false,
            };
            if is_same || self.rng.bool() {
                continue;
            }
            match now {
                Some(content) => self.durable_names.insert(name, Arc::clone(content)),
                None => self.durable_names.remove(&name),
            };
        }
    }
}

impl Storage for SimDisk {
    fn describe(&self) -> String {
        "simulated disk".to_owned()
    }

    fn lock(&self) -> Result<LockGuard, LockError> {
        Ok(Box::new(()))
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.operate(Operation::Read, "listing")?;
        let state = self.state.lock();
        let entry = |(name, content): (&String, &Content)| FileEntry {
            name: name.clone(),
            bytes: content.lock().bytes.len() as u64,
        };
        Ok(state.files.iter().map(entry).collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.operate(Operation::Read, "opening")?;
        let content = self.state.lock().files.get(name).cloned();
        let content = content.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Arc::new(SimFile { disk: self.clone(), content }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.operate(Operation::Make, "creating a file")?;
        let content = Content::default();
        let mut state = self.state.lock();
        if state.files.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        state.files.insert(name.to_owned(), Arc::clone(&content));
        drop(state);
        Ok(Arc::new(SimFile { disk: self.clone(), content }))
    }

    fn open_cached(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.open(name)
    }

    fn map(&self, name: &str, _: ReadOrder) -> io::Result<Bytes> {
        self.operate(Operation::Read, "mapping")?;
        let state = self.state.lock();
        let content = state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let mut copy = BlockBuffer::new();
        copy.extend_from_slice(&content.lock().bytes);
        Ok(Bytes::from_owner(copy))
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = |bytes: &[u8]| Arc::new(Mutex::new(FileState::durable(bytes.to_vec())));
        if let Err(error) = state.operate(Operation::Make, || operation::name_of_file(name)) {
            // In the middle of it: nothing, a temporary file, or the whole of it.
            match state.rng.u8(0..3) {
                0 => {}
                1 => {
                    let half = content(&bytes[..state.rng.usize(0..=bytes.len())]);
                    let name = format!("{name}.tmp");
                    state.files.insert(name.clone(), Arc::clone(&half));
                    state.durable_names.insert(name, half);
                }
                _ => {
                    let whole = content(bytes);
                    state.files.insert(name.to_owned(), Arc::clone(&whole));
                    state.durable_names.insert(name.to_owned(), whole);
                }
            }
            return Err(error);
        }
        let content = content(bytes);
        state.files.insert(name.to_owned(), Arc::clone(&content));
        state.durable_names.insert(name.to_owned(), content);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate(Operation::Change, || operation::name_of_file(to))?;
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate(Operation::Change, "removing a file")?;
        let removed = self.state.lock().files.remove(name);
        removed.map(|_| ()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.operate(Operation::Change, "syncing the folder")?;
        let mut state = self.state.lock();
        if state.defect != Some(Defect::SkipsDirectorySync) {
            state.durable_names = state.files.clone();
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        self.operate(Operation::Read, "measuring space")?;
        Ok(Space { free: self.state.lock().free, total: PLENTY })
    }

    fn submitters(&self, _: usize) -> usize {
        1
    }

    fn submit(&self, write: GroupWrite) -> Option<io::Result<()>> {
        if self.state.lock().defect == Some(Defect::AcknowledgesBeforeFlush) {
            return Some(self.submit_and_say_done(write));
        }
        self.state.lock().in_flight.push(write);
        None
    }
}

impl SimDisk {
    /// The write is in the cache, and is made durable when the simulation completes it; the
    /// engine is told that it is durable now.
    fn submit_and_say_done(&self, write: GroupWrite) -> io::Result<()> {
        struct Nobody;
        impl quipu_engine::storage::CompletionSink for Nobody {
            fn completed(&self, _: u64, _: io::Result<()>) {}
        }
        self.write(&write, Reach::Cache)?;
        let done = quipu_engine::storage::Completion::new(write.done.ticket(), Arc::new(Nobody));
        self.state.lock().in_flight.push(GroupWrite { done, ..write });
        Ok(())
    }
}
