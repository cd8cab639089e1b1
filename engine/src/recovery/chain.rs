//! Places the segments: names, headers, seals and the chain that ties each to the one before.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use quipu_types::{Corruption, Position, Uuid};

use crate::error::OpenError;
use crate::format::group::{Group, GroupHeader, GroupKind};
use crate::format::segment_header::{HeaderFault, SegmentHeader};
use crate::format::{BLOCK_BYTES, FORMAT_VERSION, block_ceil, is_zero, zeroed_blocks};
use crate::storage::{Storage, StorageFile, segment_name};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// A last file is looked through in reads of this size, not block by block.
const WINDOW_BYTES: usize = 1 << 20;

/// A segment whose header is valid and in its place.
pub struct Placed {
    /// Its header.
    pub header: SegmentHeader,
    /// Its file, of the last one only: there may be more segments than a process may open files.
    file: Option<Arc<dyn StorageFile>>,
    /// Its SEAL, as its successor's header names it; `None` for the last.
    pub seal: Option<GroupHeader>,
}

impl Placed {
    /// Its file.
    ///
    /// # Errors
    /// That it cannot be opened.
    pub fn open(&self, storage: &dyn Storage) -> std::io::Result<Arc<dyn StorageFile>> {
        match &self.file {
            Some(file) => Ok(Arc::clone(file)),
            None => storage.open(&segment_name(self.header.number)),
        }
    }
}

/// The last file, where it is not an activated segment.
pub enum LastFile {
    /// Nothing but zeros: prepared ahead.
    Spare(Arc<dyn StorageFile>),
    /// Something without a valid header; whether that is a crash or damage depends on what
    /// stands before it.
    NoHeader {
        /// The file.
        file: Arc<dyn StorageFile>,
        /// What is wrong with its first block.
        fault: HeaderFault,
        /// Where something that looks like one of its groups begins.
        group_at: Option<u64>,
        /// End of the last block that is not zero, of what precedes such a group.
        nonzero_end: u64,
    },
}

impl LastFile {
    fn has_group(&self) -> bool {
        matches!(self, Self::NoHeader { group_at: Some(_), .. })
    }
}

/// The segments of a log, as far as they hang together.
pub struct Chain {
    /// Oldest first.
    pub placed: Vec<Placed>,
    /// The file after the last of them, if it is not activated.
    pub last_file: Option<(u64, LastFile)>,
    /// Where the chain is broken; what lies beyond is not in `placed`.
    pub damage: Option<Corruption>,
    /// What the disk said, where it is broken because a header cannot be read.
    refused: Option<OpenError>,
}

/// Places the segments with these numbers (ascending).
///
/// # Errors
/// That the disk refused, or that a segment has a newer format.
pub fn place(
    storage: &dyn Storage,
    numbers: &[u64],
    marker_log_id: Option<Uuid>,
) -> Result<Chain, OpenError> {
    place_from(storage, 1, numbers, marker_log_id)?.unless_refused()
}

/// As [`place`], of segments from `first` on, whatever stands before it: a chain that is broken may
/// go on behind the break. One whose header cannot be read breaks it, too.
///
/// # Errors
/// That a file cannot be opened, or that a segment has a newer format.
pub fn place_from(
    storage: &dyn Storage,
    first: u64,
    numbers: &[u64],
    log_id: Option<Uuid>,
) -> Result<Chain, OpenError> {
    let chain = look_at(storage, first, numbers, log_id)?;
    if chain.last_file.as_ref().is_some_and(|(_, file)| file.has_group()) {
        // A writer may have activated the segment between the look at its header and the look at
        // its groups: the header is there before them.
        return look_at(storage, first, numbers, log_id);
    }
    Ok(chain)
}

fn look_at(
    storage: &dyn Storage,
    first: u64,
    numbers: &[u64],
    log_id: Option<Uuid>,
) -> Result<Chain, OpenError> {
    let mut chain = Chain { placed: Vec::new(), last_file: None, damage: None, refused: None };
    let mut log_id = log_id;
    for (expected, number) in (first..).zip(numbers) {
        if *number != expected {
            chain.break_at(expected, format!("the file {} is missing", segment_name(expected)));
            return Ok(chain);
        }
        let is_last = numbers.last() == Some(number);
        let name = segment_name(*number);
        let file = match storage.open(&name) {
            // A writer that finds no space for the next file removes it again.
            Err(error) if is_last && error.kind() == ErrorKind::NotFound => return Ok(chain),
            other => other.map_err(OpenError::io(format!("open {name}")))?,
        };
        let block = match read_block(&*file, 0) {
            Ok(block) => block,
            Err(error) => return Ok(chain.refused_at(*number, error)),
        };
        match SegmentHeader::decode(&block) {
            Ok(header) => {
                let log_id = *log_id.get_or_insert(header.log_id);
                if let Err(problem) = chain.append(header, file, expected, log_id) {
                    chain.break_at(*number, problem);
                    return Ok(chain);
                }
            }
            Err(HeaderFault::Newer(found)) => {
                let (segment, supported) = (*number, FORMAT_VERSION);
                return Err(OpenError::Newer { segment, found, supported });
            }
            Err(fault) if is_last => match inspect_last(file, fault, chain.next_position()) {
                Ok(last) => chain.last_file = Some((*number, last)),
                Err(error) => return Ok(chain.refused_at(*number, error)),
            },
            Err(fault) => {
                chain.break_at(*number, fault.to_string());
                return Ok(chain);
            }
        }
    }
    Ok(chain)
}

impl Chain {
    /// Whether it is no more than what an interrupted creation leaves: segment 1 without a header
    /// and without a group. If the folder is known to be a log, it is what is left of one.
    #[must_use]
    pub fn is_half_made(&self) -> bool {
        let last = self.last_file.as_ref().filter(|_| self.placed.is_empty());
        last.is_some_and(|(number, file)| *number == 1 && !file.has_group())
    }

    /// The chain, unless it is broken because a header cannot be read.
    ///
    /// # Errors
    /// What the disk said.
    pub fn unless_refused(mut self) -> Result<Self, OpenError> {
        self.refused.take().map_or(Ok(self), Err)
    }

    /// Records that the chain is broken at a segment.
    pub fn break_at(&mut self, segment: u64, problem: String) {
        let (first, last) = (self.next_position(), Position::MAX);
        self.damage.get_or_insert(Corruption { segment, first, last, problem });
    }

    fn refused_at(mut self, segment: u64, error: std::io::Error) -> Self {
        self.break_at(segment, format!("its header cannot be read: {error}"));
        self.refused = Some(OpenError::io(format!("read {}", segment_name(segment)))(error));
        self
    }

    /// First position that the segments placed so far do not surely hold.
    fn next_position(&self) -> Position {
        match self.placed.last() {
            Some(Placed { seal: Some(seal), .. }) => seal.next_position(),
            Some(Placed { header, .. }) => header.first_position,
            None => Position::FIRST,
        }
    }

    /// Adds a segment if it is in its place.
    fn append(
        &mut self,
        header: SegmentHeader,
        file: Arc<dyn StorageFile>,
        expected: u64,
        log_id: Uuid,
    ) -> Result<(), String> {
        if header.number != expected {
            let found = header.number;
            return Err(format!("the file named as segment {expected} holds segment {found}"));
        }
        if header.log_id != log_id {
            return Err(format!("it belongs to log {}, not to {log_id}", header.log_id));
        }
        if let Some(previous) = self.placed.last_mut() {
            let seal = read_seal(previous, &header)?;
            previous.seal = Some(seal);
            previous.file = None;
        }
        self.placed.push(Placed { header, file: Some(file), seal: None });
        Ok(())
    }
}

/// The SEAL of a segment, found and checked by what its successor's header says of it.
fn read_seal(previous: &Placed, successor: &SegmentHeader) -> Result<GroupHeader, String> {
    let number = previous.header.number;
    let lacks = |why: &str| format!("segment {number} does not end as this one says ({why})");
    let offset = successor.previous_end.checked_sub(BLOCK).ok_or_else(|| lacks("no SEAL"))?;
    if !offset.is_multiple_of(BLOCK) {
        return Err(lacks("misaligned"));
    }
    let file = previous.file.as_deref().ok_or_else(|| lacks("its file is closed"))?;
    let block = read_block(file, offset).map_err(|error| lacks(&error.to_string()))?;
    let header = &previous.header;
    let group = Group::check(&block, header.segment_id, offset, header.segment_bytes)
        .map_err(|fault| lacks(&format!("SEAL at offset {offset}: {fault}")))?;
    let seal = group.header;
    if seal.kind != GroupKind::Seal
        || seal.sum != successor.previous_chain
        || seal.first_position != successor.first_position
        || seal.epoch > successor.epoch
    {
        return Err(lacks("another SEAL"));
    }
    Ok(seal)
}

/// Looks at a last file without a valid header: a spare, a torn header, or a damaged segment.
fn inspect_last(
    file: Arc<dyn StorageFile>,
    fault: HeaderFault,
    first_position: Position,
) -> std::io::Result<LastFile> {
    let mut offset = 0;
    let mut nonzero_end = 0;
    let mut group_at = None;
    let length = file.len()?;
    while offset < length && group_at.is_none() {
        let left = usize::try_from(length - offset).unwrap_or(WINDOW_BYTES);
        let window = read_blocks(&*file, offset, block_ceil(left.min(WINDOW_BYTES)))?;
        for (block, at) in window.chunks(BLOCK_BYTES).zip((offset..).step_by(BLOCK_BYTES)) {
            if group_at.is_some() || is_zero(block) {
                continue;
            }
            nonzero_end = at + BLOCK;
            // The salt is lost with the header, so this rests on what a group says of its place.
            let plausible = GroupHeader::decode(block)
                .is_some_and(|it| it.offset == at && it.first_position >= first_position);
            group_at = plausible.then_some(at);
        }
        offset += WINDOW_BYTES as u64;
    }
    Ok(if nonzero_end == 0 {
        LastFile::Spare(file)
    } else {
        LastFile::NoHeader { file, fault, group_at, nonzero_end }
    })
}

fn read_block(file: &dyn StorageFile, offset: u64) -> std::io::Result<Bytes> {
    read_blocks(file, offset, BLOCK_BYTES)
}

/// So many bytes, fewer only at the file's end.
fn read_blocks(file: &dyn StorageFile, offset: u64, bytes: usize) -> std::io::Result<Bytes> {
    let mut blocks = zeroed_blocks(bytes);
    let read = file.read(offset, &mut blocks)?;
    Ok(Bytes::from_owner(blocks).slice(..read))
}
