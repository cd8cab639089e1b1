//! A read: pages of what was durable when it began, as credit and room allow.

use std::sync::Arc;

use quipu_engine::read::cursor::{Cursor, PageLimits};
use quipu_protocol::End;
use quipu_types::{Position, ReadError};
use tokio::task::yield_now;

use crate::paging::{Found, Source, send};
use crate::stream::{Over, StreamTask};

struct Reading {
    cursor: Cursor,
    is_finished: bool,
}

impl Source for Reading {
    fn next(&mut self, limits: PageLimits) -> Result<Found, ReadError> {
        let page = self.cursor.next_page(limits)?;
        self.is_finished = page.is_last || self.cursor.is_done();
        Ok(Found { records: page.records, ..Found::default() })
    }

    fn is_on_disk(&self) -> bool {
        !self.is_finished && !self.cursor.is_in_memory()
    }

    fn after(&self) -> Position {
        self.cursor.looked_up_to()
    }

    fn forget(&mut self) {
        self.cursor.forget();
    }
}

/// Sends what the cursor finds.
pub(crate) async fn read(task: Arc<StreamTask>, cursor: Cursor) -> Over {
    let mut reading = Reading { cursor, is_finished: false };
    while !reading.is_finished {
        match next(&task, reading).await {
            Ok(back) => reading = back,
            Err(over) => return over,
        }
    }
    Over::Ended(End::Complete)
}

async fn next(task: &Arc<StreamTask>, mut reading: Reading) -> Result<Reading, Over> {
    if !task.has_credit() {
        reading.forget();
    }
    task.credit().await?;
    let charge = if let Some(charge) = task.try_room() {
        charge
    } else {
        reading.forget();
        task.room().await?
    };
    let reading = send(task, reading, charge).await?;
    // A filter that takes nothing must not keep a worker to itself.
    yield_now().await;
    Ok(reading)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use quipu_engine::Origin;
    use quipu_protocol::Credit;
    use quipu_types::{AggregateKey, Append, NewEvent, ReadRequest, Timestamp, Uuid};
    use tokio::time::timeout;

    use super::*;
    use crate::options::ServerOptions;
    use crate::service::Service;
    use crate::session::Session;
    use crate::stream::Control;
    use crate::testing::log;

    /// A stream with credit for so many events, and a log of three.
    async fn task(events: u32, options: ServerOptions) -> (tempfile::TempDir, Arc<StreamTask>) {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder);
        let event = |id| {
            let (key, at) = (AggregateKey::new("T", "1"), Timestamp::from_micros(1));
            NewEvent::json(Uuid::from_u128(id), key, "Made", at, "{}")
        };
        let append = Append::any((1..=3).map(event).collect());
        let append = log.prepare(&append, Origin::Client).unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        log.submit(append, Box::new(move |it| drop(sender.send(it)))).unwrap().await.unwrap();
        receiver.await.unwrap().unwrap();
        let session = Arc::new(Session::new(&Service::new(Arc::new(log), options)));
        let control = Arc::new(Control::new(Credit { events, bytes: u32::MAX }, 0));
        (folder, Arc::new(StreamTask::new(session, 1, control)))
    }

    /// Whatever a cursor has in hand, it has the segment in hand, too.
    fn segment_holders(task: &StreamTask) -> usize {
        Arc::strong_count(&task.session.service.log.shared().segments.snapshot()[0])
    }

    #[tokio::test]
    async fn a_read_that_waits_holds_its_place_alone() {
        let most = ServerOptions::default();
        let narrow = |page_bytes, connection_output_bytes| {
            let options = ServerOptions::default();
            ServerOptions { connection_output_bytes, page_bytes, ..options }
        };
        // For credit, for room for a page, and for room for a record.
        for (events, options) in [(1, most), (u32::MAX, narrow(99, 99)), (9, narrow(8, 300))] {
            let (_folder, task) = task(events, options).await;
            let before = segment_holders(&task);
            let cursor = task.session.service.log.read(ReadRequest::default());
            let mut read = Box::pin(read(Arc::clone(&task), cursor));
            let soon = Duration::from_millis(200);
            assert!(timeout(soon, &mut read).await.is_err(), "it waits for more");
            // The indexer may have let go of it meanwhile.
            assert!(segment_holders(&task) <= before, "{events}");
            let mut chunks = VecDeque::new();
            task.session.outbox.take(&mut chunks);
            assert_eq!(chunks.len(), 1, "and its first record is there");
        }
    }
}
