//! The events that a handler could not handle, as its notes say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use quipu_types::{AggregateKey, Position, Record, Timestamp, Uuid};

use super::note::{Note, Noted};

/// An event that a handler could not handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its id.
    pub event_id: Uuid,
    /// The aggregate it belongs to.
    pub aggregate: AggregateKey,
    /// Its type.
    pub event_type: String,
    /// Attempts so far; 0 if it was parked behind another one.
    pub attempts: u32,
    /// Why the last one failed.
    pub error: String,
    /// When it was parked.
    pub parked_at: Timestamp,
}

/// The parked events of one handler.
///
/// Invariant: a fold of the handler's notes, each taken once and in order; those of this run when
/// they are answered, which may be later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parked {
    events: BTreeMap<Position, ParkedEvent>,
    of_aggregate: HashMap<AggregateKey, BTreeSet<Position>>,
    /// Those that somebody wants to be handled again.
    asked: BTreeSet<Position>,
    /// Those that somebody dropped, and where that is noted.
    dropped: BTreeMap<Position, Position>,
}

impl Parked {
    pub(super) fn take(&mut self, noted: &Noted) {
        match &noted.note {
            // A drop may be heard before the answer comes that the event is parked.
            Note::EventParked { position, .. }
                if self.dropped.get(position).is_none_or(|dropped| *dropped < noted.position) =>
            {
                self.dropped.remove(position);
                self.forget(*position);
                self.add(noted);
            }
            Note::ParkedReplayAsked { position } => {
                if self.events.contains_key(position) {
                    self.asked.insert(*position);
                }
            }
            Note::ParkedHandled { position } => self.forget(*position),
            Note::ParkedDropped { position, .. } => {
                self.forget(*position);
                self.dropped.insert(*position, noted.position);
            }
            Note::EventParked { .. }
            | Note::ReplayAsked { .. }
            | Note::ReplayProgressed { .. }
            | Note::ReplayEnded { .. } => {}
        }
    }

    fn add(&mut self, noted: &Noted) {
        let Note::EventParked {
            position,
            event_id,
            aggregate_type,
            aggregate_id,
            event_type,
            attempts,
            error,
        } = noted.note.clone()
        else {
            return;
        };
        let aggregate = AggregateKey { aggregate_type, aggregate_id };
        self.of_aggregate.entry(aggregate.clone()).or_default().insert(position);
        let parked_at = noted.at;
        let event =
            ParkedEvent { position, event_id, aggregate, event_type, attempts, error, parked_at };
        self.events.insert(position, event);
    }

    fn forget(&mut self, position: Position) {
        self.asked.remove(&position);
        let Some(event) = self.events.remove(&position) else { return };
        if let Some(positions) = self.of_aggregate.get_mut(&event.aggregate) {
            positions.remove(&position);
            if positions.is_empty() {
                self.of_aggregate.remove(&event.aggregate);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn get(&self, position: Position) -> Option<&ParkedEvent> {
        self.events.get(&position)
    }

    /// Whether the event is not to come up again by itself.
    pub(super) fn is_put_aside(&self, position: Position) -> bool {
        self.events.contains_key(&position) || self.dropped.contains_key(&position)
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &ParkedEvent> {
        self.events.values()
    }

    /// The first event of the aggregate that is parked, before this position.
    pub(super) fn ahead_of(&self, key: &AggregateKey, position: Position) -> Option<Position> {
        let first = *self.of_aggregate.get(key)?.first()?;
        (first < position).then_some(first)
    }

    /// Whether it is parked and, with `in_order`, none of its aggregate is before it.
    pub(super) fn is_next(&self, record: &Record, in_order: bool) -> bool {
        let position = record.position();
        self.events.contains_key(&position)
            && !(in_order && self.ahead_of(&record.aggregate(), position).is_some())
    }

    /// Takes those up to a position that are to be handled again. With `in_order` those of the same
    /// aggregates that were parked before them come along.
    pub(super) fn take_asked(&mut self, upto: Position, in_order: bool) -> BTreeSet<Position> {
        let later = self.asked.split_off(&upto.next());
        let asked = std::mem::replace(&mut self.asked, later);
        let mut wanted = asked.clone();
        if in_order {
            for event in asked.iter().filter_map(|position| self.events.get(position)) {
                let same = self.of_aggregate.get(&event.aggregate).into_iter().flatten();
                wanted.extend(same.take_while(|position| **position <= event.position));
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note_at(parked: &mut Parked, position: u64, note: Note) {
        let (at, position) = (Timestamp::from_micros(1), Position(position));
        parked.take(&Noted { note, at, position });
    }

    fn note(parked: &mut Parked, note: Note) {
        note_at(parked, 1, note);
    }

    fn parked_note(position: u64, id: &str) -> Note {
        Note::EventParked {
            position: Position(position),
            event_id: Uuid::from_u128(position.into()),
            aggregate_type: "Call".to_owned(),
            aggregate_id: id.to_owned(),
            event_type: "Ended".to_owned(),
            attempts: 5,
            error: "why".to_owned(),
        }
    }

    fn park(parked: &mut Parked, position: u64, id: &str) {
        note(parked, parked_note(position, id));
    }

    #[test]
    fn what_is_parked_is_what_was_neither_handled_nor_dropped() {
        let mut parked = Parked::default();
        for (position, id) in [(3, "a"), (4, "b"), (7, "a"), (9, "c"), (3, "a")] {
            park(&mut parked, position, id);
        }
        note(&mut parked, Note::ParkedHandled { position: Position(4) });
        let reason = "of no use".to_owned();
        note(&mut parked, Note::ParkedDropped { position: Position(9), reason });
        note(&mut parked, Note::ParkedHandled { position: Position(100) });
        assert_eq!(parked.events().map(|event| event.position.0).collect::<Vec<_>>(), [3, 7]);
        let key = AggregateKey::new("Call", "a");
        assert_eq!(parked.ahead_of(&key, Position(8)), Some(Position(3)));
        assert_eq!(parked.ahead_of(&key, Position(3)), None, "not ahead of itself");
        note(&mut parked, Note::ParkedHandled { position: Position(3) });
        note(&mut parked, Note::ParkedHandled { position: Position(7) });
        assert_eq!((parked.len(), parked.ahead_of(&key, Position(8))), (0, None));
    }

    #[test]
    fn a_drop_counts_against_what_is_noted_before_it_whenever_that_is_taken() {
        for (parked_at, is_parked) in [(4, false), (6, true)] {
            let mut parked = Parked::default();
            park(&mut parked, 3, "a");
            let (position, reason) = (Position(3), "of no use".to_owned());
            note_at(&mut parked, 5, Note::ParkedDropped { position, reason });
            assert!(parked.len() == 0 && parked.is_put_aside(position));
            note_at(&mut parked, parked_at, parked_note(3, "a"));
            assert_eq!(parked.get(position).is_some(), is_parked);
            assert!(parked.is_put_aside(position));
        }
    }

    #[test]
    fn those_before_it_come_along_where_the_order_counts() {
        for (in_order, expected) in [(false, &[7][..]), (true, &[3, 7])] {
            let mut parked = Parked::default();
            for (position, id) in [(3, "a"), (4, "b"), (7, "a"), (8, "a")] {
                park(&mut parked, position, id);
            }
            for position in [7, 100] {
                note(&mut parked, Note::ParkedReplayAsked { position: Position(position) });
            }
            assert!(parked.take_asked(Position(6), in_order).is_empty(), "it comes later");
            let taken = parked.take_asked(Position(7), in_order);
            assert!(taken.iter().map(|position| position.0).eq(expected.iter().copied()));
            assert!(parked.take_asked(Position(7), in_order).is_empty() && parked.len() == 4);
        }
    }
}
