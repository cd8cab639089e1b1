//! The first block of a segment (segments-format.md §4.1).

use quipu_types::{Position, Timestamp, Uuid};

use super::sum::crc64;
use super::{
    BLOCK_BYTES, BlockBuffer, FORMAT_VERSION, Fields, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    is_zero, zeroed_blocks,
};

const MAGIC: [u8; 8] = *b"QUIPUSEG";
const ZERO_FROM: usize = 112;
const SUM_AT: usize = BLOCK_BYTES - 8;

/// What a segment says of itself and of the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log it belongs to.
    pub log_id: Uuid,
    /// Random for each segment; the salt of its group sums.
    pub segment_id: Uuid,
    /// Its number, the first is 1.
    pub number: u64,
    /// Position of the first record it will hold.
    pub first_position: Position,
    /// The epoch in which it was activated.
    pub epoch: u64,
    /// When it was activated.
    pub created_at: Timestamp,
    /// No group ends beyond this offset.
    pub segment_bytes: u64,
    /// Offset right after the previous segment's SEAL; 0 in segment 1.
    pub previous_end: u64,
    /// Sum of the previous segment's SEAL; 0 in segment 1.
    pub previous_chain: u64,
    /// `recorded_at` of the last record before this segment.
    pub last_recorded_at: Timestamp,
}

/// A first block that is no segment header, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// Fewer bytes than a block.
    #[error("the file ends inside the segment header")]
    Short,
    /// Every byte is zero: a spare.
    #[error("the segment header is all zeros")]
    Zero,
    /// It does not begin with the magic.
    #[error("the file does not begin like a segment")]
    Magic,
    /// A later version of the format.
    #[error("the segment has format {0}, this program reads up to {FORMAT_VERSION}")]
    Newer(u32),
    /// The sum does not match.
    #[error("the segment header's checksum does not match")]
    Sum,
    /// The sum matches and a field is out of range.
    #[error("the segment header has a field out of range")]
    Field,
}

impl SegmentHeader {
    /// The header as the segment's first block.
    #[must_use]
    pub fn encode(&self) -> BlockBuffer {
        let mut block = zeroed_blocks(BLOCK_BYTES);
        block[0..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        block[16..32].copy_from_slice(self.log_id.as_bytes());
        block[32..48].copy_from_slice(self.segment_id.as_bytes());
        block[48..56].copy_from_slice(&self.number.to_le_bytes());
        block[56..64].copy_from_slice(&self.first_position.0.to_le_bytes());
        block[64..72].copy_from_slice(&self.epoch.to_le_bytes());
        block[72..80].copy_from_slice(&self.created_at.as_micros().to_le_bytes());
        block[80..88].copy_from_slice(&self.segment_bytes.to_le_bytes());
        block[88..96].copy_from_slice(&self.previous_end.to_le_bytes());
        block[96..104].copy_from_slice(&self.previous_chain.to_le_bytes());
        block[104..112].copy_from_slice(&self.last_recorded_at.as_micros().to_le_bytes());
        let sum = crc64(&block[..SUM_AT]);
        block[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a header from a segment's first block.
    ///
    /// # Errors
    /// What makes it none. Magic, format and sum keep place and meaning in every version, so that
    /// a newer format is told from a damaged one.
    pub fn decode(block: &[u8]) -> Result<Self, HeaderFault> {
        let block: &[u8; BLOCK_BYTES] = block.first_chunk().ok_or(HeaderFault::Short)?;
        if is_zero(block) {
            return Err(HeaderFault::Zero);
        }
        let mut fields = Fields::new(block);
        if fields.array() != MAGIC {
            return Err(HeaderFault::Magic);
        }
        let format = fields.u32();
        if Self::sum_of(block) != crc64(&block[..SUM_AT]) {
            return Err(HeaderFault::Sum);
        }
        if format > FORMAT_VERSION {
            return Err(HeaderFault::Newer(format));
        }
        let zero = fields.u32();
        let header = Self {
            log_id: Uuid::from_bytes(fields.array()),
            segment_id: Uuid::from_bytes(fields.array()),
            number: fields.u64(),
            first_position: Position(fields.u64()),
            epoch: fields.u64(),
            created_at: Timestamp::from_micros(fields.i64()),
            segment_bytes: fields.u64(),
            previous_end: fields.u64(),
            previous_chain: fields.u64(),
            last_recorded_at: Timestamp::from_micros(fields.i64()),
        };
        let in_range = format == FORMAT_VERSION
            && zero == 0
            && is_zero(&block[ZERO_FROM..SUM_AT])
            && header.segment_bytes.is_multiple_of(BLOCK_BYTES as u64)
            && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&header.segment_bytes)
            && (header.number != 1 || (header.previous_end == 0 && header.previous_chain == 0));
        if in_range { Ok(header) } else { Err(HeaderFault::Field) }
    }

    /// The header's own sum, to which the segment's first group is chained.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.encode().first_chunk().map_or(0, Self::sum_of)
    }

    fn sum_of(block: &[u8; BLOCK_BYTES]) -> u64 {
        Fields::new(&block[SUM_AT..]).u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log_id: Uuid::from_u128(1),
            segment_id: Uuid::from_u128(2),
            number: 3,
            first_position: Position(4),
            epoch: 5,
            created_at: Timestamp::from_micros(6),
            segment_bytes: 1 << 20,
            previous_end: 8192,
            previous_chain: 9,
            last_recorded_at: Timestamp::from_micros(10),
        }
    }

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_is_seen() {
        let block = header().encode();
        assert_eq!(SegmentHeader::decode(&block), Ok(header()));
        for bit in 0..BLOCK_BYTES * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named_not_called_damaged() {
        let mut block = header().encode();
        block[8] = 2;
        let sum = crc64(&block[..SUM_AT]);
        block[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderFault::Newer(2)));
    }

    #[test]
    fn a_spare_is_told_from_damage() {
        assert_eq!(SegmentHeader::decode(&[0; BLOCK_BYTES]), Err(HeaderFault::Zero));
        assert_eq!(SegmentHeader::decode(&[0; 10]), Err(HeaderFault::Short));
    }
}
