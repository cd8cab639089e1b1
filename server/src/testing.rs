//! A log, and what a connection would be sent, for the tests of this crate's own modules.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use quipu_engine::{
    Access, Backend, DiskStorage, Environment, EventLog, LogOptions, Mapping, System,
};
use quipu_protocol::{Framer, HANDSHAKE_BYTES_MAX, MAGIC, Progress, Response};
use tempfile::TempDir;

use crate::outbox::Outbox;

pub(crate) fn log(folder: &TempDir) -> EventLog {
    let path = folder.path();
    let storage = DiskStorage::open(path, Access::ReadWrite, Backend::Auto, Mapping::Mapped);
    let env = Environment {
        storage: Arc::new(storage.unwrap()),
        clock: Arc::new(System),
        entropy: Arc::new(System),
    };
    EventLog::open(env, LogOptions { segment_bytes: 64 << 20, ..LogOptions::default() }).unwrap()
}

/// What an outbox would write next, as its client sees it.
pub(crate) fn written(outbox: &Outbox) -> Vec<(u64, Response)> {
    let mut chunks = VecDeque::new();
    outbox.take(&mut chunks);
    let mut bytes = BytesMut::from(&MAGIC[..]);
    for chunk in &chunks {
        bytes.extend_from_slice(&chunk.bytes);
    }
    let mut framer = Framer::new();
    framer.set_bytes_max(HANDSHAKE_BYTES_MAX);
    std::iter::from_fn(|| match framer.advance(&mut bytes).unwrap() {
        Progress::Frame(frame) => Some((frame.request_id, Response::decode(&frame).unwrap())),
        Progress::Need(_) => None,
    })
    .collect()
}
