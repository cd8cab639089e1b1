//! A disk that fails on command: its n-th call of a kind fails, or waits, or somebody changes what
//! is there before it is looked at.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use quipu_engine::storage::{
    FileEntry, GroupWrite, LockError, LockGuard, ReadOrder, Space, Storage, StorageFile,
};
use rustix::io::Errno;

use crate::patience::PATIENCE;

/// What the engine asks of a disk that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A group (or segment header) by `submit`.
    Submit,
    /// A plain write, such as zeros ahead of the head.
    Write,
    Allocate,
    Sync,
    SyncDir,
    Create,
    /// A file that is there is opened or mapped.
    Open,
    WriteAtomic,
    Space,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens but the error.
    Refused(io::ErrorKind),
    /// The first half is written, then the disk is said to have stopped.
    Short,
    /// Everything is written, yet an error is reported.
    WrittenButFailed,
    /// The process may have no more files open.
    OutOfFiles,
    /// The host's own storage has a bug.
    Panics,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Refused(kind) => io::Error::new(kind, "injected"),
            Self::Short => io::Error::new(io::ErrorKind::WriteZero, "injected short write"),
            Self::WrittenButFailed => io::Error::other("injected after the write"),
            Self::OutOfFiles => Errno::MFILE.into(),
            Self::Panics => resume_unwind(Box::new("injected panic")),
        }
    }

    /// How much of a write reaches the disk before it fails.
    fn written_of(self, bytes: usize) -> usize {
        match self {
            Self::Refused(_) | Self::OutOfFiles | Self::Panics => 0,
            Self::Short => (bytes / 2).next_multiple_of(4_096).min(bytes),
            Self::WrittenButFailed => bytes,
        }
    }
}

/// How a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Open,
    Read,
}

type BeforeLook = Arc<dyn Fn(Look, &str) + Send + Sync>;

/// The switchboard of a [`FaultyDisk`]. Calls are counted from the moment a fault is set.
#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: HashMap<Operation, Rule>,
    /// Places of files, by name, that cannot be read.
    unreadable: Vec<(String, Range<u64>)>,
    before_look: Option<BeforeLook>,
    paused: bool,
    waiting: usize,
}

struct Rule {
    passed_before: u64,
    for_ever: bool,
    fault: Fault,
}

impl Faults {
    /// The `nth` call from now on fails, once.
    pub fn fail_nth(&self, operation: Operation, nth: u64, fault: Fault) {
        self.set(operation, nth, false, fault);
    }

    /// Every call from now on fails, until [`Self::heal`].
    pub fn fail_all(&self, operation: Operation, fault: Fault) {
        self.set(operation, 1, true, fault);
    }

    fn set(&self, operation: Operation, nth: u64, for_ever: bool, fault: Fault) {
        let rule = Rule { passed_before: nth - 1, for_ever, fault };
        self.state.lock().rules.insert(operation, rule);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.unreadable.clear();
    }

    /// Reads that touch this place of a file fail, as they do at a bad sector.
    pub fn make_unreadable(&self, name: &str, place: Range<u64>) {
        self.state.lock().unreadable.push((name.to_owned(), place));
    }

    /// Done before each look at a file, by its name, as by a writer that overtakes a reader.
    pub fn before_each_look(&self, act: impl Fn(Look, &str) + Send + Sync + 'static) {
        self.state.lock().before_look = Some(Arc::new(act));
    }

    fn look(&self, look: Look, name: &str) {
        let act = self.state.lock().before_look.clone();
        if let Some(act) = act {
            act(look, name);
        }
    }

    fn check_readable(&self, name: &str, offset: u64, bytes: usize) -> io::Result<()> {
        let end = offset + bytes as u64;
        let is_hit = |(of, place): &(String, Range<u64>)| {
            of == name && place.start < end && offset < place.end
        };
        let is_bad = self.state.lock().unreadable.iter().any(is_hit);
        if is_bad { Err(io::Error::other("injected bad sector")) } else { Ok(()) }
    }

    /// Whether a fault that was to happen once still waits for its call.
    pub fn is_pending(&self, operation: Operation) -> bool {
        self.state.lock().rules.contains_key(&operation)
    }

    /// Group writes wait before they reach the disk, until [`Self::resume`].
    pub fn pause(&self) {
        self.state.lock().paused = true;
    }

    pub fn resume(&self) {
        self.state.lock().paused = false;
        self.changed.notify_all();
    }

    /// Blocks until so many group writes wait.
    pub fn wait_for_paused(&self, writes: usize) {
        let mut state = self.state.lock();
        while state.waiting < writes {
            let late = self.changed.wait_for(&mut state, PATIENCE).timed_out();
            assert!(!late, "{} of {writes} writes came to the disk", state.waiting);
        }
    }

    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state.lock();
        let rule = state.rules.get_mut(&operation)?;
        if rule.passed_before > 0 {
            rule.passed_before -= 1;
            return None;
        }
        let fault = rule.fault;
        if !rule.for_ever {
            state.rules.remove(&operation);
        }
        Some(fault)
    }

    fn check(&self, operation: Operation) -> io::Result<()> {
        self.next(operation).map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn wait_while_paused(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        while state.paused {
            self.changed.wait(&mut state);
        }
        state.waiting -= 1;
    }
}

thread_local! {
    /// A group's own write is told from other writes to the same file.
    static SUBMITTING: Cell<bool> = const { Cell::new(false) };
}

/// A disk behind a switchboard.
pub struct FaultyDisk {
    disk: Arc<dyn Storage>,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    #[must_use]
    pub fn new(disk: impl Storage + 'static, faults: Arc<Faults>) -> Self {
        Self::before(Arc::new(disk), faults)
    }

    #[must_use]
    pub fn before(disk: Arc<dyn Storage>, faults: Arc<Faults>) -> Self {
        Self { disk, faults }
    }

    fn wrap(&self, name: &str, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(FaultyFile { name: name.to_owned(), file, faults: Arc::clone(&self.faults) })
    }
}

impl Storage for FaultyDisk {
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
        self.faults.look(Look::Open, name);
        self.faults.check(Operation::Open)?;
        Ok(self.wrap(name, self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.faults.check(Operation::Create)?;
        Ok(self.wrap(name, self.disk.create(name)?))
    }

    fn open_cached(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.faults.check(Operation::Open)?;
        Ok(self.wrap(name, self.disk.open_cached(name)?))
    }

    fn map(&self, name: &str, order: ReadOrder) -> io::Result<Bytes> {
        self.faults.check(Operation::Open)?;
        let content = self.disk.map(name, order)?;
        self.faults.check_readable(name, 0, content.len())?;
        Ok(content)
    }

    fn write_atomic(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.faults.check(Operation::WriteAtomic)?;
        self.disk.write_atomic(name, content)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.faults.check(Operation::SyncDir)?;
        self.disk.sync_dir()
    }

    fn space(&self) -> io::Result<Space> {
        let space = self.disk.space()?;
        let free = self.faults.next(Operation::Space).map_or(space.free, |_| 0);
        Ok(Space { free, ..space })
    }

    fn submitters(&self, groups_in_flight: usize) -> usize {
        self.disk.submitters(groups_in_flight)
    }

    fn submit(&self, write: GroupWrite) -> Option<io::Result<()>> {
        let fault = self.faults.next(Operation::Submit);
        self.faults.wait_while_paused();
        SUBMITTING.set(true);
        let result = match fault {
            None => self.disk.submit(write),
            Some(fault) => Some(write_some(&*write.file, write.offset, &write.bytes, fault)),
        };
        SUBMITTING.set(false);
        result
    }

    fn quiesce(&self) {
        self.disk.quiesce();
    }
}

struct FaultyFile {
    name: String,
    file: Arc<dyn StorageFile>,
    faults: Arc<Faults>,
}

impl StorageFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.faults.look(Look::Read, &self.name);
        self.faults.check_readable(&self.name, offset, buffer.len())?;
        self.file.read(offset, buffer)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = if SUBMITTING.get() { None } else { self.faults.next(Operation::Write) };
        match fault {
            None => self.file.write_durable(offset, bytes),
            Some(fault) => write_some(&*self.file, offset, bytes, fault),
        }
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        self.faults.check(Operation::Allocate)?;
        self.file.allocate(end)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.check(Operation::Sync)?;
        self.file.sync()
    }
}

fn write_some(file: &dyn StorageFile, at: u64, bytes: &[u8], fault: Fault) -> io::Result<()> {
    let written = fault.written_of(bytes.len());
    if written > 0 {
        file.write_durable(at, &bytes[..written])?;
    }
    Err(fault.error())
}
