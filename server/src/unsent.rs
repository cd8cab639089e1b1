//! What was found and has no room yet: kept by its place alone, and read again once it has.

use std::sync::Arc;

use quipu_protocol::Mark;
use quipu_types::{Position, ReadError, Record};

use crate::paging::{Found, kept_after};
use crate::reader::panicked;
use crate::stream::{Over, StreamTask};

/// Records that are larger than the room they were given, and the marks around them.
///
/// Invariant: it holds nothing of the records, however long it waits.
pub(crate) struct Unsent {
    before: Vec<Mark>,
    positions: Vec<Position>,
    bytes: usize,
    after: Vec<Mark>,
}

impl Unsent {
    pub(crate) fn of(found: Found) -> Self {
        let bytes = found.bytes();
        let positions = found.records.iter().map(Record::position).collect();
        Self { before: found.before, positions, bytes, after: found.after }
    }

    /// Reads it again once it has room of its own, and puts it in.
    pub(crate) async fn send(self, task: &Arc<StreamTask>) -> Result<(), Over> {
        let charge = task.room_for(self.bytes).await?;
        let on_thread = Arc::clone(task);
        let work = move || {
            on_thread.put(self.found_again(&on_thread)?, Some(charge));
            Ok::<_, ReadError>(())
        };
        task.session.service.readers.run(work).await.ok_or_else(panicked)??;
        Ok(())
    }

    fn found_again(self, task: &StreamTask) -> Result<Found, ReadError> {
        let log = &task.session.service.log;
        let first = self.positions.first().map(|first| first.previous());
        let kept = first.and_then(|before| kept_after(task, before));
        let read = self.positions.iter().map(|position| log.record_at(*position));
        let records = read.collect::<Result<_, _>>()?;
        let mut found = Found { before: self.before, records, after: self.after, is_kept: false };
        found.is_kept = found.are_all_in(kept.as_ref());
        Ok(found)
    }
}
