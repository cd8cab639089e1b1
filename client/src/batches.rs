//! Reads and subscriptions as streams of batches, or of single items.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::StreamExt;
use futures::stream::BoxStream;
use quipu_types::{ReadError, Record, SubscriptionItem};

/// Batches from a source, handed out whole or item by item.
struct Batches<T> {
    source: BoxStream<'static, Result<Vec<T>, ReadError>>,
    rest: VecDeque<T>,
}

impl<T: Unpin> Batches<T> {
    fn new(source: BoxStream<'static, Result<Vec<T>, ReadError>>) -> Self {
        Self { source, rest: VecDeque::new() }
    }

    /// The next batch that is not empty; `None` at the end.
    async fn next_batch(&mut self) -> Result<Option<Vec<T>>, ReadError> {
        if !self.rest.is_empty() {
            return Ok(Some(self.rest.drain(..).collect()));
        }
        while let Some(batch) = self.source.next().await {
            let batch = batch?;
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, ReadError>>> {
        loop {
            if let Some(item) = self.rest.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            match self.source.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(batch))) => self.rest = batch.into(),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The records of a read, in order: a [`Stream`], or page by page. It ends with the read, or
/// after the first error.
pub struct RecordStream {
    batches: Batches<Record>,
}

impl RecordStream {
    /// A stream over pages.
    pub fn new(pages: BoxStream<'static, Result<Vec<Record>, ReadError>>) -> Self {
        Self { batches: Batches::new(pages) }
    }

    /// The next page, at most 512 records or 4 MiB; empty at the end.
    ///
    /// # Errors
    /// That the next record cannot be read.
    pub async fn next_batch(&mut self) -> Result<Vec<Record>, ReadError> {
        Ok(self.batches.next_batch().await?.unwrap_or_default())
    }
}

impl Stream for RecordStream {
    type Item = Result<Record, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_item(context)
    }
}

/// The items of a subscription, in order: a [`Stream`], or as they come. It ends only after an
/// error.
pub struct Subscription {
    batches: Batches<SubscriptionItem>,
}

impl Subscription {
    /// A subscription over batches.
    pub fn new(batches: BoxStream<'static, Result<Vec<SubscriptionItem>, ReadError>>) -> Self {
        Self { batches: Batches::new(batches) }
    }

    /// What there is to deliver next; waits for it, never empty.
    ///
    /// # Errors
    /// That the next record cannot be read, or that the log was closed.
    pub async fn next_batch(&mut self) -> Result<Vec<SubscriptionItem>, ReadError> {
        self.batches.next_batch().await?.ok_or(ReadError::Closed)
    }
}

impl Stream for Subscription {
    type Item = Result<SubscriptionItem, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_item(context)
    }
}
