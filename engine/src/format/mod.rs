//! The bytes on disk, and nothing else: no file, no clock, no channel. segments-format.md is the
//! contract; a test fails when these sources change and the page does not.

pub mod filter;
pub mod group;
pub mod index_file;
pub mod index_header;
pub mod run_file;
mod search;
pub mod segment_header;
pub mod segment_set;
pub mod sum;

/// The version of the segment format that this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Groups start at, and are, multiples of this.
pub const BLOCK_BYTES: usize = 4_096;
/// Largest segment, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Smallest segment, in bytes: a header, a group, START or CLEAN, and SEAL.
pub const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK_BYTES as u64;
/// Largest group, in bytes: the largest append with its headers.
pub const GROUP_BYTES_MAX: usize = 17 * 1024 * 1024;
/// Most groups in flight at once in any configuration.
pub const GROUPS_IN_FLIGHT_MAX: usize = 4;
/// How far beyond the first invalid group a group can have been in flight with it.
pub const IN_FLIGHT_BYTES_MAX: u64 = (GROUPS_IN_FLIGHT_MAX * GROUP_BYTES_MAX) as u64;

/// A buffer that direct I/O takes as it is.
pub type BlockBuffer = rkyv::util::AlignedVec<BLOCK_BYTES>;

/// A buffer of zeros that direct I/O takes as it is.
#[must_use]
pub fn zeroed_blocks(bytes: usize) -> BlockBuffer {
    let mut buffer = BlockBuffer::with_capacity(bytes);
    buffer.resize(bytes, 0);
    buffer
}

/// `bytes` rounded up to whole blocks.
#[must_use]
pub const fn block_ceil(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// Reads little-endian numbers one after another; out of bytes, it reads zeros and says so.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.bytes.split_first_chunk() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => [0; N],
        }
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }
}

/// Whether every byte is zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Word by word: this runs over whole segments at start.
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_le_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

const _: () = {
    assert!(usize::BITS == 64, "segments are mapped whole: 64-bit addresses are needed");
    assert!(SEGMENT_BYTES_MAX.is_multiple_of(BLOCK_BYTES as u64));
    assert!(quipu_types::limits::APPEND_BYTES_HARD_MAX + BLOCK_BYTES <= GROUP_BYTES_MAX);
    assert!(SEGMENT_BYTES_MAX / BLOCK_BYTES as u64 <= u32::MAX as u64);
};
