//! A group: what one durable write carries (segments-format.md §5).

use bytes::Bytes;
use quipu_types::record::{self, HEADER_BYTES, NotARecord, RecordHeader};
use quipu_types::{Position, Record, Uuid};

use super::sum::crc64;
use super::{BLOCK_BYTES, BlockBuffer, Fields, GROUP_BYTES_MAX, block_ceil, is_zero};

const MAGIC: [u8; 4] = *b"QGRP";
/// Bytes of a group's header.
pub const GROUP_HEADER_BYTES: usize = 96;
/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 16;
const SUM_AT: usize = 88;

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Carries frames.
    Data,
    /// First group of an epoch in a segment that has groups already.
    Start,
    /// Covers what was written before it, in a quiet moment.
    Witness,
    /// Ends an orderly close.
    Clean,
    /// Ends the segment.
    Seal,
}

impl GroupKind {
    fn encode(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Start => 2,
            Self::Witness => 3,
            Self::Clean => 4,
            Self::Seal => 5,
        }
    }

    fn decode(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Data,
            2 => Self::Start,
            3 => Self::Witness,
            4 => Self::Clean,
            5 => Self::Seal,
            _ => return None,
        })
    }
}

/// A group's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// What it is for.
    pub kind: GroupKind,
    /// Length of the whole group, a multiple of 4,096.
    pub group_bytes: u32,
    /// Length of the frames.
    pub body_bytes: u32,
    /// Number of frames.
    pub frames: u32,
    /// Number of records.
    pub records: u32,
    /// The epoch in which it was written.
    pub epoch: u64,
    /// Its own offset in the segment.
    pub offset: u64,
    /// Position of its first record, or of the next one there will be.
    pub first_position: Position,
    /// Everything in the segment before this offset was durable when the group was built.
    pub durable_upto: u64,
    /// Sum of what stands before it.
    pub chain: u64,
    /// Its own sum.
    pub sum: u64,
}

impl GroupHeader {
    /// Reads a header from the start of a block, checking only what can be checked without the
    /// rest: magic, kind, zeros, lengths.
    #[must_use]
    pub fn decode(block: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(block.first_chunk::<GROUP_HEADER_BYTES>()?);
        if fields.array() != MAGIC {
            return None;
        }
        let kind = GroupKind::decode(fields.u8())?;
        let zero_a: [u8; 3] = fields.array();
        let header = Self {
            kind,
            group_bytes: fields.u32(),
            body_bytes: fields.u32(),
            frames: fields.u32(),
            records: fields.u32(),
            epoch: fields.u64(),
            offset: fields.u64(),
            first_position: Position(fields.u64()),
            durable_upto: fields.u64(),
            chain: fields.u64(),
            sum: {
                let zero_b: [u8; 24] = fields.array();
                if !is_zero(&zero_b) {
                    return None;
                }
                fields.u64()
            },
        };
        let length = GROUP_HEADER_BYTES + header.body_bytes as usize;
        let data = header.kind == GroupKind::Data;
        let consistent = zero_a == [0; 3]
            && length <= GROUP_BYTES_MAX
            && header.group_bytes as usize == block_ceil(length)
            && header.first_position.0.checked_add(header.records.into()).is_some()
            && (header.frames > 0) == data
            && (header.records > 0) == data
            && (header.body_bytes > 0) == data;
        consistent.then_some(header)
    }

    fn encode(&self, out: &mut [u8]) {
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = self.kind.encode();
        out[8..12].copy_from_slice(&self.group_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.frames.to_le_bytes());
        out[20..24].copy_from_slice(&self.records.to_le_bytes());
        out[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        out[32..40].copy_from_slice(&self.offset.to_le_bytes());
        out[40..48].copy_from_slice(&self.first_position.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.durable_upto.to_le_bytes());
        out[56..64].copy_from_slice(&self.chain.to_le_bytes());
        out[SUM_AT..GROUP_HEADER_BYTES].copy_from_slice(&self.sum.to_le_bytes());
    }

    /// Offset right after the group.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.group_bytes)
    }

    /// Position of the next record after the group.
    #[must_use]
    pub fn next_position(&self) -> Position {
        Position(self.first_position.0 + u64::from(self.records))
    }
}

/// Where a group of records stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSpan {
    /// Position of its first record.
    pub first_position: Position,
    /// Its offset in the segment.
    pub offset: u64,
    /// Its length.
    pub bytes: usize,
}

/// Where a group will stand, and after what.
#[derive(Clone, Copy, Debug)]
pub struct GroupPlace {
    /// The segment's random id.
    pub segment_id: Uuid,
    /// The epoch.
    pub epoch: u64,
    /// The group's offset.
    pub offset: u64,
    /// Position of its first record, or of the next one there will be.
    pub first_position: Position,
    /// Everything in the segment before this offset is durable.
    pub durable_upto: u64,
    /// Sum of what stands before it.
    pub chain: u64,
}

/// A group under construction: frames are copied in, their record headers are stamped, and
/// [`GroupBuilder::finish`] makes it ready for the disk.
pub struct GroupBuilder {
    bytes: BlockBuffer,
    /// Segment id and every header so far, in the order the sum covers them.
    summed: Vec<u8>,
    place: GroupPlace,
    frames: u32,
    records: u32,
}

impl GroupBuilder {
    /// An empty group at `place`, built in an empty buffer.
    #[must_use]
    pub fn new(place: GroupPlace, mut bytes: BlockBuffer) -> Self {
        bytes.extend_from_slice(&[0; GROUP_HEADER_BYTES]);
        let mut summed = Vec::with_capacity(BLOCK_BYTES);
        summed.extend_from_slice(place.segment_id.as_bytes());
        Self { bytes, summed, place, frames: 0, records: 0 }
    }

    /// Length of the whole group if a frame of `frame_bytes` is added.
    #[must_use]
    pub fn bytes_with(&self, frame_bytes: usize) -> usize {
        block_ceil(self.bytes.len() + frame_bytes)
    }

    /// Whether there is no frame yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Position of the next record to be added.
    #[must_use]
    pub fn next_position(&self) -> Position {
        Position(self.place.first_position.0 + u64::from(self.records))
    }

    /// Adds a frame. `records` gives the place of each record in it; `stamp` is called for each
    /// with its index, its position and its bytes, to fill the header.
    pub fn push(
        &mut self,
        frame: &[u8],
        records: impl Iterator<Item = usize>,
        mut stamp: impl FnMut(usize, Position, &mut [u8]),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.summed.extend_from_slice(&frame[..FRAME_HEADER_BYTES]);
        for (index, at) in records.enumerate() {
            let position = self.next_position();
            let record = &mut self.bytes[start + at..];
            stamp(index, position, record);
            self.summed.extend_from_slice(&record[..HEADER_BYTES]);
            self.records += 1;
        }
        self.frames += 1;
    }

    /// Pads and sums the group.
    #[must_use]
    pub fn finish(self, kind: GroupKind) -> (GroupHeader, BlockBuffer) {
        let Self { mut bytes, mut summed, place, frames, records } = self;
        let length = bytes.len();
        bytes.resize(block_ceil(length), 0);
        let mut header = GroupHeader {
            kind,
            group_bytes: u32::try_from(bytes.len()).expect("GROUP_BYTES_MAX fits 32 bits"),
            body_bytes: u32::try_from(length - GROUP_HEADER_BYTES).expect("shorter still"),
            frames,
            records,
            epoch: place.epoch,
            offset: place.offset,
            first_position: place.first_position,
            durable_upto: place.durable_upto,
            chain: place.chain,
            sum: 0,
        };
        header.encode(&mut bytes);
        summed.extend_from_slice(&bytes[..SUM_AT]);
        header.sum = crc64(&summed);
        bytes[SUM_AT..GROUP_HEADER_BYTES].copy_from_slice(&header.sum.to_le_bytes());
        (header, bytes)
    }
}

/// Writes a frame's header into the bytes reserved for it.
pub fn write_frame_header(frame: &mut [u8], records: usize) {
    let length = u32::try_from(frame.len()).expect("an append fits 32 bits");
    let records = u32::try_from(records).expect("fewer than bytes");
    frame[0..4].copy_from_slice(&length.to_le_bytes());
    frame[4..8].copy_from_slice(&records.to_le_bytes());
}

/// Bytes that are not a valid group at their place, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupFault {
    /// No group header.
    #[error("no group begins here")]
    Header,
    /// The group says it belongs elsewhere.
    #[error("a group for offset {0} stands here")]
    Offset(u64),
    /// It would end beyond the segment, or its `durable_upto` lies beyond itself.
    #[error("the group header has a field out of range")]
    Range,
    /// The bytes end before the group does.
    #[error("the group is cut off")]
    Short,
    /// The sum does not match.
    #[error("the group's checksum does not match")]
    Sum,
    /// Frames, records or counts do not add up.
    #[error("the group's frames do not add up")]
    Frames,
    /// Positions are not contiguous.
    #[error("the group's positions are not contiguous")]
    Positions,
    /// The padding is not zero.
    #[error("the group's padding is not zero")]
    Padding,
    /// A record is not valid.
    #[error("the record at position {0} is not valid: {1}")]
    Record(Position, NotARecord),
}

/// A group whose headers, counts, padding and sum have been checked; its records' archives are
/// checked when they are taken ([`Group::record`]).
#[derive(Clone, Debug)]
pub struct Group {
    /// The group's header.
    pub header: GroupHeader,
    bytes: Bytes,
    /// Where each record starts.
    records: Vec<u32>,
}

impl Group {
    /// Checks the group at `offset` of a segment, given bytes that begin with it (and may go on).
    ///
    /// # Errors
    /// The first rule of segments-format.md §5.3 that is broken, rule 10 (the archives) left out.
    pub fn check(
        bytes: &Bytes,
        segment_id: Uuid,
        offset: u64,
        segment_bytes: u64,
    ) -> Result<Self, GroupFault> {
        let header = GroupHeader::decode(bytes).ok_or(GroupFault::Header)?;
        if header.offset != offset {
            return Err(GroupFault::Offset(header.offset));
        }
        let blocks = BLOCK_BYTES as u64;
        let in_range = offset >= blocks
            && offset.is_multiple_of(blocks)
            && header.end() <= segment_bytes
            && header.durable_upto.is_multiple_of(blocks)
            && (blocks..=offset).contains(&header.durable_upto);
        if !in_range {
            return Err(GroupFault::Range);
        }
        if bytes.len() < header.group_bytes as usize {
            return Err(GroupFault::Short);
        }
        let bytes = bytes.slice(..header.group_bytes as usize);
        let body_end = GROUP_HEADER_BYTES + header.body_bytes as usize;
        let (records, mut summed) = walk_frames(&bytes[..body_end], &header, segment_id)?;
        summed.extend_from_slice(&bytes[..SUM_AT]);
        if crc64(&summed) != header.sum {
            return Err(GroupFault::Sum);
        }
        if !is_zero(&bytes[body_end..]) {
            return Err(GroupFault::Padding);
        }
        Ok(Self { header, bytes, records })
    }

    /// The record at `position`, its archive checked.
    ///
    /// # Errors
    /// That it is not valid, or not in this group.
    pub fn record(&self, position: Position) -> Result<Record, GroupFault> {
        let index = position.0.wrapping_sub(self.header.first_position.0);
        let at = usize::try_from(index).ok().and_then(|index| self.records.get(index));
        let at = *at.ok_or(GroupFault::Positions)? as usize;
        let length = RecordHeader::decode(&self.bytes[at..]).map_or(0, |it| it.record_bytes());
        // `walk_frames` has seen that the record lies inside the group.
        Record::parse(self.bytes.slice(at..at + length))
            .map_err(|fault| GroupFault::Record(position, fault))
    }

    /// Where each record stands in the segment, in order.
    pub fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.records.iter().map(|at| self.header.offset + u64::from(*at))
    }

    /// The whole group.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether `position` is one of the group's.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        (self.header.first_position..self.header.next_position()).contains(&position)
    }

    /// Every record, in order, each checked.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, GroupFault>> + '_ {
        (self.header.first_position.0..self.header.next_position().0)
            .map(|position| self.record(Position(position)))
    }
}

fn walk_frames(
    body: &[u8],
    header: &GroupHeader,
    segment_id: Uuid,
) -> Result<(Vec<u32>, Vec<u8>), GroupFault> {
    // A record has at least a header: the counts cannot make these allocations exceed the body.
    let room = (header.records as usize).min(body.len() / HEADER_BYTES);
    let mut records = Vec::with_capacity(room);
    let mut summed = Vec::with_capacity(256 + room * (HEADER_BYTES + FRAME_HEADER_BYTES));
    summed.extend_from_slice(segment_id.as_bytes());
    let mut at = GROUP_HEADER_BYTES;
    let mut frames = 0_u32;
    while at < body.len() {
        let frame_header = body.get(at..at + FRAME_HEADER_BYTES).ok_or(GroupFault::Frames)?;
        summed.extend_from_slice(frame_header);
        let mut fields = Fields::new(frame_header);
        let (frame_bytes, frame_records) = (fields.u32() as usize, fields.u32());
        let frame_end = at + frame_bytes;
        if fields.u64() != 0 || frame_records == 0 || frame_end > body.len() {
            return Err(GroupFault::Frames);
        }
        at += FRAME_HEADER_BYTES;
        for _ in 0..frame_records {
            at = walk_record(body, at, frame_end, header, &mut records, &mut summed)?;
        }
        if at != frame_end {
            return Err(GroupFault::Frames);
        }
        frames += 1;
    }
    if frames != header.frames || records.len() != header.records as usize {
        return Err(GroupFault::Frames);
    }
    Ok((records, summed))
}

/// Takes the record at `at`; returns where the next one begins.
fn walk_record(
    body: &[u8],
    at: usize,
    frame_end: usize,
    group: &GroupHeader,
    records: &mut Vec<u32>,
    summed: &mut Vec<u8>,
) -> Result<usize, GroupFault> {
    let rest = body.get(at..frame_end).ok_or(GroupFault::Frames)?;
    let header = RecordHeader::decode(rest).ok_or(GroupFault::Frames)?;
    if header.record_bytes() > rest.len()
        || !header.record_bytes().is_multiple_of(record::RECORD_ALIGN)
    {
        return Err(GroupFault::Frames);
    }
    if header.position.0 != group.first_position.0.wrapping_add(records.len() as u64) {
        return Err(GroupFault::Positions);
    }
    records.push(u32::try_from(at).map_err(|_| GroupFault::Frames)?);
    summed.extend_from_slice(&rest[..HEADER_BYTES]);
    Ok(at + header.record_bytes())
}

#[cfg(test)]
mod tests {
    use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
    use quipu_types::{AggregateKey, NewEvent, Timestamp, Version};
    use rkyv::ser::allocator::Arena;

    use super::*;

    const SEGMENT: Uuid = Uuid::from_u128(7);
    const SEGMENT_BYTES: u64 = 1 << 20;

    fn place() -> GroupPlace {
        GroupPlace {
            segment_id: SEGMENT,
            epoch: 1,
            offset: 4096,
            first_position: Position(1),
            durable_upto: 4096,
            chain: 5,
        }
    }

    fn group() -> Bytes {
        let mut builder = GroupBuilder::new(place(), BlockBuffer::new());
        for id in 1..=2_u128 {
            let key = AggregateKey::new("T", "1");
            let time = Timestamp::from_micros(0);
            let event = NewEvent::json(Uuid::from_u128(id), key, "E", time, "{}");
            let mut frame = RecordBuffer::new();
            frame.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
            let mut frame = encode(frame, &EventBody::from(&event), &mut Arena::new());
            write_frame_header(&mut frame, 1);
            builder.push(&frame, [FRAME_HEADER_BYTES].into_iter(), |_, position, record| {
                stamp(record, position, Version(position.0), time);
            });
        }
        Bytes::from_owner(builder.finish(GroupKind::Data).1)
    }

    fn valid(bytes: &Bytes) -> bool {
        Group::check(bytes, SEGMENT, 4096, SEGMENT_BYTES)
            .is_ok_and(|group| group.records().all(|record| record.is_ok()))
    }

    #[test]
    fn a_group_reads_back() {
        let group = Group::check(&group(), SEGMENT, 4096, SEGMENT_BYTES).unwrap();
        let ids: Vec<_> = group.records().map(|record| record.unwrap().event_id()).collect();
        assert_eq!(ids, [Uuid::from_u128(1), Uuid::from_u128(2)]);
        assert_eq!(group.header.next_position(), Position(3));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let bytes = group();
        assert!(valid(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = BlockBuffer::new();
            damaged.extend_from_slice(&bytes);
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!valid(&Bytes::from_owner(damaged)), "bit {bit}");
        }
    }

    #[test]
    fn a_group_of_another_segment_or_place_is_none() {
        let bytes = group();
        assert!(Group::check(&bytes, Uuid::from_u128(8), 4096, SEGMENT_BYTES).is_err());
        assert!(Group::check(&bytes, SEGMENT, 8192, SEGMENT_BYTES).is_err());
        assert!(Group::check(&bytes.slice(..100), SEGMENT, 4096, SEGMENT_BYTES).is_err());
    }
}
