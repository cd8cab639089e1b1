//! The file of a sorted run (segments-format.md §15): event ids and aggregates of some sealed
//! segments, each in a table of blocks that are searched in place. Derived.

use quipu_types::{Position, Uuid};

use super::filter::FILTER_BLOCK_BYTES;
use super::group::GroupHeader;
use super::index_file::IndexFile;
use super::sum::{crc64, crc64_of};
use super::{BLOCK_BYTES, BlockBuffer, Fields, is_zero, zeroed_blocks};

pub(crate) const MAGIC: [u8; 8] = *b"QUIPURUN";
pub(crate) const RUN_FORMAT: u32 = 2;
const SUM_BYTES: usize = 8;
const SUM_AT: usize = BLOCK_BYTES - SUM_BYTES;
const KEY_BYTES: usize = 16;
const ZERO_FROM: usize = 152;

/// What an entry is found by: an event id, or the wide hash of an aggregate's key.
pub type Key = [u8; KEY_BYTES];

/// A key and what is known of it, in `N` words: of an event id its position; of an aggregate its
/// newest version, that one's position, and a [set](super::segment_set::SegmentSet) of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<const N: usize> {
    /// What it is found by.
    pub key: Key,
    /// What is known.
    pub value: [u64; N],
}

/// The segments that a run covers, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of the first.
    pub first_segment: u64,
    /// Number of the last.
    pub last_segment: u64,
    /// Sum of the last one's SEAL: it stands for everything up to there.
    pub seal_sum: u64,
    /// Position of the first record.
    pub first_position: Position,
    /// Position after the last record.
    pub next_position: Position,
}

impl Span {
    /// Of one segment, which begins at this position and ends with this SEAL.
    #[must_use]
    pub fn of_segment(number: u64, first_position: Position, seal: &GroupHeader) -> Self {
        Self {
            first_segment: number,
            last_segment: number,
            seal_sum: seal.sum,
            first_position,
            next_position: seal.next_position(),
        }
    }

    /// Of one segment, by its index file.
    #[must_use]
    pub fn of_index(number: u64, index: &IndexFile) -> Self {
        let header = index.header();
        Self {
            first_segment: number,
            last_segment: number,
            seal_sum: header.seal_sum,
            first_position: header.first_position,
            next_position: Position(header.first_position.0 + index.records()),
        }
    }

    /// Whether it covers a segment.
    #[must_use]
    pub fn covers(&self, segment: u64) -> bool {
        (self.first_segment..=self.last_segment).contains(&segment)
    }

    /// How many segments.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.last_segment - self.first_segment + 1
    }

    /// How many records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.next_position.0 - self.first_position.0
    }
}

/// How large a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    /// Entries.
    pub entries: u64,
    /// Blocks of its filter; 0 if it has none.
    pub filter_blocks: u32,
    /// The greatest key; zeros in an empty table.
    pub last_key: Key,
}

impl TableSize {
    /// Blocks of entries of `N` words.
    #[must_use]
    pub fn blocks<const N: usize>(&self) -> u64 {
        self.entries.div_ceil(entries_a_block::<N>() as u64)
    }

    fn filter_bytes(&self) -> u64 {
        u64::from(self.filter_blocks) * FILTER_BLOCK_BYTES as u64
    }
}

/// The first block of a run's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// The log.
    pub log_id: Uuid,
    /// What it covers.
    pub span: Span,
    /// Aggregates whose first event lies in the span.
    pub born: u64,
    /// The table of event ids.
    pub ids: TableSize,
    /// The table of aggregates.
    pub aggregates: TableSize,
    /// Sum of the first keys and the filters.
    pub tail_sum: u64,
}

/// Why a file was not taken for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunFault {
    /// It does not begin like one, or has another format.
    #[error("it is no run of this version")]
    Header,
    /// It belongs to another log, or to another state of it.
    #[error("it belongs to another log, or to another state of this one")]
    OtherLog,
    /// Its length is not what its counts say.
    #[error("its length is not what its counts say")]
    Length,
    /// A sum does not match.
    #[error("a checksum does not match")]
    Sum,
    /// Keys are not in order.
    #[error("its keys are not in order")]
    Order,
}

impl RunHeader {
    /// The header as the file's first block.
    #[must_use]
    pub fn encode(&self) -> BlockBuffer {
        let mut fields = Vec::with_capacity(ZERO_FROM);
        fields.extend_from_slice(&MAGIC);
        fields.extend_from_slice(&RUN_FORMAT.to_le_bytes());
        fields.extend_from_slice(&[0; 4]);
        fields.extend_from_slice(self.log_id.as_bytes());
        let span = &self.span;
        for number in [
            span.first_segment,
            span.last_segment,
            span.seal_sum,
            span.first_position.0,
            span.next_position.0,
            self.born,
        ] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        for table in [&self.ids, &self.aggregates] {
            fields.extend_from_slice(&table.entries.to_le_bytes());
            fields.extend_from_slice(&table.last_key);
            fields.extend_from_slice(&u64::from(table.filter_blocks).to_le_bytes());
        }
        fields.extend_from_slice(&self.tail_sum.to_le_bytes());
        let mut block = zeroed_blocks(BLOCK_BYTES);
        block[..fields.len()].copy_from_slice(&fields);
        let sum = crc64(&block[..SUM_AT]);
        block[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a header from a file's first block.
    ///
    /// # Errors
    /// What makes it none.
    pub fn decode(block: &[u8]) -> Result<Self, RunFault> {
        let block: &[u8; BLOCK_BYTES] = block.first_chunk().ok_or(RunFault::Length)?;
        let mut fields = Fields::new(block);
        if fields.array() != MAGIC || fields.u32() != RUN_FORMAT || fields.u32() != 0 {
            return Err(RunFault::Header);
        }
        if Fields::new(&block[SUM_AT..]).u64() != crc64(&block[..SUM_AT]) {
            return Err(RunFault::Sum);
        }
        let log_id = Uuid::from_bytes(fields.array());
        let span = Span {
            first_segment: fields.u64(),
            last_segment: fields.u64(),
            seal_sum: fields.u64(),
            first_position: Position(fields.u64()),
            next_position: Position(fields.u64()),
        };
        let born = fields.u64();
        let mut table = || {
            let (entries, last_key) = (fields.u64(), fields.array());
            let filter_blocks = u32::try_from(fields.u64()).ok()?;
            Some(TableSize { entries, filter_blocks, last_key })
        };
        let (ids, aggregates) = (table(), table());
        let (ids, aggregates) = ids.zip(aggregates).ok_or(RunFault::Header)?;
        let tail_sum = fields.u64();
        let header = Self { log_id, span, born, ids, aggregates, tail_sum };
        let in_order = span.first_segment >= 1
            && span.first_segment <= span.last_segment
            && span.first_position <= span.next_position
            && ids.entries <= span.records()
            && aggregates.entries <= span.records();
        let is_padded = is_zero(&block[ZERO_FROM..SUM_AT]);
        if in_order && is_padded { Ok(header) } else { Err(RunFault::Header) }
    }

    /// Number of the first block of aggregates.
    #[must_use]
    pub fn first_aggregate_block(&self) -> u64 {
        1 + self.ids.blocks::<1>()
    }

    /// Where first keys and filters begin: those of the ids, of the aggregates, the two filters.
    #[must_use]
    pub fn tail_at(&self) -> u64 {
        (self.first_aggregate_block() + self.aggregates.blocks::<3>()) * BLOCK_BYTES as u64
    }

    /// Lengths of the parts of the tail, in their order.
    #[must_use]
    pub fn tail_parts(&self) -> [u64; 4] {
        let (ids, aggregates) = (&self.ids, &self.aggregates);
        [
            ids.blocks::<1>() * KEY_BYTES as u64,
            aggregates.blocks::<3>() * KEY_BYTES as u64,
            ids.filter_bytes(),
            aggregates.filter_bytes(),
        ]
    }

    /// Length of the whole file; `None` if no file is so long.
    #[must_use]
    pub fn file_bytes(&self) -> Option<u64> {
        // Entries are bounded by positions, which may be any number in a file from outside.
        if self.ids.entries > u64::MAX >> 8 || self.aggregates.entries > u64::MAX >> 8 {
            return None;
        }
        let tail: u64 = self.tail_parts().iter().sum();
        Some((self.tail_at() + tail).next_multiple_of(BLOCK_BYTES as u64))
    }
}

/// How many entries of `N` words a block holds.
#[must_use]
pub const fn entries_a_block<const N: usize>() -> usize {
    SUM_AT / entry_bytes::<N>()
}

const fn entry_bytes<const N: usize>() -> usize {
    KEY_BYTES + 8 * N
}

/// Writes up to a block of entries, at its place in the file of this span.
pub fn encode_block<const N: usize>(
    entries: &[Entry<N>],
    number: u64,
    span: &Span,
    block: &mut [u8; BLOCK_BYTES],
) {
    block.fill(0);
    for (entry, at) in entries.iter().zip(block.chunks_exact_mut(entry_bytes::<N>())) {
        at[..KEY_BYTES].copy_from_slice(&entry.key);
        for (word, at) in entry.value.iter().zip(at[KEY_BYTES..].chunks_exact_mut(8)) {
            at.copy_from_slice(&word.to_le_bytes());
        }
    }
    let sum = block_sum(&block[..SUM_AT], number, span);
    block[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
}

/// A block of a table whose sum was found right.
#[derive(Clone, Copy)]
pub struct TableBlock<'a, const N: usize> {
    entries: &'a [u8],
}

impl<'a, const N: usize> TableBlock<'a, N> {
    /// Checks the block with this number of a file, which holds so many entries.
    ///
    /// # Errors
    /// That it is not what was written there.
    pub fn check(
        block: &'a [u8],
        entries: usize,
        number: u64,
        span: &Span,
    ) -> Result<Self, RunFault> {
        let block: &[u8; BLOCK_BYTES] = block.first_chunk().ok_or(RunFault::Length)?;
        if Fields::new(&block[SUM_AT..]).u64() != block_sum(&block[..SUM_AT], number, span) {
            return Err(RunFault::Sum);
        }
        let entries = block[..SUM_AT].get(..entries * entry_bytes::<N>());
        Ok(Self { entries: entries.ok_or(RunFault::Length)? })
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() / entry_bytes::<N>()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Its `index`th entry.
    #[must_use]
    pub fn entry(&self, index: usize) -> Entry<N> {
        let at = index * entry_bytes::<N>();
        let mut fields = Fields::new(self.entries.get(at..).unwrap_or_default());
        Entry { key: fields.array(), value: std::array::from_fn(|_| fields.u64()) }
    }

    /// What is known of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<[u64; N]> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let entry = self.entry(middle);
            match entry.key.cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(entry.value),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// Covers also where the block stands, and what the file covers: one that was misdirected, or is
/// left of an earlier file, does not match.
fn block_sum(entries: &[u8], number: u64, span: &Span) -> u64 {
    let place = [number, span.first_segment, span.seal_sum].map(u64::to_le_bytes);
    crc64_of(&[entries, place.as_flattened()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> Span {
        Span {
            first_segment: 3,
            last_segment: 5,
            seal_sum: 9,
            first_position: Position(100),
            next_position: Position(1_100),
        }
    }

    fn header() -> RunHeader {
        let table =
            |entries, filter_blocks| TableSize { entries, filter_blocks, last_key: [7; 16] };
        RunHeader {
            log_id: Uuid::from_u128(1),
            span: span(),
            born: 4,
            ids: table(1_000, 32),
            aggregates: table(40, 0),
            tail_sum: 77,
        }
    }

    #[test]
    fn a_header_comes_back_and_any_flip_in_it_is_seen() {
        let block = header().encode();
        assert_eq!(RunHeader::decode(&block), Ok(header()));
        for at in 0..block.len() {
            let mut broken = block.clone();
            broken[at] ^= 1;
            assert!(RunHeader::decode(&broken).is_err(), "byte {at}");
        }
        assert_eq!(RunHeader::decode(&block[..100]), Err(RunFault::Length));
    }

    #[test]
    fn places_follow_from_the_counts() {
        let header = header();
        assert_eq!(header.first_aggregate_block(), 7, "1,000 ids at 170 a block");
        assert_eq!(header.tail_at(), 8 * 4_096);
        assert_eq!(header.tail_parts(), [6 * 16, 16, 32 * 64, 0]);
        assert_eq!(header.file_bytes(), Some(9 * 4_096));
    }

    #[test]
    fn a_block_answers_for_its_keys_only_and_only_in_its_place() {
        let entry = |number: u8| Entry { key: [number; 16], value: [u64::from(number), 7] };
        let entries: Vec<Entry<2>> = (1..=100).map(|number| entry(number * 2)).collect();
        let mut block = [0xff; BLOCK_BYTES];
        encode_block(&entries, 4, &span(), &mut block);
        let checked = TableBlock::<2>::check(&block, 100, 4, &span()).unwrap();
        assert_eq!((checked.len(), checked.entry(99)), (100, entry(200)));
        for number in 0..=201_u8 {
            let known = number > 0 && number % 2 == 0;
            let expected = known.then_some([u64::from(number), 7]);
            assert_eq!(checked.get(&[number; 16]), expected, "{number}");
        }
        let elsewhere = Span { seal_sum: 10, ..span() };
        assert!(TableBlock::<2>::check(&block, 100, 5, &span()).is_err());
        assert!(TableBlock::<2>::check(&block, 100, 4, &elsewhere).is_err());
        assert!(TableBlock::<2>::check(&block, 128, 4, &span()).is_err(), "more than it holds");
        block[17] ^= 4;
        assert!(TableBlock::<2>::check(&block, 100, 4, &span()).is_err());
    }
}
