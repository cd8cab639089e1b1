//! One half of a pipeline: reads the log and folds the next batch while Postgres commits this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quipu_client::{
    Checkpoint as LogCheckpoint, Direction, EventStore, Filter, Position, ReadError, ReadRequest,
    Record, StartAfter, SubscribeRequest,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::batch::{Batch, BatchLimits, Folded, Forming};
use crate::projection::{Interest, Projection};

/// How often the log is asked where it ends.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A longer list of types is not worth filtering by.
const FILTER_TYPES_MAX: usize = 64;

/// Up to where a pipeline goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// On and on.
    Stopped,
    /// To what was the end of the log when it was reached.
    CaughtUp,
    /// To just there.
    Position(Position),
}

/// Reads for these projections, each from where it is.
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) members: Vec<(Arc<dyn Projection>, Position)>,
    pub(crate) limits: BatchLimits,
    pub(crate) until: Until,
}

impl Reader {
    /// Reads until there is nothing more to read, or nobody takes it.
    pub(crate) async fn run(self, batches: mpsc::Sender<Batch>) -> Result<(), ReadError> {
        let after = self.members.iter().map(|(_, position)| *position).min().unwrap_or_default();
        let position = match self.until {
            Until::Position(position) => Some(position),
            _ => None,
        };
        let mut forming = Forming::new(self.limits, after, position);
        if !forming.is_last() {
            let checkpoint = LogCheckpoint { log_id: self.store.log_id(), position: after };
            let after = StartAfter::Checkpoint(checkpoint);
            let request = SubscribeRequest { filter: self.filter(), after };
            let mut subscription = self.store.subscribe(request)?;
            let mut is_caught_up = false;
            loop {
                let is_last = forming.is_last() || (is_caught_up && self.until == Until::CaughtUp);
                if is_last {
                    break;
                }
                let due = forming.due();
                tokio::select! {
                    items = subscription.next_batch(), if !forming.is_full() => {
                        is_caught_up |= forming.take(items?);
                    }
                    permit = reserve(&batches, due), if due.is_some() => match permit {
                        Some(permit) => permit.send(self.fold(&mut forming)),
                        None => return Ok(()),
                    },
                    () = batches.closed() => return Ok(()),
                }
            }
        }
        // The last one is sent even if it is empty: it is how the other half knows.
        drop(batches.send(self.fold(&mut forming)).await);
        Ok(())
    }

    fn fold(&self, forming: &mut Forming) -> Batch {
        let (records, through) = forming.close();
        let fold = |(projection, after): &(Arc<dyn Projection>, Position)| {
            Folded::of(&**projection, &records, *after)
        };
        let folded = self.members.iter().map(fold).collect();
        Batch { records: records.into(), through, folded }
    }

    /// Takes what any of the projections takes, so that the log need not hand out the rest.
    fn filter(&self) -> Filter {
        let interests = || self.members.iter().map(|(projection, _)| projection.interest());
        Filter {
            aggregate_types: union(interests().map(|it| &it.aggregate_types)),
            event_types: union(interests().map(|it| &it.event_types)),
            include_system: interests().any(|Interest { of_system, .. }| *of_system),
            ..Filter::default()
        }
    }
}

/// A place for a batch, once it is due.
async fn reserve(
    batches: &mpsc::Sender<Batch>,
    due: Option<Instant>,
) -> Option<mpsc::Permit<'_, Batch>> {
    sleep_until(due?).await;
    batches.reserve().await.ok()
}

/// All names of all lists; none, which takes all, where one list takes all.
fn union<'a>(lists: impl Iterator<Item = &'a Vec<String>> + Clone) -> Vec<String> {
    if lists.clone().any(Vec::is_empty) {
        return Vec::new();
    }
    let mut names: Vec<String> = lists.flatten().cloned().collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > FILTER_TYPES_MAX { Vec::new() } else { names }
}

/// The last position of a log.
pub(crate) async fn last_position(store: &dyn EventStore) -> Result<Position, ReadError> {
    let filter = Filter { include_system: true, ..Filter::default() };
    let direction = Direction::Backward;
    let request = ReadRequest { filter, direction, limit: Some(1), ..ReadRequest::default() };
    let last = store.read(request).next_batch().await?;
    Ok(last.first().map_or(Position::START, Record::position))
}

/// Looks again and again where the log ends.
pub(crate) async fn watch_end(store: Arc<dyn EventStore>, end: Arc<AtomicU64>) {
    loop {
        // Where it cannot be read, whoever reads it says so.
        if let Ok(position) = last_position(&*store).await {
            end.fetch_max(position.0, Ordering::Relaxed);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
