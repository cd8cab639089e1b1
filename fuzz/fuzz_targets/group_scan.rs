//! No bytes, however broken, make the check of a group, or its records, panic, and a group that is
//! accepted adds up.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use quipu_engine::format::group::{
    FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, Group, GroupBuilder, GroupHeader, GroupKind,
    GroupPlace, write_frame_header,
};
use quipu_engine::format::sum::crc64;
use quipu_engine::format::{BLOCK_BYTES, BlockBuffer};
use quipu_types::record::{EventBody, HEADER_BYTES, RecordBuffer, RecordHeader, encode, stamp};
use quipu_types::{AggregateKey, NewEvent, Position, Timestamp, Uuid, Version};
use rkyv::ser::allocator::Arena;

const SEGMENT: Uuid = Uuid::from_u128(7);
const SEGMENT_BYTES: u64 = 1 << 20;
const OFFSET: u64 = BLOCK_BYTES as u64;
const SUM_AT: usize = 88;

// Raw bytes, edits of a valid group, or such edits with the sums mended, so that what stands
// behind the sums is met.
fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        b'r' => take(aligned(rest)),
        b'e' => take(edited(rest)),
        _ => {
            let mut group = edited(rest);
            mend(&mut group);
            take(group);
        }
    }
});

fn take(bytes: BlockBuffer) {
    let bytes = Bytes::from_owner(bytes);
    let Ok(group) = Group::check(&bytes, SEGMENT, OFFSET, SEGMENT_BYTES) else { return };
    let header = group.header;
    assert!(header.end() <= SEGMENT_BYTES && header.group_bytes as usize <= bytes.len());
    let mut position = header.first_position;
    let mut records = 0;
    for record in group.records() {
        assert!(group.contains(position));
        if let Ok(record) = record {
            assert_eq!(record.position(), position);
            assert!(!format!("{record:?}{:?}", record.to_new_event()).is_empty());
        }
        position = position.next();
        records += 1;
    }
    assert_eq!((records, position), (header.records, header.next_position()));
    assert!(!group.contains(position));
    assert!(group.record(position).is_err());
}

fn aligned(bytes: &[u8]) -> BlockBuffer {
    let mut buffer = BlockBuffer::new();
    buffer.extend_from_slice(bytes);
    buffer
}

/// Each edit is three bytes: where (two, little-endian, taken modulo the length) and what to flip.
fn edited(edits: &[u8]) -> BlockBuffer {
    let mut group = aligned(&valid_group());
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % group.len();
        group[at] ^= edit[2];
    }
    group
}

fn valid_group() -> Bytes {
    let place = GroupPlace {
        segment_id: SEGMENT,
        epoch: 1,
        offset: OFFSET,
        first_position: Position(1),
        durable_upto: OFFSET,
        chain: 5,
    };
    let mut builder = GroupBuilder::new(place, BlockBuffer::new());
    for records in [1, 2] {
        let mut frame = RecordBuffer::new();
        frame.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        let mut places = Vec::new();
        for id in 0..records {
            places.push(frame.len());
            frame = encode(frame, &EventBody::from(&event(id + records)), &mut Arena::new());
        }
        write_frame_header(&mut frame, places.len());
        builder.push(&frame, places.into_iter(), |_, position, record| {
            stamp(record, position, Version(position.0), Timestamp::from_micros(0));
        });
    }
    Bytes::from_owner(builder.finish(GroupKind::Data).1)
}

fn event(id: u128) -> NewEvent {
    let key = AggregateKey::new("T", "1");
    NewEvent::json(Uuid::from_u128(id), key, "E", Timestamp::from_micros(0), "{}")
}

/// Makes the sums right for whatever the lengths in the headers say.
fn mend(group: &mut BlockBuffer) {
    let mut summed = SEGMENT.as_bytes().to_vec();
    let body_bytes = GroupHeader::decode(group).map_or(0, |header| header.body_bytes as usize);
    let body_end = (GROUP_HEADER_BYTES + body_bytes).min(group.len());
    let mut at = GROUP_HEADER_BYTES;
    while at + FRAME_HEADER_BYTES <= body_end {
        let word = |at: usize| {
            u32::from_le_bytes([group[at], group[at + 1], group[at + 2], group[at + 3]])
        };
        let frame_records = word(at + 4);
        summed.extend_from_slice(&group[at..at + FRAME_HEADER_BYTES]);
        at += FRAME_HEADER_BYTES;
        for _ in 0..frame_records {
            let Some(header) = RecordHeader::decode(&group[at..body_end]) else { break };
            let end = at + header.record_bytes();
            if end > body_end {
                break;
            }
            let crc = crc32fast::hash(&group[at + HEADER_BYTES..end]);
            group[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
            summed.extend_from_slice(&group[at..at + HEADER_BYTES]);
            at = end;
        }
    }
    summed.extend_from_slice(&group[..SUM_AT]);
    let sum = crc64(&summed);
    group[SUM_AT..GROUP_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
}
