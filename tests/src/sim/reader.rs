//! Readers and a subscriber, who hold what they are shown against the model.

use quipu_engine::EventLog;
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::read::subscription::Subscription;
use quipu_types::{
    AggregateKey, Checkpoint, Filter, Position, ReadError, ReadRequest, Record, StartAfter,
    SubscribeRequest, SubscriptionItem, Timestamp,
};

use super::model::{Model, is_record_of};
use super::workload::Workload;
use super::world::World;

/// Who reads a log that is open.
pub struct Readers<'a> {
    log: &'a EventLog,
    subscription: Option<Subscription>,
}

impl<'a> Readers<'a> {
    pub fn new(log: &'a EventLog) -> Self {
        Self { log, subscription: None }
    }

    /// Somebody reads something.
    pub fn read(&mut self, world: &mut World) -> Result<(), String> {
        let faults_before = world.disk.faults_met();
        let key = Workload::aggregate(&mut world.rng);
        let outcome = match world.rng.u8(0..3) {
            0 => self.read_all(world),
            1 => self.read_aggregate(world, &key),
            _ => self.follow(world),
        };
        match outcome {
            Ok(outcome) => outcome,
            // The disk has refused, and the reader was told so.
            Err(_) if world.disk.faults_met() > faults_before => {
                self.subscription = None;
                Ok(())
            }
            Err(_) if !world.disk.is_powered() => Ok(()),
            Err(error) => Err(format!("a read failed: {error}")),
        }
    }

    fn read_all(&self, world: &mut World) -> Result<Result<(), String>, ReadError> {
        let end = self.log.shared().watermark.current();
        let first = Position(world.rng.u64(1..=end.0.max(1)));
        let records = read_from(self.log, first)?;
        Ok(Self::judge_all(world, first, end, &records))
    }

    fn judge_all(
        world: &mut World,
        first: Position,
        end: Position,
        records: &[Record],
    ) -> Result<(), String> {
        check_records(&world.model, first, records)?;
        let expected = end.0.saturating_sub(first.previous().0);
        if records.len() as u64 != expected {
            let found = records.len();
            return Err(format!("{found} records from {first} on, the watermark says {expected}"));
        }
        world.saw(end);
        Ok(())
    }

    /// An aggregate's records, which the index finds, are those that the model has.
    pub fn read_aggregate(
        &self,
        world: &World,
        key: &AggregateKey,
    ) -> Result<Result<(), String>, ReadError> {
        let end = self.log.shared().watermark.current();
        let filter = Filter::aggregate(key.clone());
        let records = read_all(self.log, ReadRequest { filter, ..ReadRequest::default() })?;
        let found: Vec<Position> = records.iter().map(Record::position).collect();
        let length = usize::try_from(end.0).expect("a simulated log is short");
        let expected = world.model.positions(key, length);
        Ok(if found == expected {
            Ok(())
        } else {
            Err(format!("{key}: records at {found:?}, expected {expected:?}"))
        })
    }

    /// The subscriber goes on where it was, in this or an earlier opening.
    fn follow(&mut self, world: &mut World) -> Result<Result<(), String>, ReadError> {
        if self.subscription.is_none() {
            let log_id = self.log.shared().log_id;
            let place = Checkpoint { log_id, position: world.delivered };
            let filter = Filter { include_system: true, ..Filter::default() };
            let after = StartAfter::Checkpoint(place);
            self.subscription = Some(self.log.subscribe(SubscribeRequest { filter, after })?);
        }
        let Some(subscription) = &mut self.subscription else { return Ok(Ok(())) };
        let limits = PageLimits { records: world.rng.usize(1..20), ..PageLimits::default() };
        for item in subscription.try_next(limits)? {
            if let SubscriptionItem::Event(record) = item {
                let next = world.delivered.next();
                let delivered = check_records(&world.model, next, &[record]);
                if let Err(problem) = delivered {
                    return Ok(Err(format!("a subscriber was given another record: {problem}")));
                }
                world.delivered = next;
                world.saw(next);
            }
        }
        Ok(Ok(()))
    }
}

/// Every record from a position on.
pub fn read_from(log: &EventLog, first: Position) -> Result<Vec<Record>, ReadError> {
    let filter = Filter { include_system: true, ..Filter::default() };
    read_all(log, ReadRequest { filter, from: Some(first.0), ..ReadRequest::default() })
}

fn read_all(log: &EventLog, request: ReadRequest) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let mut cursor = log.read(request);
    loop {
        let page = cursor.next_page(PageLimits::default())?;
        records.extend(page.records);
        if page.is_last {
            return Ok(records);
        }
    }
}

/// Reads until the end or the first error, keeping what came before it.
pub fn read_some(log: &EventLog) -> (Vec<Record>, Option<ReadError>) {
    let filter = Filter { include_system: true, ..Filter::default() };
    let mut cursor = log.read(ReadRequest { filter, ..ReadRequest::default() });
    let mut records = Vec::new();
    loop {
        match cursor.next_page(PageLimits::default()) {
            Ok(page) => {
                records.extend(page.records);
                if page.is_last {
                    return (records, None);
                }
            }
            Err(error) => return (records, Some(error)),
        }
    }
}

/// Whether records from a position on are those of the model, their times not going back.
pub fn check_records(model: &Model, first: Position, records: &[Record]) -> Result<(), String> {
    let mut recorded_at = Timestamp::from_micros(i64::MIN);
    for (record, position) in records.iter().zip(first.0..) {
        let index = usize::try_from(position).expect("a simulated log is short");
        match model.events.get(index - 1) {
            Some(event) if is_record_of(event, index, record) => {}
            Some(event) => {
                return Err(format!("position {position}: expected {event:?}, found {record:?}"));
            }
            None => return Err(format!("position {position}: never submitted: {record:?}")),
        }
        if record.recorded_at() < recorded_at {
            return Err(format!("position {position}: recorded before the one in front of it"));
        }
        recorded_at = record.recorded_at();
    }
    Ok(())
}

/// Whether each record that can be read by itself is that of the model.
pub fn check_each(log: &EventLog, model: &Model) -> Result<(), String> {
    for (position, event) in (1..).zip(&model.events) {
        let found = log.record_at(Position(position as u64));
        if let Some(record) = found.ok().filter(|record| !is_record_of(event, position, record)) {
            return Err(format!("position {position}: expected {event:?}, found {record:?}"));
        }
    }
    Ok(())
}

/// The indexes against a scan: number of aggregates and ids, versions, each aggregate's records.
pub fn check_indexes(log: &EventLog, world: &World) -> Result<(), String> {
    let model = &world.model;
    let expected = (model.aggregates() as u64, model.events.len() as u64);
    let known = log.known();
    if known != expected {
        return Err(format!("known are (aggregates, ids) {known:?}, expected {expected:?}"));
    }
    let readers = Readers::new(log);
    for key in model.keys() {
        let (found, expected) = (log.version(key), model.version(key));
        if found.as_ref().ok() != Some(&expected) {
            return Err(format!("{key}: version {found:?}, expected {expected}"));
        }
        readers.read_aggregate(world, key).map_err(|error| format!("{key}: {error}"))??;
    }
    Ok(())
}
