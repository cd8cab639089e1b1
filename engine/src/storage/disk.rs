//! A real folder on a real disk, with blocking direct I/O.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this module is the storage boundary"
)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, fadvise, fallocate, flock};
use rustix::io::{Errno, retry_on_intr};

use super::map::map;
use super::names::{LOCK_NAME, PROBE_STEM, temporary_name};
use super::ring::Ring;
use super::{
    FileEntry, FileKind, GroupWrite, LockError, LockGuard, ReadOrder, Space, Storage, StorageFile,
};
use crate::format::{BLOCK_BYTES, block_ceil, zeroed_blocks};
use crate::host::tell;

const PRIVATE_FILE: u32 = 0o600;
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

/// A log's folder.
pub struct DiskStorage {
    folder: PathBuf,
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
        let folder = folder.as_ref().to_path_buf();
        if access == Access::ReadWrite {
            create_folder(&folder)?;
        }
        let directory = File::open(&folder)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let mut storage = Self { folder, directory, access, direct: false, mapping, ring: None };
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

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Tries on a temporary file (when writing) or on one that stays (when only reading).
    fn takes_direct_io(&self) -> io::Result<bool> {
        let probe = match self.access {
            Access::ReadWrite => {
                let name = format!("{PROBE_STEM}{}.tmp", std::process::id());
                let path = self.path(&name);
                let probe = self.options(true).create(true).truncate(false).open(&path);
                fs::remove_file(&path).or_else(ignore_missing)?;
                probe
            }
            Access::ReadOnly => match self.list()?.iter().find(|it| stays(&it.name)) {
                Some(entry) => self.options(true).open(self.path(&entry.name)),
                None => return Ok(false),
            },
        };
        match probe {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn options(&self, direct: bool) -> fs::OpenOptions {
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.access == Access::ReadWrite {
            flags |= OFlags::DSYNC;
        }
        if direct {
            flags |= OFlags::DIRECT;
        }
        let mut options = File::options();
        options
            .read(true)
            .write(self.access == Access::ReadWrite)
            .mode(PRIVATE_FILE)
            .custom_flags(flags.bits().cast_signed());
        options
    }

    /// Writes a file whole, and durable. A large one goes past the page cache: else the file
    /// system writes it out with the next journal commit, which groups of appends wait for.
    fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let direct = self.direct && content.len() >= DIRECT_FILE_BYTES_MIN;
        let flags = OFlags::NOFOLLOW | if direct { OFlags::DIRECT } else { OFlags::empty() };
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(PRIVATE_FILE)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
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
        File::options()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.path(name))
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
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.path(LOCK_NAME))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                return Err(LockError::Held(holder.trim().to_owned()));
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
        Ok(Box::new(FolderLock(file)))
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // A file may vanish between the two calls: a temporary one of a running writer.
            let bytes = match entry.metadata() {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(FileEntry { name, bytes });
        }
        Ok(entries)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.options(self.direct).open(self.path(name))?;
        if !self.direct {
            // After a failed write the page cache may hold what the medium does not.
            fadvise(&file, 0, None, Advice::DontNeed)?;
        } else if self.access == Access::ReadWrite {
            wait_for_earlier_writes(&file)?;
        }
        Ok(Arc::new(DiskFile::new(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.options(self.direct).create_new(true).open(self.path(name))?;
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
        let temporary = self.path(&temporary_name(name));
        let written = self.write_file(&temporary, content);
        if let Err(error) = written {
            // The space may be needed for something more important than half an index.
            fs::remove_file(&temporary).or_else(ignore_missing)?;
            return Err(error);
        }
        fs::rename(&temporary, self.path(name))?;
        self.sync_dir()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
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

/// The lock of a folder, until it is dropped.
struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting shares the
        // descriptor, and so the lock, until it has become its own program.
        if let Err(error) = flock(&self.0, FlockOperation::Unlock) {
            tell!(warn, %error, "cannot unlock the folder");
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
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, BLOCK_BYTES as u64) {
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
    for entry in std::iter::once(folder).chain(made) {
        let parent = match entry.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => continue,
        };
        match File::open(parent) {
            Ok(parent) => parent.sync_all()?,
            // Not ours to read, so not ours to have made anything in.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
