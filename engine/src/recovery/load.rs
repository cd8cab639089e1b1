//! Fills the indexes of the active segment from its groups, while they are being found.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use crate::format::group::GroupKind;
use crate::index::generation::Generation;
use crate::index::keys::KeyHasher;
use crate::index::live::LiveIndex;
use crate::segment::{Segment, WholeGroup};

/// Groups that may wait to be loaded.
const GROUPS_AHEAD: usize = 4;
/// A smaller file is loaded before a thread for it has begun.
const BYTES_WORTH_A_THREAD: u64 = 8 << 20;

/// Loads the groups that `scan` finds; in a thread of its own where they may be many, for finding
/// them, with every checksum, takes as long as loading them does.
///
/// # Errors
/// What `scan` meets, or that no thread can be had.
pub fn while_scanning<T>(
    segment: &Segment,
    file_bytes: u64,
    hasher: KeyHasher,
    active: &mut Generation,
    scan: impl FnOnce(&mut dyn FnMut(WholeGroup)) -> io::Result<T>,
) -> io::Result<T> {
    let mut load = move |whole: &WholeGroup| {
        publish(segment, hasher, whole, whole.group.bytes().clone(), Some(&mut *active));
    };
    if file_bytes < BYTES_WORTH_A_THREAD {
        return scan(&mut |whole| load(&whole));
    }
    std::thread::scope(|scope| {
        let (found, groups) = sync_channel::<WholeGroup>(GROUPS_AHEAD);
        let load_all = move || groups.iter().for_each(|whole| load(&whole));
        std::thread::Builder::new().name("quipu-load".to_owned()).spawn_scoped(scope, load_all)?;
        // The loader is gone only if it has panicked, and then so does the scope.
        scan(&mut |whole| found.send(whole).unwrap_or_default())
    })
}

/// Makes a durable group of a live segment visible, keeping these bytes of it, and takes what it
/// holds.
pub fn publish(
    segment: &Segment,
    hasher: KeyHasher,
    WholeGroup { group, records }: &WholeGroup,
    bytes: Bytes,
    mut active: Option<&mut Generation>,
) {
    if group.header.kind != GroupKind::Data {
        return;
    }
    segment.publish(&group.header, bytes, |live: &mut LiveIndex| {
        for record in records {
            let key = Arc::new(record.aggregate());
            let hash = hasher.aggregate(&key);
            live.push_record(hash, &key, record.version(), record.position());
            if let Some(active) = &mut active {
                let (version, position) = (record.version(), record.position());
                let wide = hasher.wide(&key.aggregate_type, &key.aggregate_id);
                active.raise(&wide, version.previous(), version, position);
                active.insert_id(&hasher.id(record.event_id()), position);
            }
        }
    });
}
