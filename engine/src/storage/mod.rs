//! The storage seam: everything the engine asks of a disk. Nothing else touches the file system.
//!
//! Two kinds of work go through it. Groups go by [`Storage::submit`]: several may be in flight,
//! complete in any order, and the sequencer acknowledges them in order. Everything else is plain
//! calls that return when they are done, made from background threads, at start, or by readers.

mod disk;
mod map;
mod names;
mod ring;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

pub use disk::{Access, Backend, DiskStorage, Mapping};
pub use names::{
    FileKind, LOCK_NAME, MARKER_NAME, index_name, run_name, segment_name, temporary_name, torn_name,
};

/// A folder that holds one log.
pub trait Storage: Send + Sync {
    /// What stands behind the seam, in words for an operator.
    fn describe(&self) -> String;

    /// Takes the folder's one writer's lock, until the guard is dropped.
    fn lock(&self) -> Result<LockGuard, LockError>;

    /// Every file, in any order.
    fn list(&self) -> io::Result<Vec<FileEntry>>;

    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Creates an empty file; fails if it exists. Its directory entry is durable only after
    /// [`Storage::sync_dir`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Opens a file that will not change any more, to be read here and there through the page
    /// cache: at any offset, of any length, into any buffer. Its name may be removed, and stand for
    /// another file, later.
    fn open_cached(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// The whole of a file that will not change any more. Under a memory map an unreadable sector
    /// ends the process.
    fn map(&self, name: &str, order: ReadOrder) -> io::Result<Bytes>;

    /// Makes a file with this content, or leaves the old one: whole or not at all, durable on
    /// return, directory entry included.
    fn write_atomic(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Gives a file another name, in the place of a file that may have it; durable after
    /// [`Storage::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; durable after [`Storage::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renamings and removals so far durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Free and total space, in bytes.
    fn space(&self) -> io::Result<Space>;

    /// How many threads should call [`Storage::submit`]: as many as groups are in flight where it
    /// blocks, one where it does not.
    fn submitters(&self, groups_in_flight: usize) -> usize;

    /// Starts a durable write of a whole group. `Some` if it has completed before returning, else
    /// it completes later through [`GroupWrite::done`], in any order with others.
    fn submit(&self, write: GroupWrite) -> Option<io::Result<()>>;

    /// Returns once nothing that was submitted can reach the medium any more, also of what was
    /// reported to have failed: before that nobody else may write there.
    fn quiesce(&self) {}
}

/// One file. Offsets and lengths are whole blocks.
pub trait StorageFile: Send + Sync {
    /// Length of the file, in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads from `offset` into `buffer` (aligned to a block); fewer bytes only at the file's end.
    /// What is read comes from the medium, not from a cache that a failed write may have left.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` (aligned to a block); on return they are on stable storage, and so
    /// is the length of the file.
    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes sure that later writes up to `end` find space; new space reads as zeros.
    fn allocate(&self, end: u64) -> io::Result<()>;

    /// Makes everything written to the file so far durable.
    fn sync(&self) -> io::Result<()>;

    /// Where the system knows it by, if it does; open so that every write is durable.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// In what order a file will be read: what the system should read ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOrder {
    /// From its beginning to its end.
    Sequential,
    /// Here and there.
    Random,
}

/// A name and a length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// The file's name within the folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Space of the file system that holds the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still use.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// One group (or segment header) on its way to stable storage.
pub struct GroupWrite {
    /// The segment's file.
    pub file: Arc<dyn StorageFile>,
    /// Where it goes.
    pub offset: u64,
    /// All of it, aligned to a block.
    pub bytes: Bytes,
    /// Who is told when it is durable, unless `submit` has already said so.
    pub done: Completion,
}

/// Tells the sequencer how one write ended.
pub struct Completion {
    ticket: u64,
    sink: Arc<dyn CompletionSink>,
}

/// Where completions go.
pub trait CompletionSink: Send + Sync {
    /// The write with this ticket has ended.
    fn completed(&self, ticket: u64, result: io::Result<()>);
}

impl Completion {
    /// A completion for the write with this ticket.
    pub fn new(ticket: u64, sink: Arc<dyn CompletionSink>) -> Self {
        Self { ticket, sink }
    }

    /// Which write.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Reports the end of the write.
    pub fn complete(self, result: io::Result<()>) {
        self.sink.completed(self.ticket, result);
    }
}

/// Holds the folder's lock until it is dropped.
pub type LockGuard = Box<dyn Send + Sync>;

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("held by {0}")]
    Held(String),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether an error says that there is no space (also by quota or file size limit).
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Whether an error says that this process, or the machine, is out of file descriptors or memory:
/// no file is at fault, and a later attempt may find some.
#[must_use]
pub fn is_lack(error: &io::Error) -> bool {
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    lacks.map(|it| Some(it.raw_os_error())).contains(&error.raw_os_error())
}
