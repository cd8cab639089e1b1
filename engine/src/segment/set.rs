//! The segments of a log, in order.

use std::sync::Arc;

use parking_lot::RwLock;
use quipu_types::Position;

use super::segment::Segment;

/// Every segment, oldest first; the last is active. Readers take a snapshot.
#[derive(Default)]
pub struct Segments {
    list: RwLock<Arc<Vec<Arc<Segment>>>>,
}

impl Segments {
    /// A set with these segments, oldest first.
    #[must_use]
    pub fn new(segments: Vec<Arc<Segment>>) -> Self {
        Self { list: RwLock::new(Arc::new(segments)) }
    }

    /// The segments as they are now.
    pub fn snapshot(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.list.read())
    }

    /// Adds the newest.
    pub fn push(&self, segment: Arc<Segment>) {
        let mut list = self.list.write();
        let mut longer = Vec::clone(&list);
        longer.push(segment);
        *list = Arc::new(longer);
    }
}

/// Index of the segment that would hold `position`, in a list that is oldest first.
#[must_use]
pub fn segment_of(segments: &[Arc<Segment>], position: Position) -> Option<usize> {
    // Of several that begin at the same position, all but the last have no records.
    segments.partition_point(|it| it.header().first_position <= position).checked_sub(1)
}
