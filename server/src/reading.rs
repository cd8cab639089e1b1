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

async fn next(task: &Arc<StreamTask>, reading: Reading) -> Result<Reading, Over> {
    task.credit().await?;
    let charge = task.room().await?;
    let reading = send(task, reading, charge).await?;
    // A filter that takes nothing must not keep a worker to itself.
    yield_now().await;
    Ok(reading)
}
