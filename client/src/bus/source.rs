//! Where a handler's events come from: the log as it grows, or a part of the past that somebody
//! wants to be handled again.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use futures_timer::Delay;
use quipu_types::{
    Checkpoint, Filter, Position, ReadError, Record, StartAfter, SubscribeRequest, SubscriptionItem,
};

use super::clock::now;
use super::shared::AskedReplay;
use crate::batches::{RecordStream, Subscription};
use crate::store::EventStore;

const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What came.
pub(super) enum Pulled {
    /// An event came up.
    Event(Record),
    /// There is nothing up to here but what was pulled.
    Passed(Position),
    /// An event of the past.
    Replayed(Record),
    /// That was all of it.
    ReplayOver,
    /// The log cannot be read for now; it is tried again.
    Waits(ReadError),
    /// The log cannot be read.
    Failed(ReadError),
}

/// Where a handler's events come from.
pub(super) struct Source {
    store: Arc<dyn EventStore>,
    filter: Filter,
    /// What was pulled last of what comes up.
    place: Checkpoint,
    live: Live,
    replay: Option<Replaying>,
}

enum Live {
    Open(Subscription),
    Waiting(Delay),
}

struct Replaying {
    asked: AskedReplay,
    records: RecordStream,
    began: Instant,
    /// Events pulled, to keep to the rate.
    pulled: u32,
    pause: Option<Delay>,
}

impl Source {
    pub(super) fn new(store: Arc<dyn EventStore>, filter: Filter, place: Checkpoint) -> Self {
        let live = Live::Waiting(Delay::new(Duration::ZERO));
        Self { store, filter, place, live, replay: None }
    }

    pub(super) fn replay(&self) -> Option<&AskedReplay> {
        self.replay.as_ref().map(|replaying| &replaying.asked)
    }

    /// From now on the past is pulled.
    pub(super) fn begin_replay(&mut self, mut asked: AskedReplay) {
        if asked.position > Position::START {
            let next = asked.position.next();
            asked.request.from = Some(asked.request.from.map_or(next, |from| from.max(next)));
        }
        let records = self.store.read(asked.request.read());
        let (began, pulled, pause) = (now(), 0, None);
        self.replay = Some(Replaying { asked, records, began, pulled, pause });
    }

    /// From now on what comes up is pulled again.
    pub(super) fn end_replay(&mut self) {
        self.replay = None;
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Pulled> {
        match &mut self.replay {
            Some(replaying) => replaying.poll_next(context, &*self.store),
            None => self.poll_live(context),
        }
    }

    fn poll_live(&mut self, context: &mut Context<'_>) -> Poll<Pulled> {
        if let Live::Waiting(pause) = &mut self.live {
            ready!(pause.poll_unpin(context));
            let after = StartAfter::Checkpoint(self.place);
            let request = SubscribeRequest { filter: self.filter.clone(), after };
            match self.store.subscribe(request) {
                Ok(subscription) => self.live = Live::Open(subscription),
                Err(error) => return Poll::Ready(self.failed(error)),
            }
        }
        let Live::Open(subscription) = &mut self.live else { return Poll::Pending };
        let item = ready!(subscription.poll_next_unpin(context));
        Poll::Ready(match item.unwrap_or(Err(ReadError::Closed)) {
            Ok(SubscriptionItem::Event(record)) => {
                self.place.position = record.position();
                Pulled::Event(record)
            }
            Ok(SubscriptionItem::Checkpoint(position) | SubscriptionItem::CaughtUp(position)) => {
                self.place.position = self.place.position.max(position);
                Pulled::Passed(position)
            }
            Ok(_) => Pulled::Passed(self.place.position),
            Err(error) => self.failed(error),
        })
    }

    fn failed(&mut self, error: ReadError) -> Pulled {
        self.live = Live::Waiting(Delay::new(RETRY_PAUSE));
        if error.is_retryable() { Pulled::Waits(error) } else { Pulled::Failed(error) }
    }
}

impl Replaying {
    fn poll_next(&mut self, context: &mut Context<'_>, store: &dyn EventStore) -> Poll<Pulled> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.poll_unpin(context));
                self.pause = None;
            }
            match ready!(self.records.poll_next_unpin(context)) {
                None => return Poll::Ready(Pulled::ReplayOver),
                Some(Ok(record)) if self.asked.request.is_past(record.position()) => {
                    return Poll::Ready(Pulled::ReplayOver);
                }
                Some(Ok(record)) if !self.asked.request.includes(&record) => {}
                Some(Ok(record)) => {
                    self.asked.request.from = Some(record.position().next());
                    self.pulled = self.pulled.saturating_add(1);
                    self.pause = self.pause_after();
                    return Poll::Ready(Pulled::Replayed(record));
                }
                Some(Err(error)) if error.is_retryable() => {
                    self.records = store.read(self.asked.request.read());
                    self.pause = Some(Delay::new(RETRY_PAUSE));
                    return Poll::Ready(Pulled::Waits(error));
                }
                Some(Err(error)) => return Poll::Ready(Pulled::Failed(error)),
            }
        }
    }

    /// What keeps to the rate that was asked for.
    fn pause_after(&self) -> Option<Delay> {
        let rate = self.asked.request.rate?.max(1);
        let due = Duration::from_secs(1).saturating_mul(self.pulled) / rate;
        let pause = due.checked_sub(self.began.elapsed())?;
        Some(Delay::new(pause))
    }
}
