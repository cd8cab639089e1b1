//! Fills the indexes of the active segment from its groups.

use std::sync::Arc;

use crate::format::group::GroupKind;
use crate::index::generation::Generation;
use crate::index::keys::KeyHasher;
use crate::index::live::LiveIndex;
use crate::segment::{Segment, WholeGroup};

/// Makes a durable group of a live segment visible, and takes what it holds.
pub fn publish(
    segment: &Segment,
    hasher: KeyHasher,
    WholeGroup { group, records }: &WholeGroup,
    mut active: Option<&mut Generation>,
) {
    if group.header.kind != GroupKind::Data {
        return;
    }
    let bytes = group.bytes().clone();
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
