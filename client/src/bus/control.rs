//! What others say to a running bus, in the log: who asks for it, who has taken it over, and what
//! is to become of parked events.

use std::sync::Arc;
use std::time::Duration;

use futures_timer::Delay;
use quipu_types::{
    Filter, Position, ReadError, Record, StartAfter, SubscribeRequest, SubscriptionItem,
};

use super::lease::{LEASE_TYPE, Said, answer, said};
use super::note::HANDLER_TYPE;
use super::places::CHECKPOINT_TYPE;
use super::shared::BusShared;

const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Listens for as long as the bus runs.
pub(super) async fn listen(bus: Arc<BusShared>, after: Position) {
    let mut heard = after;
    loop {
        // Whatever it is, handlers that work may go on; they read the log themselves.
        let error = listen_from(&bus, &mut heard).await;
        if matches!(error, Err(ReadError::Closed)) || bus.stop.is_set() {
            return;
        }
        Delay::new(RETRY_PAUSE).await;
    }
}

async fn listen_from(bus: &BusShared, heard: &mut Position) -> Result<(), ReadError> {
    let aggregate_types = [HANDLER_TYPE, LEASE_TYPE, CHECKPOINT_TYPE].map(str::to_owned).to_vec();
    let filter = Filter { aggregate_types, include_system: true, ..Filter::default() };
    let request = SubscribeRequest { filter, after: StartAfter::Position(*heard) };
    let mut subscription = bus.store.subscribe(request)?;
    loop {
        for item in subscription.next_batch().await? {
            match item {
                SubscriptionItem::Event(record) => {
                    hear(bus, &record).await;
                    *heard = record.position();
                }
                SubscriptionItem::Checkpoint(position) => *heard = position,
                _ => {}
            }
        }
    }
}

async fn hear(bus: &BusShared, record: &Record) {
    if record.aggregate_type() == HANDLER_TYPE {
        // What this run notes itself it has taken already.
        let is_own = record.correlation_id().parse() == Ok(bus.run);
        let handler = record.aggregate_id().strip_prefix(&bus.name);
        let handler = handler.and_then(|rest| rest.strip_prefix('/'));
        let handler = handler.and_then(|name| bus.handlers.lock().get(name).cloned());
        if let Some(handler) = handler.filter(|_| !is_own) {
            handler.hear(record);
        }
        return;
    }
    match said(record, &bus.name, bus.run) {
        // Whoever asks and gets no answer takes the bus; then this run learns of that.
        Some(Said::Asked) if !bus.lost.is_set() && !bus.stop.is_set() => {
            drop(answer(&*bus.store, &bus.name, bus.run).await);
        }
        Some(Said::Taken) => bus.lose(),
        Some(Said::Asked) | None => {}
    }
}
