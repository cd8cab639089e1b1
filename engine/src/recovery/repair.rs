//! The writes of recovery: a copy of the torn tail, zeros over it, and the start barrier. All are
//! durable before the log serves anything.

use std::cmp::Reverse;
use std::io;
use std::sync::Arc;

use quipu_types::{Position, Timestamp};

use super::decide::TailFacts;
use crate::bug::{Bug, seeded};
use crate::commit::head::Head;
use crate::commit::preparer::{PrepareError, PrepareJob, Prepared, Spare, fill_spare};
use crate::format::group::{GroupBuilder, GroupHeader, GroupKind, GroupPlace};
use crate::format::segment_header::SegmentHeader;
use crate::format::{
    BLOCK_BYTES, BlockBuffer, IN_FLIGHT_BYTES_MAX, block_ceil, is_zero, zeroed_blocks,
};
use crate::host::tell;
use crate::options::LogOptions;
use crate::shared::Environment;
use crate::storage::{FileKind, ReadOrder, Storage, StorageFile, torn_name};

const BLOCK: u64 = BLOCK_BYTES as u64;
const ZERO_BYTES: u64 = 1 << 20;
const TORN_COPIES_MAX: usize = 16;
/// Names tried for a copy where others, of something else, have been kept under the first.
const TORN_EPOCHS_MAX: u64 = 1_000;
const TORN_BYTES_MAX: u64 = 1 << 30;

/// Keeps a copy of what stands in `from..to` of a segment; says which file has it. Failing to is
/// told, no more: whether anything may be lost is for the caller to judge.
pub fn keep_copy(
    storage: &dyn Storage,
    file: &dyn StorageFile,
    segment: u64,
    (from, to): (u64, u64),
    epoch: u64,
) -> Option<String> {
    let keep = || -> io::Result<String> {
        let length = (to - from).min(IN_FLIGHT_BYTES_MAX);
        // Whole blocks, as direct reads are, even where the file ends within one.
        let length = block_ceil(usize::try_from(length).map_err(io::Error::other)?);
        let mut copy = zeroed_blocks(length);
        let read = file.read(from, &mut copy)?;
        let name = copy_name(storage, &copy[..read], |more| {
            torn_name(segment, from, epoch.saturating_add(more))
        })?;
        if let CopyName::New(name) = &name {
            storage.write_atomic(name, &copy[..read])?;
            if let Err(error) = prune_copies(storage, name) {
                tell!(warn, %error, "cannot remove old copies of torn tails");
            }
        }
        Ok(name.into_name())
    };
    match keep() {
        Ok(name) => Some(name),
        Err(error) => {
            tell!(warn, segment, %error, "cannot keep a copy of a torn tail");
            None
        }
    }
}

/// Where a copy is to be kept, or is already.
enum CopyName {
    New(String),
    Kept(String),
}

impl CopyName {
    fn into_name(self) -> String {
        match self {
            Self::New(name) | Self::Kept(name) => name,
        }
    }
}

/// The first of these names that is free, or whose file has it all. A crash while the place was
/// zeroed leaves less of it than an earlier opening has kept: that copy is the whole one.
fn copy_name(
    storage: &dyn Storage,
    content: &[u8],
    name: impl Fn(u64) -> String,
) -> io::Result<CopyName> {
    for name in (0..TORN_EPOCHS_MAX).map(name) {
        match storage.map(&name, ReadOrder::Sequential) {
            Ok(kept) if has_all(&kept, content) => return Ok(CopyName::Kept(name)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(CopyName::New(name));
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("every name is taken"))
}

/// Whether a copy holds every block that is not zero.
fn has_all(kept: &[u8], content: &[u8]) -> bool {
    (content.chunks(BLOCK_BYTES).enumerate()).all(|(number, block)| {
        is_zero(block) || kept.get(number * BLOCK_BYTES..).is_some_and(|it| it.starts_with(block))
    })
}

/// Removes the oldest copies beyond the last 16 and 1 GiB, but never the new one: in a folder that
/// was put back from a backup epochs begin again.
fn prune_copies(storage: &dyn Storage, new: &str) -> io::Result<()> {
    let mut copies: Vec<_> =
        storage.list()?.into_iter().filter(|it| FileKind::of(&it.name) == FileKind::Torn).collect();
    copies.sort_by_key(|copy| (copy.name != new, Reverse(epoch_of(&copy.name))));
    let mut bytes = 0;
    for (index, copy) in copies.iter().enumerate() {
        bytes += copy.bytes;
        if index >= TORN_COPIES_MAX || (index > 0 && bytes > TORN_BYTES_MAX) {
            storage.remove(&copy.name)?;
        }
    }
    storage.sync_dir()
}

fn epoch_of(name: &str) -> u64 {
    name.split('.').nth(2).and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
}

/// Zeroes everything from the first invalid group on.
///
/// # Errors
/// What the disk says.
pub fn zero_tail(file: &dyn StorageFile, facts: &TailFacts) -> io::Result<()> {
    let Some(last) = facts.last_nonzero else { return Ok(()) };
    let mut offset = facts.end;
    if seeded(Bug::CutsTooMuch) {
        offset = offset.saturating_sub(BLOCK);
    }
    while offset < last + BLOCK {
        let bytes = (last + BLOCK - offset).min(ZERO_BYTES);
        let zeros = zeroed_blocks(usize::try_from(bytes).map_err(io::Error::other)?);
        file.write_durable(offset, &zeros)?;
        offset += bytes;
    }
    Ok(())
}

/// Where the start barrier is written.
pub struct Barrier<'a> {
    /// The segment.
    pub header: &'a SegmentHeader,
    /// Its file.
    pub file: &'a Arc<dyn StorageFile>,
    /// End of its last valid group.
    pub offset: u64,
    /// Sum of that group.
    pub chain: u64,
    /// Position of the next record.
    pub next_position: Position,
    /// The new epoch.
    pub epoch: u64,
}

impl Barrier<'_> {
    /// Whether START finds room before SEAL.
    #[must_use]
    pub fn start_fits(&self) -> bool {
        self.offset + 2 * BLOCK <= self.header.segment_bytes
    }

    /// Writes START, or SEAL where START finds no room; on return it is durable.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, kind: GroupKind) -> io::Result<GroupHeader> {
        let place = GroupPlace {
            segment_id: self.header.segment_id,
            epoch: self.epoch,
            offset: self.offset,
            first_position: self.next_position,
            durable_upto: self.offset,
            chain: self.chain,
        };
        let (header, bytes) = GroupBuilder::new(place, BlockBuffer::new()).finish(kind);
        if kind == GroupKind::Start && seeded(Bug::NoStartBarrier) {
            return Ok(GroupHeader { group_bytes: 0, sum: self.chain, ..header });
        }
        self.file.allocate(header.end())?;
        self.file.write_durable(self.offset, &bytes)?;
        Ok(header)
    }
}

/// The file of the next segment: the spare that is there, or a new one.
///
/// # Errors
/// That it cannot be made.
pub fn next_spare(
    storage: &dyn Storage,
    options: &LogOptions,
    segment: u64,
    present: Option<Arc<dyn StorageFile>>,
) -> Result<Spare, PrepareError> {
    let bytes = Head::spare_bytes(options.segment_bytes);
    // Opening a full disk must not fail for the reserve: it is there for this.
    let reserve = 0;
    if let Some(file) = present {
        let allocated = file.len()?;
        if allocated >= BLOCK && allocated.is_multiple_of(BLOCK) {
            return Ok(Spare { segment, file, allocated, zeroed: 0 });
        }
        // A crash took its space. It is filled again, never removed: after SEAL a missing file
        // means a lost segment.
        return fill_spare(storage, segment, file, bytes, reserve);
    }
    match (PrepareJob::Spare { segment, bytes, reserve }).run(storage) {
        Prepared::Spare(spare) => spare,
        Prepared::Allocated(..) | Prepared::Zeroed(..) => {
            Err(PrepareError::Io(io::Error::other("another job was done")))
        }
    }
}

/// Activates the segment after a sealed one, under a new epoch; on return its header is durable.
///
/// # Errors
/// What the disk says.
pub fn activate_next(
    env: &Environment,
    options: &LogOptions,
    (sealed, seal): (&SegmentHeader, &GroupHeader),
    spare: &Spare,
    (epoch, last_recorded_at): (u64, Timestamp),
) -> io::Result<SegmentHeader> {
    let header = SegmentHeader {
        log_id: sealed.log_id,
        segment_id: env.entropy.uuid(),
        number: sealed.number + 1,
        first_position: seal.next_position(),
        epoch,
        created_at: env.clock.now(),
        segment_bytes: options.segment_bytes,
        previous_end: seal.end(),
        previous_chain: seal.sum,
        last_recorded_at,
    };
    spare.file.write_durable(0, &header.encode())?;
    Ok(header)
}
