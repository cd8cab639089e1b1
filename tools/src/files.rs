//! Files that are no log: what `import` reads, what `export` writes, what the kernel tells.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a command's own input and output files are no part of a log"
)]

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use crate::failure::Failure;

/// The longest line that is read, in bytes: room for the largest event there can be.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The lines of a file or of standard input, plain or compressed with gzip or zstd.
pub(crate) struct Lines {
    reader: Box<dyn BufRead>,
    name: String,
    number: u64,
    line: Vec<u8>,
    bytes_read: Rc<Cell<u64>>,
    bytes_total: Option<u64>,
}

/// One line, without the line break.
pub(crate) struct Line<'a> {
    /// Counted from 1.
    pub(crate) number: u64,
    /// What stands in it; `None` where that is more than [`LINE_BYTES_MAX`].
    pub(crate) bytes: Option<&'a [u8]>,
}

impl Lines {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let cannot =
            |error: io::Error| Failure::Unreachable(format!("cannot read {name}: {error}"));
        let (source, bytes_total): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(cannot)?;
            let bytes_total = file.metadata().map_err(cannot)?.len();
            (Box::new(file), Some(bytes_total))
        };
        let bytes_read = Rc::new(Cell::new(0));
        let reader =
            decompress(Counting { source, bytes_read: Rc::clone(&bytes_read) }).map_err(cannot)?;
        Ok(Self { reader, name, number: 0, line: Vec::new(), bytes_read, bytes_total })
    }

    /// The file's name as it was given.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the file read so far, as they are on disk.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// Bytes of the file; not known of standard input.
    pub(crate) fn bytes_total(&self) -> Option<u64> {
        self.bytes_total
    }

    /// The next line that is not blank.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, Failure> {
        loop {
            match read_line(&mut self.reader, &mut self.line) {
                Ok(0) => return Ok(None),
                Ok(_) => self.number += 1,
                Err(error) => {
                    let (name, line) = (&self.name, self.number + 1);
                    let text = format!("{name}:{line}: cannot read on: {error}");
                    return Err(Failure::Unreachable(text));
                }
            }
            if self.line.len() > LINE_BYTES_MAX {
                return Ok(Some(Line { number: self.number, bytes: None }));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some(Line { number: self.number, bytes: Some(&self.line) }))
    }
}

/// All of a small file that a person wrote.
pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::Unreachable(format!("cannot read {}: {error}", path.display())))
}

/// Reads up to the next line break, which is dropped, and gives the bytes consumed; of a line that
/// is too long keeps only the beginning.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut consumed = 0;
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(consumed);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        let room = (LINE_BYTES_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&available[..taken.min(room)]);
        let used = taken + usize::from(end.is_some());
        reader.consume(used);
        consumed += used as u64;
        if end.is_some() {
            return Ok(consumed);
        }
    }
}

/// Neither magic begins a line of JSON, so that a compressed pipe is recognised as well.
fn decompress(mut source: Counting) -> io::Result<Box<dyn BufRead>> {
    let mut start = Vec::new();
    source.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
    let is_gzip = start.starts_with(&GZIP_MAGIC);
    let is_zstd = start == ZSTD_MAGIC;
    let source = BufReader::with_capacity(128 * 1024, Cursor::new(start).chain(source));
    Ok(if is_gzip {
        Box::new(BufReader::with_capacity(128 * 1024, MultiGzDecoder::new(source)))
    } else if is_zstd {
        Box::new(BufReader::new(zstd::Decoder::with_buffer(source)?))
    } else {
        Box::new(source)
    })
}

struct Counting {
    source: Box<dyn Read>,
    bytes_read: Rc<Cell<u64>>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.bytes_read.set(self.bytes_read.get() + count as u64);
        Ok(count)
    }
}

/// A file that appears under its name only when it is whole. What is no file, a pipe or a device,
/// is written to as it is.
pub(crate) struct NewFile {
    path: PathBuf,
    /// Removed if it is not finished.
    partial: Option<PathBuf>,
    writer: BufWriter<File>,
}

impl NewFile {
    /// Begins a file.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        // What a link leads to is written, and the link stays.
        let path = path.canonicalize().unwrap_or_else(|_| path.into());
        let is_no_file = path.metadata().is_ok_and(|metadata| !metadata.is_file());
        let partial = (!is_no_file).then(|| {
            let mut partial = path.as_os_str().to_owned();
            partial.push(".partial");
            PathBuf::from(partial)
        });
        let file = match &partial {
            Some(partial) => File::create(partial),
            None => File::options().write(true).open(&path),
        };
        let written = partial.as_ref().unwrap_or(&path);
        let file = file.map_err(|error| cannot_write(written, &error))?;
        Ok(Self { path, partial, writer: BufWriter::with_capacity(1 << 20, file) })
    }

    /// Writes one line.
    pub(crate) fn bytes_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.writer
            .write_all(line)
            .and_then(|()| self.writer.write_all(b"\n"))
            .map_err(|error| cannot_write(self.partial.as_ref().unwrap_or(&self.path), &error))
    }

    /// Makes it durable and gives it its name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.try_finish().map_err(|error| cannot_write(&self.path, &error))
    }

    fn try_finish(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let Some(partial) = &self.partial else { return Ok(()) };
        self.writer.get_ref().sync_all()?;
        std::fs::rename(partial, &self.path)?;
        self.partial = None;
        sync_folder_of(&self.path)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // Half a file is of no use to anybody. If it cannot be removed, its name tells.
            std::fs::remove_file(partial).ok();
        }
    }
}

/// Makes the name of a file durable.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::Unreachable(format!("cannot write {}: {error}", path.display()))
}

/// The most memory this process has had resident, in bytes; 0 where the system does not tell.
pub(crate) fn peak_rss_bytes() -> u64 {
    memory_bytes("VmHWM:")
}

/// The memory this process has resident now, in bytes; 0 where the system does not tell.
pub(crate) fn rss_bytes() -> u64 {
    memory_bytes("VmRSS:")
}

fn memory_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix(name));
    kib.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Drops what the page cache has of a folder's files, so that they are read from the disk again.
pub(crate) fn drop_from_cache(folder: &Path) -> Result<(), Failure> {
    let drop_all = || -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let file = File::open(entry?.path())?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(())
    };
    drop_all().map_err(|error| Failure::Unreachable(format!("{}: {error}", folder.display())))
}

/// Processor time this process has used so far, in seconds.
#[expect(clippy::cast_precision_loss, reason = "an f64 holds 285 years in nanoseconds")]
pub(crate) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(u64, Option<Vec<u8>>)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut lines = Lines::open(file.path()).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, line.bytes.map(<[u8]>::to_vec)));
        }
        assert_eq!(lines.bytes_read(), bytes.len() as u64);
        all
    }

    #[test]
    fn blank_lines_are_counted_and_skipped_and_the_last_needs_no_break() {
        let expected = vec![(1, Some(b"a".to_vec())), (4, Some(b"b".to_vec()))];
        assert_eq!(lines(b"a\n\n  \r\nb"), expected);
    }

    #[test]
    fn gzip_and_zstd_are_recognised_by_their_first_bytes() {
        let expected = vec![(1, Some(b"one".to_vec())), (2, Some(b"two".to_vec()))];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(lines(&gzip.finish().unwrap()), expected);
        let zstd = zstd::encode_all(&b"one\ntwo\n"[..], 1).unwrap();
        assert_eq!(lines(&zstd), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_whole() {
        let mut bytes = vec![b'x'; LINE_BYTES_MAX + 1];
        bytes.extend_from_slice(b"\nnext");
        assert_eq!(lines(&bytes), [(1, None), (2, Some(b"next".to_vec()))]);
        bytes.remove(0);
        assert_eq!(lines(&bytes)[0].1.as_ref().map(Vec::len), Some(LINE_BYTES_MAX));
    }

    #[test]
    fn a_new_file_has_its_name_only_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        let mut file = NewFile::create(&path).unwrap();
        file.bytes_line(b"{}").unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = NewFile::create(&folder.path().join("out.ndjson")).unwrap();
        file.bytes_line(b"{}").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_without_a_folder_in_its_name_is_in_this_one() {
        sync_folder_of(Path::new("out.ndjson")).unwrap();
        assert!(sync_folder_of(Path::new("no such folder/out.ndjson")).is_err());
    }

    #[test]
    fn the_kernel_tells_memory_and_processor_time() {
        assert!(rss_bytes() > 0 && peak_rss_bytes() > 0);
        assert!(cpu_seconds() > 0.0);
    }
}
