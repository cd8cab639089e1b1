//! Everything about a phone number or a business transaction, in order, who and when.
//!
//! A read model in memory begins with the log, so it is fed by a plain subscription, and not by a
//! durable handler, which goes on where it stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;
use quipu_client::{
    Embedded, EventStore, Filter, Position, ReadError, ReadRequest, Record, SubscribeRequest,
    SubscriptionItem,
};
use quipu_domain::PhoneNumberHash;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The fields in which the catalogue's events name numbers.
const NUMBER_FIELDS: [&str; 3] = ["phone_number_hash", "from_number_hash", "to_number_hash"];

/// Which events concern which number.
pub(crate) struct Audit {
    index: Arc<Mutex<Index>>,
    followed: watch::Receiver<Followed>,
}

/// How far the log was followed, and why no further.
#[derive(Default)]
struct Followed {
    to: Position,
    failed: Option<ReadError>,
}

#[derive(Default)]
struct Index {
    of_number: BTreeMap<String, BTreeSet<Position>>,
    /// The numbers of each call: later events of it do not repeat them.
    of_call: BTreeMap<String, BTreeSet<String>>,
}

impl Index {
    fn take(&mut self, record: &Record) {
        let data: Value = serde_json::from_slice(record.payload()).unwrap_or_default();
        let named = NUMBER_FIELDS.iter().filter_map(|field| data[field].as_str());
        let mut numbers: BTreeSet<String> = named.map(str::to_owned).collect();
        if record.aggregate_type() == "Call" {
            let of_call = self.of_call.entry(record.aggregate_id().to_owned()).or_default();
            of_call.append(&mut numbers);
            numbers.clone_from(of_call);
        }
        for number in numbers {
            self.of_number.entry(number).or_default().insert(record.position());
        }
    }
}

impl Audit {
    /// Follows the log from its beginning.
    pub(crate) fn follow(log: &Embedded) -> Result<Self, ReadError> {
        let index = Arc::new(Mutex::new(Index::default()));
        let (tell, followed) = watch::channel(Followed::default());
        let mut subscription = log.subscribe(SubscribeRequest::default())?;
        let taking = Arc::clone(&index);
        tokio::spawn(async move {
            while let Some(item) = subscription.next().await {
                let position = match item {
                    Ok(SubscriptionItem::Event(record)) => {
                        taking.lock().take(&record);
                        record.position()
                    }
                    Ok(
                        SubscriptionItem::Checkpoint(position)
                        | SubscriptionItem::CaughtUp(position),
                    ) => position,
                    Ok(_) => continue,
                    Err(error) => {
                        tell.send_modify(|followed| followed.failed = Some(error));
                        return;
                    }
                };
                tell.send_modify(|followed| followed.to = position);
            }
        });
        Ok(Self { index, followed })
    }

    /// Everything about a number, that what was answered before included.
    pub(crate) async fn of_number(
        &self,
        log: &Embedded,
        number: PhoneNumberHash,
    ) -> Result<Vec<Value>, ReadError> {
        let last = last_position(log).await?;
        self.reaches(last).await?;
        let positions = self.index.lock().of_number.get(&number.to_string()).cloned();
        let mut entries = Vec::new();
        for position in positions.unwrap_or_default() {
            let one = ReadRequest { from: Some(position.0), limit: Some(1), ..Default::default() };
            entries.extend(log.read(one).next_batch().await?.iter().map(entry));
        }
        Ok(entries)
    }

    /// Waits until everything up to here is known. Damage in between is an answer, not less of one.
    async fn reaches(&self, last: Position) -> Result<(), ReadError> {
        let mut followed = self.followed.clone();
        let heard = followed.wait_for(|it| it.to >= last || it.failed.is_some()).await;
        let heard = heard.map_err(|_| ReadError::Closed)?;
        match &heard.failed {
            Some(error) if heard.to < last => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Everything of a business transaction: the log knows that itself.
    pub(crate) async fn of_correlation(
        log: &Embedded,
        correlation_id: &str,
    ) -> Result<Vec<Value>, ReadError> {
        let correlation_id = Some(correlation_id.to_owned());
        let filter = Filter { correlation_id, ..Filter::default() };
        let records = log.read(ReadRequest { filter, ..ReadRequest::default() });
        let entries: Vec<_> = records.map(|record| Ok(entry(&record?))).collect().await;
        entries.into_iter().collect()
    }
}

async fn last_position(log: &Embedded) -> Result<Position, ReadError> {
    let backward = quipu_client::Direction::Backward;
    let last = ReadRequest { direction: backward, limit: Some(1), ..ReadRequest::default() };
    Ok(log.read(last).next_batch().await?.first().map_or(Position::START, Record::position))
}

/// What happened, when, and who did it from where.
fn entry(record: &Record) -> Value {
    json!({
        "position": record.position(),
        "happened_at": record.timestamp(),
        "recorded_at": record.recorded_at(),
        "event": record.event_type(),
        "aggregate": format!("{}/{}", record.aggregate_type(), record.aggregate_id()),
        "user_id": record.user_id(),
        "ip_address": record.ip_address(),
        "user_agent": record.user_agent(),
        "correlation_id": record.correlation_id(),
        "causation_id": record.causation_id(),
        "data": serde_json::from_slice::<Value>(record.payload()).unwrap_or_default(),
    })
}
