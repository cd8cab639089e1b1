//! A log, and what a connection would be sent, for the tests of this crate's own modules.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quipu_engine::{
    Access, Backend, DiskStorage, Environment, EventLog, LogOptions, Mapping, System,
};
use quipu_protocol::{Framer, HANDSHAKE_BYTES_MAX, MAGIC, Progress, Response};
use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
use quipu_types::{AggregateKey, NewEvent, Position, Record, Timestamp, Uuid, Version};
use rkyv::ser::allocator::Arena;
use tempfile::TempDir;

use crate::chunk::Chunk;
use crate::outbox::Outbox;

pub(crate) fn log(folder: &TempDir) -> EventLog {
    log_with(folder, LogOptions { segment_bytes: 64 << 20, ..LogOptions::default() })
}

pub(crate) fn log_with(folder: &TempDir, options: LogOptions) -> EventLog {
    let path = folder.path();
    let storage = DiskStorage::open(path, Access::ReadWrite, Backend::Auto, Mapping::Mapped);
    let env = Environment {
        storage: Arc::new(storage.unwrap()),
        clock: Arc::new(System),
        entropy: Arc::new(System),
    };
    EventLog::open(env, options).unwrap()
}

/// What an outbox would write next, as its client sees it.
pub(crate) fn written(outbox: &Outbox) -> Vec<(u64, Response)> {
    let mut chunks = VecDeque::new();
    outbox.take(&mut chunks);
    let mut bytes = BytesMut::from(&MAGIC[..]);
    for part in chunks.iter().flat_map(Chunk::parts) {
        bytes.extend_from_slice(part);
    }
    let mut framer = Framer::new();
    framer.set_bytes_max(HANDSHAKE_BYTES_MAX);
    std::iter::from_fn(|| match framer.advance(&mut bytes).unwrap() {
        Progress::Frame(frame) => Some((frame.request_id, Response::decode(&frame).unwrap())),
        Progress::Need(_) => None,
    })
    .collect()
}

/// A small event at a position.
pub(crate) fn record(position: u64) -> Record {
    let key = AggregateKey::new("T", "1");
    let at = Timestamp::from_micros(1);
    let event = NewEvent::json(Uuid::from_u128(1), key, "Made", at, "{}");
    let mut bytes = encode(RecordBuffer::new(), &EventBody::from(&event), &mut Arena::new());
    stamp(&mut bytes, Position(position), Version(position), at);
    Record::parse(Bytes::from_owner(bytes)).unwrap()
}
