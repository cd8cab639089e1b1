//! No block, however broken, makes the decoder of segment headers panic, and a header that is
//! accepted is written as the very bytes it was read from.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use libfuzzer_sys::fuzz_target;
use quipu_engine::format::BLOCK_BYTES;
use quipu_engine::format::segment_header::SegmentHeader;
use quipu_engine::format::sum::crc64;
use quipu_types::{Position, Timestamp, Uuid};

const SUM_AT: usize = BLOCK_BYTES - 8;

// Raw bytes, or edits of a valid header whose sum is mended, so that the checks behind the sum
// are met.
fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        b'r' => take(rest),
        _ => take(&edited(rest)),
    }
});

fn take(block: &[u8]) {
    let Ok(header) = SegmentHeader::decode(block) else { return };
    assert!(header.encode()[..] == block[..BLOCK_BYTES], "written otherwise than it was read");
    assert_eq!(header.chain().to_le_bytes(), block[SUM_AT..BLOCK_BYTES]);
    assert!(header.number != 1 || (header.previous_end == 0 && header.previous_chain == 0));
}

/// Each edit is three bytes: where (two, little-endian, taken modulo the length) and what to flip.
fn edited(edits: &[u8]) -> Vec<u8> {
    let header = SegmentHeader {
        log_id: Uuid::from_u128(1),
        segment_id: Uuid::from_u128(2),
        number: 3,
        first_position: Position(4),
        epoch: 5,
        created_at: Timestamp::from_micros(6),
        segment_bytes: 1 << 20,
        previous_end: 8_192,
        previous_chain: 9,
        last_recorded_at: Timestamp::from_micros(10),
    };
    let mut block = header.encode().to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % BLOCK_BYTES;
        block[at] ^= edit[2];
    }
    let sum = crc64(&block[..SUM_AT]);
    block[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    block
}
