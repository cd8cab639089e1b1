//! A subscription across connections: it goes on after what was delivered last.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use quipu_protocol::{Mark, Subscribe};
use quipu_types::{
    Checkpoint, Position, ReadError, Record, StartAfter, SubscribeRequest, SubscriptionItem,
};

use super::calls::Patience;
use super::feed::{Feed, window};
use super::parts::Part;
use super::store::Owner;

/// A subscription.
///
/// Invariants:
/// 1. `request.after` is what was delivered last, so that a new connection goes on without a gap
///    and without a repetition.
struct Following {
    owner: Arc<Owner>,
    feed: Feed,
    request: SubscribeRequest,
    /// What was delivered last, once something was.
    safe: Option<Position>,
    /// Caught up, and not told since that it fell behind.
    live: bool,
}

/// The items of a subscription, which begins now.
pub(super) fn items(
    owner: &Arc<Owner>,
    request: SubscribeRequest,
) -> BoxStream<'static, Result<Vec<SubscriptionItem>, ReadError>> {
    let feed = ask(owner, &request);
    let owner = Arc::clone(owner);
    let following = Following { owner, feed, request, safe: None, live: false };
    stream::try_unfold(following, |mut following| async move {
        let items = following.next_items().await?;
        Ok(Some((items, following)))
    })
    .boxed()
}

fn ask(owner: &Arc<Owner>, request: &SubscribeRequest) -> Feed {
    let subscribe = Subscribe { request: request.clone(), credit: window(&owner.shared.options) };
    Feed::open(owner, &subscribe, Patience::Endless)
}

impl Following {
    async fn next_items(&mut self) -> Result<Vec<SubscriptionItem>, ReadError> {
        loop {
            match self.feed.next().await {
                Part::Records(body, connection) => {
                    let records = self.feed.take(body, connection)?;
                    self.safe = records.last().map(Record::position).or(self.safe);
                    return Ok(records.into_iter().map(SubscriptionItem::Event).collect());
                }
                Part::Mark(mark) => return Ok(vec![self.mark(mark)]),
                Part::Lost if self.has_no_place() => {
                    let problem = "the connection was lost before the subscription had begun";
                    return Err(ReadError::Unavailable(problem.to_owned()));
                }
                Part::Lost => {
                    self.go_on();
                    if let Some(position) = self.safe.filter(|_| std::mem::take(&mut self.live)) {
                        return Ok(vec![SubscriptionItem::FellBehind(position)]);
                    }
                }
                Part::Failed(error) => return Err(error),
                other => {
                    return Err(ReadError::Refused(format!("a subscription was told {other:?}")));
                }
            }
        }
    }

    fn mark(&mut self, mark: Mark) -> SubscriptionItem {
        let (Mark::Checkpoint(at) | Mark::CaughtUp(at) | Mark::FellBehind(at)) = mark;
        self.safe = Some(at);
        match mark {
            Mark::CaughtUp(_) => self.live = true,
            Mark::FellBehind(_) => self.live = false,
            Mark::Checkpoint(_) => {}
        }
        mark.into()
    }

    /// Where it was to begin is known to the server alone: asked again, it would begin later.
    fn has_no_place(&self) -> bool {
        self.safe.is_none() && self.request.after == StartAfter::End
    }

    /// Asks again. A checkpoint, no bare position: a log that lost what was delivered is refused.
    fn go_on(&mut self) {
        if let Some(position) = self.safe {
            let log_id = self.owner.shared.log_id;
            self.request.after = StartAfter::Checkpoint(Checkpoint { log_id, position });
        }
        self.feed = ask(&self.owner, &self.request);
    }
}
