//! A subscription: catches up, then follows, as credit and room allow. A slow subscriber holds its
//! place in the log and nothing else.

use std::sync::Arc;
use std::time::Duration;

use quipu_engine::read::cursor::PageLimits;
use quipu_engine::read::subscription::Subscription;
use quipu_protocol::{Fault, Mark};
use quipu_types::{ReadError, Record, SubscriptionItem};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use crate::budget::Charge;
use crate::meter::Subscriber;
use crate::stream::{Over, StreamTask};

/// Looks only for marks, which need no credit: no record is read.
const MARKS_ONLY: PageLimits = PageLimits { records: 0, bytes: 0, looked_at: 0 };
/// Between two deliveries each subscriber leaves the others so much time; many of them get more at
/// once rather than wake for every group.
const PAUSE_FOR_EACH: Duration = Duration::from_micros(20);
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// Sends what the subscription finds, until it is told to end or cannot go on.
pub(crate) async fn follow(task: Arc<StreamTask>, subscription: Subscription) -> Over {
    let subscriber = task.session.service.meter.subscribe(subscription.after());
    let mut following = Following { task, subscriber, next_at: Instant::now() };
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
    /// When the next delivery is due at the earliest.
    next_at: Instant,
}

impl Following {
    async fn next(&mut self, follow: Subscription) -> Result<Subscription, Over> {
        if let Some(over) = self.task.is_over() {
            return Err(over);
        }
        // Taken before looking, so that an advance in between is not missed.
        let advanced = (!follow.has_more()).then(|| follow.listen());
        let may_read = follow.has_more() && self.task.has_credit();
        let charge = if may_read { Some(self.charge().await?) } else { None };
        let limits = charge.as_ref().map_or(MARKS_ONLY, |room| self.task.page_limits(room));
        let before = follow.after();
        let (items, follow) = items(follow, limits).await?;
        let found = !items.is_empty() || follow.after() > before;
        self.send(items, charge).await?;
        self.subscriber.is_at(follow.after());
        if found {
            // A filter that takes nothing must not keep a worker to itself.
            tokio::task::yield_now().await;
        } else {
            self.wait(advanced, follow.checkpoint_due_in()).await;
        }
        Ok(follow)
    }

    /// Waits for an advance where there was nothing more, else for credit; and for no longer than
    /// until a checkpoint is due.
    async fn wait(&self, advanced: Option<impl Future<Output = ()>>, due_in: Option<Duration>) {
        let is_at_end = advanced.is_some();
        let advanced = async {
            match advanced {
                Some(advanced) => advanced.await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match due_in.filter(|_| is_at_end) {
                Some(due_in) => tokio::time::sleep(due_in).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = advanced => {}
            () = due => {}
            () = self.task.changed() => {}
        }
    }

    /// Room for a page, once it is this subscriber's turn.
    async fn charge(&mut self) -> Result<Charge, Over> {
        if self.next_at > Instant::now() {
            sleep_until(self.next_at).await;
        }
        let charge = self.task.room().await?;
        let crowd = u32::try_from(self.subscriber.crowd()).unwrap_or(u32::MAX);
        let pause = PAUSE_FOR_EACH.saturating_mul(crowd).min(PAUSE_MAX);
        if pause >= PAUSE_MIN {
            self.next_at = Instant::now() + pause;
        }
        Ok(charge)
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
