//! A read across connections: what a lost one left is asked for again.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use quipu_protocol::{End, Read};
use quipu_types::{Direction, ReadError, ReadRequest, Record};

use super::calls::Patience;
use super::feed::{Feed, window};
use super::parts::Part;
use super::store::Owner;

/// A page as [`RecordStream`](crate::RecordStream) promises it.
const PAGE_RECORDS: usize = 512;

/// A read, and what is left of it.
struct Reading {
    owner: Arc<Owner>,
    feed: Feed,
    /// What has not been delivered yet.
    rest: ReadRequest,
    /// Received and not yet handed out.
    page: Vec<Record>,
}

/// The pages of a read, which begins now.
pub(super) fn pages(
    owner: &Arc<Owner>,
    request: ReadRequest,
) -> BoxStream<'static, Result<Vec<Record>, ReadError>> {
    let feed = ask(owner, &request);
    let owner = Arc::clone(owner);
    let reading = Reading { owner, feed, rest: request, page: Vec::new() };
    stream::try_unfold(Some(reading), |reading| async move {
        let Some(mut reading) = reading else { return Ok(None) };
        Ok(reading.next_page().await?.map(|page| (page, Some(reading))))
    })
    .boxed()
}

fn ask(owner: &Arc<Owner>, request: &ReadRequest) -> Feed {
    let read = Read { request: request.clone(), credit: window(&owner.shared.options) };
    Feed::open(owner, &read, Patience::Sent(owner.shared.deadline()))
}

impl Reading {
    /// None at the end.
    async fn next_page(&mut self) -> Result<Option<Vec<Record>>, ReadError> {
        while self.page.is_empty() {
            match self.feed.next_within(self.owner.shared.options.read_timeout).await {
                Part::Records(body, connection) => {
                    self.page = self.feed.take(body, connection)?;
                    advance(&mut self.rest, &self.page);
                }
                Part::End(End::Complete) => return Ok(None),
                Part::Lost if is_complete(&self.rest) => return Ok(None),
                Part::Lost => self.feed = ask(&self.owner, &self.rest),
                Part::Failed(error) => return Err(error),
                other => return Err(ReadError::Refused(format!("a read was told {other:?}"))),
            }
        }
        let later = self.page.split_off(self.page.len().min(PAGE_RECORDS));
        Ok(Some(std::mem::replace(&mut self.page, later)))
    }
}

/// Takes what was received out of what is to be asked for.
fn advance(rest: &mut ReadRequest, page: &[Record]) {
    let Some(last) = page.last() else { return };
    let last = match rest.filter.aggregate {
        Some(_) => last.version().0,
        None => last.position().0,
    };
    rest.from = Some(match rest.direction {
        Direction::Forward => last.saturating_add(1),
        Direction::Backward => last.saturating_sub(1),
    });
    rest.limit = rest.limit.map(|limit| limit.saturating_sub(page.len() as u64));
}

/// Whether nothing can be left, though the end was not received.
fn is_complete(rest: &ReadRequest) -> bool {
    let at_the_beginning = rest.direction == Direction::Backward && rest.from == Some(0);
    rest.limit == Some(0) || at_the_beginning
}
