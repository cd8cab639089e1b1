//! The log as it was in the end: its positions are the witness of the order in which everything
//! happened.

use std::collections::HashMap;

use quipu_types::{Position, Version};

use super::stored::Stored;
use super::violation::{Rule, Violation};

/// The log, with what is looked up in it.
pub(super) struct Witness<'a> {
    log: &'a [Stored],
    ids: HashMap<u128, Position>,
    aggregates: HashMap<u32, Vec<Position>>,
}

impl<'a> Witness<'a> {
    /// Looks whether it is a log at all.
    pub(super) fn new(log: &'a [Stored]) -> Result<Self, Violation> {
        let mut ids = HashMap::with_capacity(log.len());
        let mut aggregates: HashMap<u32, Vec<Position>> = HashMap::new();
        let mut recorded_at = i64::MIN;
        for (stored, place) in log.iter().zip(1..) {
            let Stored { position, version, id, aggregate, .. } = *stored;
            if position != Position(place) {
                let problem = format!("position {position} stands where {place} should");
                return Violation::of(Rule::Positions, problem);
            }
            let positions = aggregates.entry(aggregate).or_default();
            positions.push(position);
            if version.0 != positions.len() as u64 {
                let due = positions.len();
                let problem = format!(
                    "aggregate {aggregate} has version {version} at position {position}, not {due}"
                );
                return Violation::of(Rule::Versions, problem);
            }
            if let Some(earlier) = ids.insert(id, position) {
                let problem = format!("event {id} is stored at {earlier} and at {position}");
                return Violation::of(Rule::UniqueIds, problem);
            }
            if stored.recorded_at < recorded_at {
                let problem = format!("recorded_at goes back at position {position}");
                return Violation::of(Rule::RecordedAt, problem);
            }
            recorded_at = stored.recorded_at;
        }
        Ok(Self { log, ids, aggregates })
    }

    /// How many events there are.
    pub(super) fn length(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn get(&self, position: Position) -> Option<&'a Stored> {
        let index = usize::try_from(position.0.checked_sub(1)?).ok()?;
        self.log.get(index)
    }

    /// The events from this position on.
    pub(super) fn from(&self, position: Position) -> &'a [Stored] {
        let index = usize::try_from(position.0.saturating_sub(1)).unwrap_or(usize::MAX);
        self.log.get(index..).unwrap_or_default()
    }

    pub(super) fn position_of(&self, id: u128) -> Option<Position> {
        self.ids.get(&id).copied()
    }

    /// Where the event stands that is so many-th of an aggregate, or of all; the first is 1.
    pub(super) fn nth(&self, of: Option<u32>, number: u64) -> Option<Position> {
        match of {
            None => (1..=self.length()).contains(&number).then_some(Position(number)),
            Some(aggregate) => {
                let index = usize::try_from(number.checked_sub(1)?).ok()?;
                self.aggregates.get(&aggregate)?.get(index).copied()
            }
        }
    }

    /// How many events of an aggregate, or of all, a log of this length has.
    pub(super) fn count(&self, of: Option<u32>, length: u64) -> u64 {
        match of {
            None => length.min(self.length()),
            Some(aggregate) => self.aggregates.get(&aggregate).map_or(0, |positions| {
                positions.partition_point(|position| position.0 <= length) as u64
            }),
        }
    }

    /// The version that an aggregate has in a log of this length.
    pub(super) fn version(&self, aggregate: u32, length: u64) -> Version {
        Version(self.count(Some(aggregate), length))
    }
}
