//! A disk in memory that behaves at a crash as badly as segments-format.md §2 allows.
//!
//! Group writes are held until the simulation completes them, in any order. At a crash each
//! 512-byte sector of a write in flight is old, new or garbage; directory entries that were not
//! synced may be lost; space that was allocated and not written may be gone. A countdown crashes
//! in the middle of any operation.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use quipu_engine::storage::{
    FileEntry, FileKind, GroupWrite, LockError, LockGuard, Space, Storage, StorageFile,
};

const SECTOR: usize = 512;
const BLOCK: usize = 4_096;

/// What the disk does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It reports group writes durable that stay in its cache.
    LyingFlush,
    /// It reports a synced folder that is not.
    NoDirectorySync,
}

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
    /// The n-th operation from now fails with this error.
    failing: Option<(u64, io::ErrorKind)>,
    powered: bool,
    /// Writes are torn instead of made: the crash is under way.
    tearing: bool,
    free: u64,
    fault: Fault,
    operations: u64,
}

/// A file's bytes, shared by all names and handles of it.
type Content = Arc<Mutex<FileState>>;

#[derive(Default)]
struct FileState {
    bytes: Vec<u8>,
    /// Length that a crash cannot take back.
    durable_length: usize,
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        let state = State {
            files: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            in_flight: Vec::new(),
            rng: Rng::with_seed(seed),
            fuse: None,
            failing: None,
            powered: true,
            tearing: false,
            free: 1 << 40,
            fault: Fault::None,
            operations: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The power goes off in the middle of the n-th operation from now.
    pub fn set_fuse(&self, operations: Option<u64>) {
        self.state.lock().fuse = operations;
    }

    /// The n-th operation from now fails, and does nothing.
    pub fn fail_after(&self, operations: Option<(u64, io::ErrorKind)>) {
        self.state.lock().failing = operations;
    }

    pub fn set_fault(&self, fault: Fault) {
        self.state.lock().fault = fault;
    }

    pub fn set_free(&self, bytes: u64) {
        self.state.lock().free = bytes;
    }

    pub fn is_powered(&self) -> bool {
        self.state.lock().powered
    }

    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    pub fn in_flight(&self) -> usize {
        self.state.lock().in_flight.len()
    }

    /// Completes the `index`th write in flight.
    pub fn complete(&self, index: usize) {
        let (write, fault) = {
            let mut state = self.state.lock();
            (state.in_flight.swap_remove(index), state.fault)
        };
        let result = match fault {
            Fault::LyingFlush => Ok(()),
            Fault::None | Fault::NoDirectorySync => {
                write.file.write_durable(write.offset, &write.bytes)
            }
        };
        write.done.complete(result);
    }

    /// Takes the power away: every write in flight is torn, and what was not synced may be lost.
    pub fn crash(&self) {
        let in_flight = {
            let mut state = self.state.lock();
            (state.powered, state.tearing) = (false, true);
            std::mem::take(&mut state.in_flight)
        };
        for write in &in_flight {
            let torn = write.file.write_durable(write.offset, &write.bytes);
            assert!(torn.is_err(), "without power nothing is written whole");
        }
        let mut state = self.state.lock();
        state.tearing = false;
        state.lose_names();
        let State { durable_names, rng, .. } = &mut *state;
        for content in durable_names.values() {
            let mut file = content.lock();
            if file.durable_length < file.bytes.len() && rng.bool() {
                let length = file.durable_length;
                file.bytes.truncate(length);
            }
        }
        state.files = state.durable_names.clone();
    }

    /// Gives the power back.
    pub fn power_on(&self) {
        let mut state = self.state.lock();
        (state.powered, state.fuse, state.failing) = (true, None, None);
        state.in_flight.clear();
    }

    /// Deletes every index file, as an operator may.
    pub fn delete_indexes(&self) {
        let mut state = self.state.lock();
        state.files.retain(|name, _| !is_index(name));
        state.durable_names.retain(|name, _| !is_index(name));
    }

    /// Damages one segment: flips a bit, loses a block, or puts another block of the file in its
    /// place (a misdirected write); says what and where.
    pub fn damage(&self) -> Option<String> {
        let mut state = self.state.lock();
        let State { files, rng, .. } = &mut *state;
        let names: Vec<&String> = files.keys().filter(|name| is_segment(name)).collect();
        let name = names.get(rng.usize(0..names.len().max(1)))?;
        let bytes = &mut files.get(*name)?.lock().bytes;
        let at = rng.usize(0..bytes.len().max(1));
        let block = at / BLOCK * BLOCK;
        let end = (block + BLOCK).min(bytes.len());
        let what = match rng.u8(0..4) {
            0 => {
                bytes[block..end].fill(0);
                "zeros in the block"
            }
            1 => {
                let from = rng.usize(0..bytes.len() / BLOCK) * BLOCK;
                let to = (from + end - block).min(bytes.len());
                bytes.copy_within(from..to, block);
                "another block in the place of the one"
            }
            _ => {
                *bytes.get_mut(at)? ^= 1 << rng.u8(0..8);
                "a flipped bit"
            }
        };
        Some(format!("{what} at {at} of {name}"))
    }

    fn handle(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let content = self.state.lock().files.get(name).cloned();
        let content = content.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Arc::new(SimFile { disk: self.clone(), content }))
    }
}

impl State {
    /// Counts an operation: it may fail, and the power may go off in the middle of it.
    fn operate(&mut self) -> io::Result<()> {
        if !self.powered {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        if let Some((left, kind)) = &mut self.failing {
            if *left == 0 {
                let kind = *kind;
                self.failing = None;
                return Err(io::Error::from(kind));
            }
            *left -= 1;
        }
        match &mut self.fuse {
            Some(0) => {
                self.powered = false;
                Err(io::Error::other("the power went off"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A crash keeps or loses each directory change that was not synced.
    fn lose_names(&mut self) {
        let all: Vec<String> =
            self.files.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in all {
            if self.rng.bool() {
                continue;
            }
            match self.files.get(&name) {
                Some(content) => self.durable_names.insert(name, Arc::clone(content)),
                None => self.durable_names.remove(&name),
            };
        }
    }
}

fn is_index(name: &str) -> bool {
    matches!(FileKind::of(name), FileKind::Index(_))
}

fn is_segment(name: &str) -> bool {
    matches!(FileKind::of(name), FileKind::Segment(_))
}

fn put(content: &Content, offset: u64, bytes: &[u8]) {
    let mut file = content.lock();
    let start = usize::try_from(offset).expect("small files");
    let end = start + bytes.len();
    if file.bytes.len() < end {
        file.bytes.resize(end, 0);
    }
    file.bytes[start..end].copy_from_slice(bytes);
}

fn harden(content: &Content, offset: u64, length: usize) {
    let mut file = content.lock();
    let end = usize::try_from(offset).expect("small files") + length;
    file.durable_length = file.durable_length.max(end);
}

/// Each sector is old, new or garbage.
fn tear(content: &Content, offset: u64, bytes: &[u8], rng: &mut Rng) {
    let start = usize::try_from(offset).expect("small files");
    let kind = rng.u8(0..4);
    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
        let at = (start + index * SECTOR) as u64;
        match (kind, rng.u8(0..8)) {
            // Some writes are lost or arrive whole, most are mixed.
            (0, _) | (2.., 0..4) => {}
            (1, _) | (2.., 4..7) => put(content, at, sector),
            (_, _) => put(content, at, &garbage(content, sector.len(), rng)),
        }
    }
}

/// Random bytes, or those of another sector of the file.
fn garbage(content: &Content, length: usize, rng: &mut Rng) -> Vec<u8> {
    let file = content.lock();
    let sectors = file.bytes.len() / SECTOR;
    if sectors > 0 && rng.bool() {
        let start = rng.usize(0..sectors) * SECTOR;
        return file.bytes[start..start + length.min(SECTOR)].to_vec();
    }
    (0..length).map(|_| rng.u8(..)).collect()
}

impl Storage for SimDisk {
    fn describe(&self) -> String {
        "simulated disk".to_owned()
    }

    fn lock(&self) -> Result<LockGuard, LockError> {
        Ok(Box::new(()))
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let state = self.state.lock();
        let entry = |(name, content): (&String, &Content)| FileEntry {
            name: name.clone(),
            bytes: content.lock().bytes.len() as u64,
        };
        Ok(state.files.iter().map(entry).collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.handle(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        {
            let mut state = self.state.lock();
            state.operate()?;
            if state.files.contains_key(name) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            state.files.insert(name.to_owned(), Content::default());
        }
        self.handle(name)
    }

    fn map(&self, name: &str) -> io::Result<Bytes> {
        let state = self.state.lock();
        let content = state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let mut copy = quipu_engine::format::BlockBuffer::new();
        copy.extend_from_slice(&content.lock().bytes);
        Ok(Bytes::from_owner(copy))
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = || {
            let length = bytes.len();
            Arc::new(Mutex::new(FileState { bytes: bytes.to_vec(), durable_length: length }))
        };
        if let Err(error) = state.operate() {
            // In the middle of it: nothing, a temporary file, or the whole of it.
            match state.rng.u8(0..3) {
                0 => {}
                1 => {
                    let half = bytes[..state.rng.usize(0..=bytes.len())].to_vec();
                    let half = FileState { durable_length: half.len(), bytes: half };
                    let name = format!("{name}.tmp");
                    state.durable_names.insert(name, Arc::new(Mutex::new(half)));
                }
                _ if !state.powered => {
                    state.durable_names.insert(name.to_owned(), content());
                }
                _ => {}
            }
            return Err(error);
        }
        let content = content();
        state.files.insert(name.to_owned(), Arc::clone(&content));
        state.durable_names.insert(name.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate()?;
        let removed = state.files.remove(name);
        removed.map(|_| ()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate()?;
        if state.fault != Fault::NoDirectorySync {
            state.durable_names = state.files.clone();
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let free = self.state.lock().free;
        Ok(Space { free, total: 1 << 41 })
    }

    fn submitters(&self, _: usize) -> usize {
        1
    }

    fn submit(&self, write: GroupWrite) -> Option<io::Result<()>> {
        self.state.lock().in_flight.push(write);
        None
    }
}

struct SimFile {
    disk: SimDisk,
    content: Content,
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.content.lock();
        let start = usize::try_from(offset).expect("small files").min(file.bytes.len());
        let length = buffer.len().min(file.bytes.len() - start);
        buffer[..length].copy_from_slice(&file.bytes[start..start + length]);
        Ok(length)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let was_powered = state.powered;
        let result = state.operate();
        if result.is_ok() {
            put(&self.content, offset, bytes);
            harden(&self.content, offset, bytes.len());
        } else if state.tearing || (was_powered && !state.powered) {
            tear(&self.content, offset, bytes, &mut state.rng);
        }
        result
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        self.disk.state.lock().operate()?;
        let mut file = self.content.lock();
        let end = usize::try_from(end).expect("small files");
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state.lock().operate()?;
        let mut file = self.content.lock();
        file.durable_length = file.bytes.len();
        Ok(())
    }
}
