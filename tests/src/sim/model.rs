//! What the log must hold: admission written down a second time, as plainly as possible.

use std::collections::{BTreeMap, HashMap};

use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, Position, Record, Uuid, Version,
};

/// An event that is, or would be, stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub id: Uuid,
    pub key: AggregateKey,
    pub version: Version,
    pub payload: Vec<u8>,
}

/// Everything admitted so far, in order.
#[derive(Clone, Default)]
pub struct Model {
    pub events: Vec<StoredEvent>,
    /// Length of the log after each append that was stored.
    ends: Vec<usize>,
    versions: BTreeMap<AggregateKey, Version>,
    positions: HashMap<Uuid, Position>,
}

/// What the model expects as the answer to an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Stored(AppendOutcome),
    Duplicate(Vec<Position>),
    Conflict(Vec<(AggregateKey, Version)>),
    IdConflict(Uuid),
}

impl Model {
    /// Takes an append as the log should.
    pub fn admit(&mut self, append: &Append) -> Expected {
        let known: Vec<Option<Position>> =
            append.events.iter().map(|it| self.positions.get(&it.event_id).copied()).collect();
        if let Some(index) = known.iter().position(Option::is_some) {
            let Some(all) = known.iter().copied().collect::<Option<Vec<_>>>() else {
                return Expected::IdConflict(append.events[index].event_id);
            };
            let other = append.events.iter().zip(&all).find(|(event, position)| {
                let stored = &self.events[index_of(**position)];
                stored.key != event.aggregate || stored.payload != event.payload
            });
            return match other {
                Some((event, _)) => Expected::IdConflict(event.event_id),
                None => Expected::Duplicate(all),
            };
        }
        let conflicts: Vec<_> = (append.expectations.iter())
            .map(|(key, expected)| (key, expected, self.version(key)))
            .filter(|(_, expected, actual)| !expected.is_met_by(*actual))
            .map(|(key, _, actual)| (key.clone(), actual))
            .collect();
        if conflicts.is_empty() {
            Expected::Stored(self.store(append))
        } else {
            Expected::Conflict(conflicts)
        }
    }

    fn store(&mut self, append: &Append) -> AppendOutcome {
        let mut outcome =
            AppendOutcome { duplicate: false, positions: Vec::new(), versions: Vec::new() };
        for event in &append.events {
            let (key, version) = (&event.aggregate, self.version(&event.aggregate).next());
            let position = Position(self.events.len() as u64 + 1);
            self.versions.insert(key.clone(), version);
            self.positions.insert(event.event_id, position);
            self.events.push(StoredEvent {
                id: event.event_id,
                key: key.clone(),
                version,
                payload: event.payload.clone(),
            });
            outcome.positions.push(position);
            match outcome.versions.iter_mut().find(|(found, _)| found == key) {
                Some((_, last)) => *last = version,
                None => outcome.versions.push((key.clone(), version)),
            }
        }
        self.ends.push(self.events.len());
        outcome
    }

    pub fn version(&self, key: &AggregateKey) -> Version {
        self.versions.get(key).copied().unwrap_or_default()
    }

    /// Number of aggregates.
    pub fn aggregates(&self) -> usize {
        self.versions.len()
    }

    /// The aggregates.
    pub fn keys(&self) -> impl Iterator<Item = &AggregateKey> {
        self.versions.keys()
    }

    /// Where an aggregate's event of this version stands.
    pub fn position_of(&self, key: &AggregateKey, version: Version) -> Option<Position> {
        let found = self.events.iter().position(|it| it.version == version && it.key == *key);
        found.map(|index| Position(index as u64 + 1))
    }

    /// Positions of an aggregate's events up to a length of the log.
    pub fn positions(&self, key: &AggregateKey, length: usize) -> Vec<Position> {
        let events = self.events.iter().take(length).enumerate();
        let of_key = events.filter(|(_, event)| event.key == *key);
        of_key.map(|(index, _)| Position(index as u64 + 1)).collect()
    }

    /// Whether the log may end at this length: at the end of an append.
    pub fn may_end_at(&self, length: usize) -> bool {
        length == 0 || self.ends.contains(&length)
    }

    /// Forgets everything after `length` events: a crash has taken it.
    pub fn truncate(&mut self, length: usize) {
        if length >= self.events.len() {
            return;
        }
        let mut shorter = Self::default();
        let ends = std::mem::take(&mut self.ends);
        for event in self.events.drain(..).take(length) {
            shorter.versions.insert(event.key.clone(), event.version);
            let position = Position(shorter.events.len() as u64 + 1);
            shorter.positions.insert(event.id, position);
            shorter.events.push(event);
        }
        shorter.ends = ends.into_iter().filter(|end| *end <= length).collect();
        *self = shorter;
    }
}

fn index_of(position: Position) -> usize {
    usize::try_from(position.0 - 1).expect("a simulated log is short")
}

/// Whether the log's answer is the one expected.
pub fn agrees(expected: &Expected, answer: &Result<AppendOutcome, AppendError>) -> bool {
    match (expected, answer) {
        (Expected::Stored(expected), Ok(outcome)) => expected == outcome,
        (Expected::Duplicate(positions), Ok(outcome)) => {
            outcome.duplicate && outcome.positions == *positions
        }
        (Expected::Conflict(expected), Err(AppendError::Conflict(found))) => {
            let mut found: Vec<_> = found.iter().map(|it| (&it.key, it.actual)).collect();
            let mut expected: Vec<_> = expected.iter().map(|(key, at)| (key, *at)).collect();
            found.sort_unstable();
            expected.sort_unstable();
            found == expected
        }
        (Expected::IdConflict(id), Err(AppendError::IdConflict { event_id, .. })) => id == event_id,
        _ => false,
    }
}

/// Whether a record is the event stored at its position.
pub fn is_record_of(event: &StoredEvent, position: usize, record: &Record) -> bool {
    record.position().0 == position as u64
        && record.event_id() == event.id
        && record.version() == event.version
        && record.is_of(&event.key)
        && record.payload() == event.payload
}
