//! A subscription: catches up, then follows, as credit and room allow. A slow subscriber holds its
//! place in the log and nothing else.

use std::sync::Arc;

use quipu_engine::read::cursor::PageLimits;
use quipu_engine::read::subscription::Subscription;
use quipu_protocol::Mark;
use quipu_types::{Position, ReadError, SubscriptionItem};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::herald::Lane;
use crate::meter::Subscriber;
use crate::paging::{Found, Source, send};
use crate::stream::{Over, StreamTask};

/// Looks only for marks, which need no credit: no record is read.
const MARKS_ONLY: PageLimits = PageLimits { records: 0, bytes: 0, looked_at: 0 };

impl Source for Subscription {
    fn next(&mut self, limits: PageLimits) -> Result<Found, ReadError> {
        let items = self.try_next(limits)?;
        let mut found = Found { records: Vec::with_capacity(items.len()), ..Found::default() };
        for item in items {
            let mark = match item {
                SubscriptionItem::Event(record) => {
                    found.records.push(record);
                    continue;
                }
                SubscriptionItem::Checkpoint(position) => Mark::Checkpoint(position),
                SubscriptionItem::CaughtUp(position) => Mark::CaughtUp(position),
                SubscriptionItem::FellBehind(position) => Mark::FellBehind(position),
                _ => continue,
            };
            if found.records.is_empty() {
                found.before.push(mark);
            } else {
                found.after.push(mark);
            }
        }
        Ok(found)
    }

    fn is_on_disk(&self) -> bool {
        self.has_more() && !self.is_in_memory()
    }

    fn after(&self) -> Position {
        Self::after(self)
    }

    /// It holds no more at any time.
    fn forget(&mut self) {}
}

/// Sends what the subscription finds, until it is told to end or cannot go on.
pub(crate) async fn follow(task: Arc<StreamTask>, subscription: Subscription) -> Over {
    let subscriber = task.session.service.meter.subscribe(subscription.after());
    let lane = task.session.service.herald.join();
    let following = Following { task, subscriber, lane };
    let mut subscription = subscription;
    loop {
        match following.next(subscription).await {
            Ok(back) => subscription = back,
            Err(over) => return over,
        }
    }
}

struct Following {
    task: Arc<StreamTask>,
    subscriber: Subscriber,
    lane: Lane,
}

impl Following {
    async fn next(&self, follow: Subscription) -> Result<Subscription, Over> {
        if let Some(over) = self.task.is_over() {
            return Err(over);
        }
        // Taken before looking, so that an advance in between is not missed.
        let news = self.lane.news();
        let end = self.task.session.service.log.shared().watermark.current();
        let before = (follow.after(), follow.is_live());
        let follow = self.send(follow).await?;
        self.subscriber.is_at(follow.after());
        let is_at_end = follow.after() >= end;
        if (follow.after(), follow.is_live()) != before && !(is_at_end && follow.is_live()) {
            // A filter that takes nothing must not keep a worker to itself.
            yield_now().await;
            return Ok(follow);
        }
        // What is live is told when it is its turn, even if there is more by now.
        let due_in = follow.checkpoint_due_in();
        tokio::select! {
            () = news, if is_at_end => {}
            () = sleep(due_in.unwrap_or_default()), if is_at_end && due_in.is_some() => {}
            () = self.task.changed() => {}
        }
        Ok(follow)
    }

    async fn send(&self, mut follow: Subscription) -> Result<Subscription, Over> {
        if follow.has_more() && self.task.has_credit() {
            let charge = self.task.room().await?;
            return send(&self.task, follow, charge).await;
        }
        self.task.put(Source::next(&mut follow, MARKS_ONLY)?, None);
        Ok(follow)
    }
}
