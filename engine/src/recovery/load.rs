//! Fills the indexes at start: index files of sealed segments, groups of the active one.

use std::sync::Arc;

use quipu_types::{AggregateKey, Corruption, Record};

use super::chain::Placed;
use crate::bug::{Bug, seeded};
use crate::error::OpenError;
use crate::format::group::{Group, GroupHeader, GroupKind};
use crate::format::index_file::{IndexFault, IndexFile};
use crate::index::ids::IdIndex;
use crate::index::keys::KeyHasher;
use crate::index::live::LiveIndex;
use crate::index::rebuild::{self, RebuildError};
use crate::index::versions::VersionIndex;
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

/// Newest versions and known ids, filled segment by segment, oldest first.
#[derive(Default)]
pub struct Known {
    /// Newest version of every aggregate.
    pub versions: VersionIndex,
    /// Position of every id.
    pub ids: IdIndex,
}

impl Known {
    /// Takes what a sealed segment holds.
    pub fn take_index(&mut self, index: &IndexFile) {
        for entry in index.aggregates() {
            let key = Arc::new(AggregateKey::new(entry.aggregate_type, entry.aggregate_id));
            self.versions.set(entry.hash, &key, entry.last_version());
        }
        for (id, position) in index.ids().filter(|_| !seeded(Bug::ForgetsIndexedIds)) {
            self.ids.insert(id, position);
        }
    }

    fn take_record(&mut self, hash: u64, key: &Arc<AggregateKey>, record: &Record) {
        self.versions.set(hash, key, record.version());
        self.ids.insert(record.event_id(), record.position());
    }
}

/// Makes a durable group of a live segment visible, and takes what it holds.
pub fn publish(segment: &Segment, hasher: KeyHasher, group: &Group, mut known: Option<&mut Known>) {
    if group.header.kind != GroupKind::Data {
        return;
    }
    let bytes = group.bytes().clone();
    segment.publish(&group.header, bytes, |live: &mut LiveIndex| {
        for record in group.records().flatten() {
            let key = Arc::new(record.aggregate());
            let hash = hasher.aggregate(&key);
            live.push_record(hash, &key, record.version(), record.position());
            if let Some(known) = &mut known {
                known.take_record(hash, &key, &record);
            }
        }
    });
}
