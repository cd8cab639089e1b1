//! A real folder on a real disk, with blocking direct I/O.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this module is the storage boundary"
)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::{
    Advice, AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags, fadvise, fallocate, flock,
    openat, renameat, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use super::map::map;
use super::names::{LOCK_NAME, PROBE_STEM, temporary_name};
use super::ring::Ring;
use super::{
    FileEntry, FileKind, GroupWrite, LockError, LockGuard, ReadOrder, Space, Storage, StorageFile,
};
use crate::format::{BLOCK_BYTES, block_ceil, zeroed_blocks};
use crate::host::tell;

const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_FOLDER: u32 = 0o700;
/// Space is zeroed in writes of this size where the file system cannot allocate.
const ZERO_STEP_BYTES: usize = 1 << 20;

/// Files at least so large, written whole, go past the page cache, in writes of this size.
const DIRECT_FILE_BYTES_MIN: usize = 1 << 20;

/// How groups reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Direct where the file system takes it, else buffered.
    #[default]
    Auto,
    /// `O_DIRECT | O_DSYNC`: past the page cache.
    Direct,
    /// `O_DSYNC` through the page cache.
    Buffered,
    /// As [`Backend::Direct`], but groups go by `io_uring`: no thread waits for each of them.
    IoUring,
}

/// How sealed segments are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// Mapped: no copy; an unreadable sector ends the process.
    #[default]
    Mapped,
    /// Read whole into memory: an unreadable sector is an error.
    Read,
}

/// What a log's folder is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only; the folder must exist, nothing in it is created or changed.
    ReadOnly,
    /// Reads and writes; the folder is created if it is missing.
    ReadWrite,
}

/// A log's folder: the one that was opened, whatever its path leads to later.
pub struct DiskStorage {
    directory: File,
    access: Access,
    direct: bool,
    mapping: Mapping,
    ring: Option<Ring>,
}

impl DiskStorage {
    /// Opens a folder, creating it (private to its owner) for [`Access::ReadWrite`].
    ///
    /// # Errors
    /// What the system says; `InvalidInput` if direct I/O is asked for and refused.
    pub fn open(
        folder: impl AsRef<Path>,
        access: Access,
        backend: Backend,
        mapping: Mapping,
    ) -> io::Result<Self> {
        let folder = folder.as_ref();
        if access == Access::ReadWrite {
            create_folder(folder)?;
        }
        let directory = File::open(folder)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let mut storage = Self { directory, access, direct: false, mapping, ring: None };
        storage.direct = match backend {
            Backend::Buffered => false,
            Backend::Auto => storage.takes_direct_io()?,
            Backend::Direct | Backend::IoUring if storage.takes_direct_io()? => true,
            Backend::Direct | Backend::IoUring => {
                let text = "this file system refuses O_DIRECT; use the buffered backend";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        if backend == Backend::IoUring && access == Access::ReadWrite {
            let refused = |error: io::Error| {
                let text = format!("the system refuses io_uring ({error}); use the direct backend");
                io::Error::new(error.kind(), text)
            };
            storage.ring = Some(Ring::new().map_err(refused)?);
        }
        Ok(storage)
    }

    /// Opens a file of the folder; never through a link.
    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(retry_on_intr(|| openat(&self.directory, name, flags, PRIVATE_FILE))?.into())
    }

    fn remove_at(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn rename_at(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.directory, from, &self.directory, to)?)
    }

    /// Tries on a file that is there, and, in a folder without a log, on a temporary one: where
    /// there is no space any more a log still opens.
    fn takes_direct_io(&self) -> io::Result<bool> {
        let probe = match self.list()?.iter().find(|it| stays(&it.name)) {
            Some(entry) => self.open_at(&entry.name, self.flags() | OFlags::DIRECT),
            None if self.access == Access::ReadOnly => return Ok(false),
            None => {
                let name = format!("{PROBE_STEM}{}.tmp", std::process::id());
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT;
                let probe = self.open_at(&name, flags);
                self.remove_at(&name).or_else(ignore_missing)?;
                probe
            }
        };
        match probe {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How segments are opened.
    fn flags(&self) -> OFlags {
        let direct = if self.direct { OFlags::DIRECT } else { OFlags::empty() };
        direct
            | match self.access {
                Access::ReadOnly => OFlags::RDONLY,
                Access::ReadWrite => OFlags::RDWR | OFlags::DSYNC,
            }
    }

    /// Writes a file whole, and durable. A large one goes past the page cache: else the file
    /// system writes it out with the next journal commit, which groups of appends wait for.
    fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let direct = self.direct && content.len() >= DIRECT_FILE_BYTES_MIN;
        let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        flags.set(OFlags::DIRECT, direct);
        let mut file = self.open_at(name, flags)?;
        if direct {
            let mut blocks = zeroed_blocks(DIRECT_FILE_BYTES_MIN);
            for piece in content.chunks(DIRECT_FILE_BYTES_MIN) {
                let bytes = block_ceil(piece.len());
                blocks[..piece.len()].copy_from_slice(piece);
                file.write_all(&blocks[..bytes])?;
            }
            file.set_len(content.len() as u64)?;
        } else {
            file.write_all(content)?;
        }
        file.sync_all()
    }

    fn open_buffered(&self, name: &str) -> io::Result<File> {
        self.open_at(name, OFlags::RDONLY)
    }
}

impl Storage for DiskStorage {
    fn describe(&self) -> String {
        let path = match (&self.ring, self.direct) {
            (Some(_), _) => "io_uring (O_DIRECT, O_DSYNC)",
            (None, true) => "direct I/O (O_DIRECT, O_DSYNC)",
            (None, false) => "buffered (O_DSYNC)",
        };
        let reads = match self.mapping {
            Mapping::Mapped => "sealed segments mapped",
            Mapping::Read => "sealed segments read into memory",
        };
        format!("{path}, {reads}")
    }

    fn lock(&self) -> Result<LockGuard, LockError> {
        let mut file = self.open_at(LOCK_NAME, OFlags::RDWR | OFlags::CREATE)?;
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        // The folder, too: the file may have been removed, with the lock of whoever has it open. By
        // a descriptor of its own, for a lock belongs to what it was taken by.
        let folder = self.open_at(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let locked = flock(&file, exclusive).and_then(|()| match flock(&folder, exclusive) {
            // Some file systems lock files only.
            Err(error) if error != Errno::WOULDBLOCK => Ok(()),
            locked => locked,
        });
        match locked {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                let holder = holder.trim();
                let unnamed = "a process that its file lock does not name";
                let holder = if holder.is_empty() { unnamed } else { holder };
                return Err(LockError::Held(holder.to_owned()));
            }
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let program = std::env::args_os().next().unwrap_or_default();
        let (id, program) = (std::process::id(), program.display());
        let told = file.set_len(0).and_then(|()| writeln!(file, "process {id} ({program})"));
        if let Err(error) = told {
            // A full disk has no room for a name; the lock is held all the same.
            tell!(warn, %error, "cannot write who holds the lock");
        }
        Ok(Box::new(FolderLock([folder, file])))
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            // A file may vanish between the two calls: a temporary one of a running writer.
            let bytes = match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat.st_size.cast_unsigned(),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            entries.push(FileEntry { name: name.to_string_lossy().into_owned(), bytes });
        }
        Ok(entries)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.open_at(name, self.flags())?;
        if !self.direct {
            // After a failed write the page cache may hold what the medium does not.
            fadvise(&file, 0, None, Advice::DontNeed)?;
        } else if self.access == Access::ReadWrite {
            wait_for_earlier_writes(&file)?;
        }
        Ok(Arc::new(DiskFile::new(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.open_at(name, self.flags() | OFlags::CREATE | OFlags::EXCL)?;
        Ok(Arc::new(DiskFile::new(file)))
    }

    fn open_cached(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.open_buffered(name)?;
        fadvise(&file, 0, None, Advice::Random)?;
        Ok(Arc::new(DiskFile::new(file)))
    }

    fn map(&self, name: &str, order: ReadOrder) -> io::Result<Bytes> {
        let mut file = self.open_buffered(name)?;
        let bytes = file.metadata()?.len();
        if self.mapping == Mapping::Mapped && bytes > 0 {
            return map(&file, order);
        }
        let mut content = zeroed_blocks(usize::try_from(bytes).map_err(io::Error::other)?);
        file.read_exact(&mut content)?;
        Ok(Bytes::from_owner(content))
    }

    fn write_atomic(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = temporary_name(name);
        let written = self.write_file(&temporary, content);
        if let Err(error) = written {
            // The space may be needed for something more important than half an index.
            self.remove_at(&temporary).or_else(ignore_missing)?;
            return Err(error);
        }
        self.rename_at(&temporary, name)?;
        self.sync_dir()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_at(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.remove_at(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(Space { free: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
    }

    fn submitters(&self, groups_in_flight: usize) -> usize {
        if self.ring.is_some() { 1 } else { groups_in_flight }
    }

    fn submit(&self, write: GroupWrite) -> Option<io::Result<()>> {
        if let Some(ring) = &self.ring {
            return ring.submit(write);
        }
        Some(write.file.write_durable(write.offset, &write.bytes))
    }

    fn quiesce(&self) {
        if let Some(ring) = &self.ring {
            ring.quiesce();
        }
    }
}

/// The locks of a folder and of its lock file, until it is dropped.
struct FolderLock([File; 2]);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting shares the
        // descriptor, and so the lock, until it has become its own program.
        for locked in &self.0 {
            if let Err(error) = flock(locked, FlockOperation::Unlock) {
                tell!(warn, %error, "cannot unlock the folder");
            }
        }
    }
}

struct DiskFile {
    file: File,
    /// Whether the file system allocates space without writing it; found out on first use.
    allocates: AtomicBool,
}

impl DiskFile {
    fn new(file: File) -> Self {
        Self { file, allocates: AtomicBool::new(true) }
    }
}

impl StorageFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                // Direct reads go on at block boundaries only; a part of one is the file's end.
                Ok(read) if !read.is_multiple_of(BLOCK_BYTES) => return Ok(filled + read),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // One call for the whole: a short write is a failure, nothing is written twice.
        match self.file.write_at(bytes, offset)? {
            written if written == bytes.len() => Ok(()),
            written => Err(short_write(written, bytes.len())),
        }
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        let length = self.len()?;
        if length >= end {
            return Ok(());
        }
        if self.allocates.load(Ordering::Relaxed) {
            match retry_on_intr(|| {
                fallocate(&self.file, FallocateFlags::empty(), length, end - length)
            }) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP) => {
                    self.allocates.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let zeros = zeroed_blocks(ZERO_STEP_BYTES);
        // A write that was cut short may have ended within a block.
        let mut offset = length / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        while offset < end {
            let step = usize::try_from(end - offset).unwrap_or(usize::MAX).min(zeros.len());
            self.write_durable(offset, &zeros[..step])?;
            offset += step as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// The error of a write that wrote less than all.
pub(super) fn short_write(written: usize, of: usize) -> io::Error {
    io::Error::new(io::ErrorKind::WriteZero, format!("short write: {written} of {of} bytes"))
}

/// What a killed process gave to a ring may still be under way when its lock is free. Allocating
/// waits for direct writes to the file, and changes nothing here: the block is there.
fn wait_for_earlier_writes(file: &File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let block = BLOCK_BYTES as u64;
    match retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, 0, block)) {
        // What cannot allocate, or has no room to, has no direct writes of ours to wait for.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::DQUOT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file of this name is the log's and is not renamed or removed while a writer runs.
fn stays(name: &str) -> bool {
    matches!(FileKind::of(name), FileKind::Marker | FileKind::Segment(_))
}

/// Creates a folder that may be missing, with the folders above it, and makes their entries
/// durable: a log whose folder a crash takes away is lost as a whole.
fn create_folder(folder: &Path) -> io::Result<()> {
    let made: Vec<&Path> = folder.ancestors().take_while(|it| !it.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder)?;
    // The folder itself also when it was there: an earlier process may have died in between.
    std::iter::once(folder).chain(made).try_for_each(sync_entry)
}

/// Makes the entry of a folder in the one above durable.
fn sync_entry(folder: &Path) -> io::Result<()> {
    let parent = match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let parent = match File::open(parent) {
        Ok(parent) => parent,
        // Not ours to read, so not ours to have made anything in.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(error) => return Err(error),
    };
    // Where another file system is mounted its root has no entry; what lies under may be unable to
    // sync.
    if parent.metadata()?.dev() == fs::metadata(folder)?.dev() { parent.sync_all() } else { Ok(()) }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
