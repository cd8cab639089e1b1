//! A read: pages of what was durable when it began, as credit and room allow.

use std::sync::Arc;

use quipu_engine::read::cursor::{Cursor, Page, PageLimits};
use quipu_protocol::{End, Fault};
use quipu_types::ReadError;
use tokio::task::spawn_blocking;

use crate::stream::{Over, StreamTask};

/// Sends what the cursor finds.
pub(crate) async fn read(task: Arc<StreamTask>, mut cursor: Cursor) -> Over {
    loop {
        match next(&task, cursor).await {
            Ok(Some(back)) => cursor = back,
            Ok(None) => return Over::Ended(End::Complete),
            Err(over) => return over,
        }
    }
}

/// Sends one page; the cursor comes back if there is more.
async fn next(task: &StreamTask, cursor: Cursor) -> Result<Option<Cursor>, Over> {
    task.credit().await?;
    let charge = task.room().await?;
    let (page, cursor) = page(cursor, task.page_limits(&charge)).await?;
    task.send(&page.records, charge).await?;
    if page.records.is_empty() {
        // A filter that takes nothing must not keep a worker to itself.
        tokio::task::yield_now().await;
    }
    Ok(Some(cursor).filter(|cursor| !page.is_last && !cursor.is_done()))
}

async fn page(mut cursor: Cursor, limits: PageLimits) -> Result<(Page, Cursor), Over> {
    if cursor.is_in_memory() {
        return Ok((cursor.next_page(limits)?, cursor));
    }
    let read = spawn_blocking(move || Ok::<_, ReadError>((cursor.next_page(limits)?, cursor)));
    let read = read.await.map_err(|error| Fault::Server(error.to_string()))?;
    Ok(read?)
}
