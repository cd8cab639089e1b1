//! What can be asked of the disk, and how it can go wrong.

use std::io;

use quipu_engine::format::group::{GroupHeader, GroupKind};
use quipu_engine::format::is_zero;
use quipu_engine::storage::FileKind;

/// A rule of the disk that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Group writes are reported durable when they are submitted.
    AcknowledgesBeforeFlush,
    /// Group writes are reported durable that stay in the cache.
    LiesAboutFlush,
    /// A flush that failed is tried again, and reported as done.
    RetriesFailedFlush,
    /// A short write is reported as whole.
    TakesShortWriteAsWhole,
    /// The folder is never synced.
    SkipsDirectorySync,
    /// No file is ever synced beyond what writes themselves make durable.
    SkipsFileSync,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoFault {
    /// With this error; a write may have done anything in its place.
    Error(io::ErrorKind),
    /// A write has written the first half; anything else fails.
    Short,
}

/// What a read that fails says.
pub const UNREADABLE: &str = "input/output error";

impl IoFault {
    /// Every way to fail.
    pub const ALL: [Self; 4] = [
        Self::Error(io::ErrorKind::Other),
        Self::Error(io::ErrorKind::StorageFull),
        Self::Error(io::ErrorKind::ReadOnlyFilesystem),
        Self::Short,
    ];

    /// The error that an operation fails with: only where something is written can space be short
    /// or the file system read-only.
    pub(super) fn error(self, operation: Operation) -> io::Error {
        match self {
            Self::Error(kind) if operation.changes() => io::Error::from(kind),
            Self::Short if operation == Operation::Write => {
                io::Error::from(io::ErrorKind::WriteZero)
            }
            Self::Error(_) | Self::Short => io::Error::other(UNREADABLE),
        }
    }
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write,
    /// Makes a file or space.
    Make,
    Change,
}

impl Operation {
    pub(super) fn changes(self) -> bool {
        self != Self::Read
    }
}

/// What is written there.
pub(super) fn name(offset: u64, bytes: &[u8]) -> &'static str {
    match GroupHeader::decode(bytes).map(|group| group.kind) {
        Some(GroupKind::Data) => "group",
        Some(GroupKind::Start) => "START",
        Some(GroupKind::Witness) => "WITNESS",
        Some(GroupKind::Clean) => "CLEAN",
        Some(GroupKind::Seal) => "SEAL",
        None if is_zero(bytes) => "zeros",
        None if offset == 0 && bytes.starts_with(b"QUIPUSEG") => "segment header",
        None => "something else",
    }
}

/// What is in a file of this name.
pub(super) fn name_of_file(name: &str) -> &'static str {
    match FileKind::of(name) {
        FileKind::Index(_) => "index file",
        FileKind::Run(..) => "run",
        FileKind::Marker => "LOG",
        FileKind::Torn => "copy of a torn tail",
        _ => "another file",
    }
}
