//! Fills the indexes of segments at start: index files of sealed ones, groups of the active one.

use std::sync::Arc;

use quipu_types::Corruption;

use super::chain::Placed;
use crate::error::OpenError;
use crate::format::group::{Group, GroupHeader, GroupKind};
use crate::format::index_file::{IndexFault, IndexFile};
use crate::index::generation::Generation;
use crate::index::keys::KeyHasher;
use crate::index::live::LiveIndex;
use crate::index::rebuild::{self, RebuildError};
use crate::segment::Segment;
use crate::storage::{Storage, index_name};

/// The index file of a sealed segment: the saved one, or built again (true) and, if wanted, saved.
///
/// # Errors
/// That the disk refused; `Ok(Err(..))` where the segment itself is damaged.
pub fn index_of(
    storage: &dyn Storage,
    hasher: KeyHasher,
    placed: &Placed,
    seal: &GroupHeader,
    save: bool,
) -> Result<Result<(IndexFile, bool), Corruption>, OpenError> {
    let number = placed.header.number;
    match saved_index(storage, number, placed, seal) {
        Ok(index) => return Ok(Ok((index, false))),
        Err(problem) => tracing::info!(segment = number, problem, "building the index again"),
    }
    match rebuild::build(storage, hasher, &placed.header) {
        Ok(index) => {
            if save {
                rebuild::save(storage, number, &index);
            }
            Ok(Ok((index, true)))
        }
        Err(RebuildError::Corruption(damage)) => Ok(Err(damage)),
        Err(RebuildError::Io(error)) => {
            Err(OpenError::Io { action: format!("read segment {number}"), error })
        }
    }
}

fn saved_index(
    storage: &dyn Storage,
    number: u64,
    placed: &Placed,
    seal: &GroupHeader,
) -> Result<IndexFile, String> {
    let bytes = storage.map(&index_name(number)).map_err(|error| error.to_string())?;
    IndexFile::check(bytes, placed.header.segment_id, seal.sum)
        .map_err(|fault: IndexFault| fault.to_string())
}

/// Makes a durable group of a live segment visible, and takes what it holds.
pub fn publish(
    segment: &Segment,
    hasher: KeyHasher,
    group: &Group,
    mut active: Option<&mut Generation>,
) {
    if group.header.kind != GroupKind::Data {
        return;
    }
    let bytes = group.bytes().clone();
    segment.publish(&group.header, bytes, |live: &mut LiveIndex| {
        for record in group.records().flatten() {
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
