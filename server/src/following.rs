//! A subscription: catches up, then follows, as credit and room allow. A slow subscriber holds its
//! place in the log and nothing else.

use std::sync::Arc;

use quipu_engine::read::cursor::PageLimits;
use quipu_engine::read::subscription::Subscription;
use quipu_protocol::{Fault, Mark};
use quipu_types::{ReadError, Record, SubscriptionItem};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::budget::Charge;
use crate::herald::Lane;
use crate::meter::Subscriber;
use crate::stream::{Over, StreamTask};

/// Looks only for marks, which need no credit: no record is read.
const MARKS_ONLY: PageLimits = PageLimits { records: 0, bytes: 0, looked_at: 0 };

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
        let may_read = follow.has_more() && self.task.has_credit();
        let charge = if may_read { Some(self.task.room().await?) } else { None };
        let limits = charge.as_ref().map_or(MARKS_ONLY, |room| self.task.page_limits(room));
        let before = follow.after();
        let (items, follow) = items(follow, limits).await?;
        let found = !items.is_empty() || follow.after() > before;
        self.send(items, charge).await?;
        self.subscriber.is_at(follow.after());
        let is_at_end = follow.after() >= end;
        if found && !(is_at_end && follow.is_live()) {
            // A filter that takes nothing must not keep a worker to itself.
            tokio::task::yield_now().await;
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

    async fn send(
        &self,
        items: Vec<SubscriptionItem>,
        mut charge: Option<Charge>,
    ) -> Result<(), Over> {
        let mut records: Vec<Record> = Vec::with_capacity(items.len());
        for item in items {
            let mark = match item {
                SubscriptionItem::Event(record) => {
                    records.push(record);
                    continue;
                }
                SubscriptionItem::Checkpoint(position) => Mark::Checkpoint(position),
                SubscriptionItem::CaughtUp(position) => Mark::CaughtUp(position),
                SubscriptionItem::FellBehind(position) => Mark::FellBehind(position),
                _ => continue,
            };
            self.send_records(&mut records, &mut charge).await?;
            self.task.mark(mark);
        }
        self.send_records(&mut records, &mut charge).await
    }

    /// Sends those that came together; a page has them in one piece.
    async fn send_records(
        &self,
        records: &mut Vec<Record>,
        charge: &mut Option<Charge>,
    ) -> Result<(), Over> {
        if let Some(charge) = charge.take_if(|_| !records.is_empty()) {
            self.task.send(records, charge).await?;
            records.clear();
        }
        Ok(())
    }
}

async fn items(
    mut follow: Subscription,
    limits: PageLimits,
) -> Result<(Vec<SubscriptionItem>, Subscription), Over> {
    if limits.records == 0 || !follow.has_more() || follow.is_in_memory() {
        return Ok((follow.try_next(limits)?, follow));
    }
    let read = spawn_blocking(move || Ok::<_, ReadError>((follow.try_next(limits)?, follow)));
    let read = read.await.map_err(|error| Fault::Server(error.to_string()))?;
    Ok(read?)
}
