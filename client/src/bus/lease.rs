//! Who runs a bus: one process at a time.
//!
//! The record of its places says who did last, and whether that has ended. If it has not, it may be
//! alive or not: in a log that only this process can write to, a list in this process knows; else
//! whoever runs the bus is asked, in the log, and answers. Nothing is written while nobody asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use event_listener::{Event, EventListener};
use futures::future::{Either, select};
use futures_timer::Delay;
use parking_lot::Mutex;
use quipu_types::{
    AggregateKey, Append, AppendError, Filter, NewEvent, Position, Record, StartAfter,
    SubscribeRequest, SubscriptionItem, Uuid,
};
use serde::{Deserialize, Serialize};

use super::error::BusError;
use super::options::{BusOptions, IfHeld};
use super::places::{CHECKPOINT_TYPE, Places, SavedPlaces};
use crate::stamps::{Stamps, SystemStamps};
use crate::store::EventStore;

/// The aggregate type of questions who runs a bus; the aggregate's id is the bus's name.
pub const LEASE_TYPE: &str = "$lease";
const ASKED: &str = "LeaseAsked";
const HELD: &str = "LeaseHeld";
/// How much longer than for an answer somebody waits before asking again.
const PATIENCE: u32 = 3;

/// The buses that run in this process, of logs that no other process can write to.
static RUNNING: Mutex<BTreeSet<(Uuid, String)>> = Mutex::new(BTreeSet::new());
/// One of them runs no longer.
static ENDED: Event = Event::new();

#[derive(Serialize, Deserialize)]
struct Run {
    run: Uuid,
}

/// The place in the list of those that run in this process.
pub(super) struct Claim(Uuid, String);

impl Claim {
    fn stake(log_id: Uuid, bus: &str) -> Option<Self> {
        let is_new = RUNNING.lock().insert((log_id, bus.to_owned()));
        is_new.then(|| Self(log_id, bus.to_owned()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        RUNNING.lock().remove(&(self.0, std::mem::take(&mut self.1)));
        ENDED.notify(usize::MAX);
    }
}

/// A bus that runs here from now on.
pub(super) struct Taken {
    pub(super) places: SavedPlaces,
    /// Whoever asks after this asks this run.
    pub(super) since: Position,
    pub(super) claim: Option<Claim>,
}

/// Takes the bus, or waits for it, as the options say.
pub(super) async fn take(
    store: &Arc<dyn EventStore>,
    options: &BusOptions,
    run: Uuid,
) -> Result<Taken, BusError> {
    let (bus, log_id) = (&options.name, store.log_id());
    loop {
        // Taken before looking: the record that a bus has ended comes before its place is free.
        let freed = ENDED.listen();
        let (at, last) = Places::newest(&**store, bus).await?;
        check_log(bus, last.as_ref(), log_id, options.adopts)?;
        let claim = if store.is_exclusive() { Claim::stake(log_id, bus) } else { None };
        let is_held = match &last {
            _ if store.is_exclusive() => claim.is_none(),
            Some(last) if !last.is_closed => answers(store, options, last.run, run).await?,
            _ => false,
        };
        if is_held {
            let (holder, run) = last.map_or_else(Default::default, |last| (last.holder, last.run));
            if options.if_held == IfHeld::Refuse {
                return Err(BusError::Held { bus: bus.clone(), holder, run });
            }
            wait_for_change(store, options, at.position, freed).await?;
            continue;
        }
        let handlers = last.map(|last| last.handlers).unwrap_or_default();
        let holder = options.holder.clone();
        let places = Places { log_id, run, holder, is_closed: false, handlers };
        match SavedPlaces::open(Arc::clone(store), bus, at.version, places).await {
            Ok((places, since)) => return Ok(Taken { places, since, claim }),
            // Somebody else was faster, and is asked next.
            Err(BusError::Lost { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn check_log(
    bus: &str,
    last: Option<&Places>,
    actual: Uuid,
    adopts: Option<Uuid>,
) -> Result<(), BusError> {
    match last {
        Some(last) if last.log_id != actual && Some(last.log_id) != adopts => {
            Err(BusError::OtherLog { bus: bus.to_owned(), given: last.log_id, actual })
        }
        _ => Ok(()),
    }
}

/// Asks whoever runs the bus, and waits for an answer, or for any other sign of life.
async fn answers(
    store: &Arc<dyn EventStore>,
    options: &BusOptions,
    holder: Uuid,
    run: Uuid,
) -> Result<bool, BusError> {
    let asked = note(&options.name, ASKED, run);
    let asked = store.append_system(Append::any(vec![asked])).await?.last_position();
    let found = |record: &Record| {
        if record.aggregate_type() == CHECKPOINT_TYPE {
            return closes(record).map(|is_closed| !is_closed);
        }
        let run = serde_json::from_slice::<Run>(record.payload()).ok()?.run;
        (record.event_type() == HELD && run == holder).then_some(true)
    };
    let sign = first_of(store, &options.name, asked, found);
    match select(Box::pin(sign), Delay::new(options.lease_within)).await {
        Either::Left((is_alive, _)) => is_alive,
        Either::Right(_) => Ok(false),
    }
}

/// Waits until the bus may be free: its run has ended, here or elsewhere, or it is time to ask
/// again.
async fn wait_for_change(
    store: &Arc<dyn EventStore>,
    options: &BusOptions,
    newest: Position,
    freed: EventListener,
) -> Result<(), BusError> {
    let ended = |record: &Record| {
        let is_of_it = record.aggregate_type() == CHECKPOINT_TYPE;
        (is_of_it && closes(record) == Some(true)).then_some(())
    };
    let ended = first_of(store, &options.name, newest, ended);
    let again =
        Delay::new(options.lease_within.saturating_mul(PATIENCE).max(Duration::from_millis(1)));
    match select(Box::pin(ended), select(freed, again)).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => Ok(()),
    }
}

fn closes(record: &Record) -> Option<bool> {
    Some(serde_json::from_slice::<Places>(record.payload()).ok()?.is_closed)
}

/// What `find` finds in the first record, of those that concern who runs the bus, in which it finds
/// something.
async fn first_of<T>(
    store: &Arc<dyn EventStore>,
    bus: &str,
    after: Position,
    find: impl Fn(&Record) -> Option<T>,
) -> Result<T, BusError> {
    let aggregate_types = [CHECKPOINT_TYPE, LEASE_TYPE].map(str::to_owned).to_vec();
    let filter = Filter { aggregate_types, include_system: true, ..Filter::default() };
    let request = SubscribeRequest { filter, after: StartAfter::Position(after) };
    let mut subscription = store.subscribe(request)?;
    loop {
        for item in subscription.next_batch().await? {
            if let SubscriptionItem::Event(record) = item
                && record.aggregate_id() == bus
                && let Some(found) = find(&record)
            {
                return Ok(found);
            }
        }
    }
}

fn note(bus: &str, event_type: &str, run: Uuid) -> NewEvent {
    let stamp = SystemStamps.next();
    let json = serde_json::to_vec(&Run { run }).expect("an id has JSON");
    let key = AggregateKey::new(LEASE_TYPE, bus);
    NewEvent::json(stamp.event_id, key, event_type, stamp.timestamp, json)
}

/// What a record says to the one that runs the bus.
pub(super) enum Said {
    /// Somebody asks.
    Asked,
    /// Somebody else runs the bus now.
    Taken,
}

/// What a record says to the run of a bus.
pub(super) fn said(record: &Record, bus: &str, run: Uuid) -> Option<Said> {
    if record.aggregate_id() != bus {
        return None;
    }
    let of = serde_json::from_slice::<Run>(record.payload()).ok()?.run;
    match record.aggregate_type() {
        CHECKPOINT_TYPE if of != run => Some(Said::Taken),
        LEASE_TYPE if record.event_type() == ASKED && of != run => Some(Said::Asked),
        _ => None,
    }
}

/// Answers somebody who asks.
pub(super) async fn answer(
    store: &dyn EventStore,
    bus: &str,
    run: Uuid,
) -> Result<(), AppendError> {
    store.append_system(Append::any(vec![note(bus, HELD, run)])).await.map(drop)
}
