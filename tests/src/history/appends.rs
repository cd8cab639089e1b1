//! The rules of appends: what is stored, and what each was told.

use std::collections::{HashMap, HashSet};

use quipu_types::{ExpectedVersion, Position, Version};

use super::calls::{AppendCall, Expectation, Outcome};
use super::checker::Checker;
use super::journal::History;
use super::stamp::Stamp;
use super::stored::{Stored, Submitted};
use super::timeline::{During, Lengths};
use super::violation::{Rule, Violation};
use super::witness::Witness;

/// An append in the log, and who can have stored it.
pub(super) struct StoredAppend<'a> {
    first: Position,
    by: Vec<&'a AppendCall>,
}

impl AppendCall {
    /// Whether it says of itself that it was the first with its ids.
    fn is_first(&self) -> bool {
        matches!(self.outcome, Outcome::Stored { duplicate: false, .. })
    }

    /// One whose connection was lost, and that conflicts when it is sent again though its aggregate
    /// can still come to where it is expected, is tried once more, and takes a new place.
    fn keeps_its_turn(&self) -> bool {
        let never_met_later = [ExpectedVersion::Any, ExpectedVersion::NoStream];
        self.expectations.iter().all(|it| never_met_later.contains(&it.expected))
    }

    fn may_have_stored(&self) -> bool {
        matches!(self.outcome, Outcome::Stored { .. } | Outcome::Unknown)
    }

    fn is_at(&self, log: &[Stored]) -> bool {
        self.events.len() <= log.len() && self.events.iter().zip(log).all(|(a, b)| is_same(a, b))
    }

    fn during(&self) -> During {
        During { id: self.id, invoked: self.invoked, responded: self.responded }
    }
}

fn is_same(submitted: &Submitted, stored: &Stored) -> bool {
    let Submitted { id, aggregate, content } = *submitted;
    (id, aggregate, content) == (stored.id, stored.aggregate, stored.content)
}

/// Cuts the log into appends, each of which somebody made; and the lengths at which they end.
pub(super) fn find_stored<'a>(
    history: &'a History,
    witness: &Witness<'_>,
) -> Result<(Vec<StoredAppend<'a>>, Vec<u64>), Violation> {
    let mut makers: HashMap<u128, Vec<&AppendCall>> = HashMap::new();
    for call in &history.appends {
        if let Some(first) = call.events.first() {
            makers.entry(first.id).or_default().push(call);
        }
    }
    let (mut appends, mut ends, mut first) = (Vec::new(), Vec::new(), Position::FIRST);
    while let Some(stored) = witness.get(first) {
        let rest = witness.from(first);
        let made = makers.get(&stored.id).map_or(&[][..], Vec::as_slice);
        let fits = |call: &&&AppendCall| call.may_have_stored() && call.is_at(rest);
        let longest = made.iter().filter(fits).map(|call| call.events.len()).max();
        let Some(events) = longest else { return nobody_made(history, stored) };
        let makes = |call: &&&AppendCall| fits(call) && call.events.len() == events;
        let by: Vec<_> = made.iter().filter(makes).copied().collect();
        appends.push(StoredAppend { first, by });
        first = Position(first.0 + events as u64);
        ends.push(first.0 - 1);
    }
    Ok((appends, ends))
}

/// Every event in the log was submitted by somebody, like this.
pub(super) fn check_submitted(history: &History) -> Result<(), Violation> {
    let events = history.appends.iter().flat_map(|call| &call.events);
    let submitted: HashSet<&Submitted> = events.collect();
    for stored in &history.log {
        let Stored { id, aggregate, content, position, .. } = *stored;
        if !submitted.contains(&Submitted { id, aggregate, content }) {
            let problem = format!("nobody submitted event {id} at position {position} like this");
            return Violation::of(Rule::Submitted, problem);
        }
    }
    Ok(())
}

/// Says what is wrong with an event at which no append that may be stored begins.
fn nobody_made<T>(history: &History, stored: &Stored) -> Result<T, Violation> {
    let at = format!("event {} at position {}", stored.id, stored.position);
    let makes = |call: &&AppendCall| call.events.iter().any(|event| is_same(event, stored));
    let mut calls = history.appends.iter().filter(makes);
    match calls.find(|call| call.may_have_stored()) {
        Some(call) => {
            let problem = format!("{at} is not stored as {} made it: {call:?}", call.id);
            Violation::of(Rule::Whole, problem)
        }
        None => Violation::of(Rule::Failed, format!("{at} is stored, but all that made it failed")),
    }
}

/// Appends of one client that were the first with their ids stand in the order it made them.
pub(super) fn check_turns(history: &History) -> Result<(), Violation> {
    let mut firsts: Vec<_> = history.appends.iter().filter(|call| call.is_first()).collect();
    firsts.sort_by_key(|call| call.id);
    // The one of those made later that stands foremost.
    let mut foremost: Option<&AppendCall> = None;
    for call in firsts.into_iter().rev() {
        let later = foremost.filter(|later| later.id.client == call.id.client);
        let Some(later) = later.filter(|later| last_position(later) < last_position(call)) else {
            foremost = Some(call);
            continue;
        };
        if call.keeps_its_turn() {
            let problem = format!("{} is stored behind {}", call.id, later.id);
            return Violation::of(Rule::InTurn, problem);
        }
    }
    Ok(())
}

fn last_position(call: &AppendCall) -> Option<Position> {
    match &call.outcome {
        Outcome::Stored { positions, .. } => positions.iter().max().copied(),
        _ => None,
    }
}

impl Checker<'_> {
    /// Every append in the log met its expectations, and was not there before somebody made it.
    pub(super) fn check_stored(
        &mut self,
        history: &History,
        stored: &[StoredAppend<'_>],
    ) -> Result<(), Violation> {
        debug_assert!(stored.len() <= history.appends.len());
        for StoredAppend { first, by } in stored {
            let mut firsts = by.iter().filter(|call| call.is_first());
            let made_first = firsts.next();
            if let (Some(one), Some(other)) = (made_first, firsts.next()) {
                let problem = format!("{} and {} were both told so at {first}", one.id, other.id);
                return Violation::of(Rule::FirstOnce, problem);
            }
            let makers = made_first.map_or(by.as_slice(), std::slice::from_ref);
            let before = first.0 - 1;
            if !makers.iter().any(|call| self.meets_expectations(call, before)) {
                let made = format!("{:?}", makers.iter().map(|call| call.id).collect::<Vec<_>>());
                let problem = format!("stored at position {first}, but not as expected, by {made}");
                return Violation::of(Rule::Expectations, problem);
            }
            if let Some(call) = makers.iter().min_by_key(|call| call.invoked) {
                let during = During { responded: Stamp::NEVER, ..call.during() };
                self.note(Rule::RealTime, during, Lengths { least: 0, most: before })?;
            }
        }
        Ok(())
    }

    fn meets_expectations(&self, call: &AppendCall, before: u64) -> bool {
        call.expectations.iter().all(|expectation| {
            let actual = self.witness.version(expectation.aggregate, before);
            expectation.expected.is_met_by(actual)
        })
    }

    /// What an append was told is what the log would say at one moment of it.
    pub(super) fn check_append(&mut self, call: &AppendCall) -> Result<(), Violation> {
        match &call.outcome {
            Outcome::Stored { duplicate, positions, versions } => {
                self.check_acknowledged(call, positions, versions)?;
                if !duplicate && positions.windows(2).any(|pair| pair[1] != pair[0].next()) {
                    let problem = format!("{} is stored with gaps: {positions:?}", call.id);
                    return Violation::of(Rule::Whole, problem);
                }
                let last = positions.iter().max().map_or(0, |position| position.0);
                self.note(Rule::Acknowledged, call.during(), Lengths::at_least(last))
            }
            Outcome::Conflict(conflicts) => {
                let Some(lengths) = self.conflict_lengths(call, conflicts) else {
                    let problem = format!("{} cannot have conflicted: {call:?}", call.id);
                    return Violation::of(Rule::Conflict, problem);
                };
                self.note(Rule::Conflict, call.during(), lengths)
            }
            Outcome::IdConflict { event, position, partly } => {
                let Some(lengths) = self.id_conflict_lengths(call, *event, *position, *partly)
                else {
                    let problem = format!("{} has no id conflict: {call:?}", call.id);
                    return Violation::of(Rule::IdConflict, problem);
                };
                self.note(Rule::IdConflict, call.during(), lengths)
            }
            Outcome::Failed(_) | Outcome::Unknown => Ok(()),
        }
    }

    fn check_acknowledged(
        &self,
        call: &AppendCall,
        positions: &[Position],
        versions: &[(u32, Version)],
    ) -> Result<(), Violation> {
        let stored = |(event, position): (&Submitted, &Position)| {
            self.witness.get(*position).filter(|stored| is_same(event, stored))
        };
        let found: Option<Vec<&Stored>> = call.events.iter().zip(positions).map(stored).collect();
        let found = found.filter(|found| found.len() == call.events.len());
        let Some(found) = found.filter(|found| found.len() == positions.len()) else {
            let places: Vec<_> =
                call.events.iter().map(|event| self.witness.position_of(event.id)).collect();
            let problem = format!("{} was told {positions:?}, stored are {places:?}", call.id);
            return Violation::of(Rule::Acknowledged, problem);
        };
        let mut actual: Vec<(u32, Version)> = Vec::new();
        for stored in found {
            match actual.iter_mut().find(|(aggregate, _)| *aggregate == stored.aggregate) {
                Some((_, version)) => *version = stored.version.max(*version),
                None => actual.push((stored.aggregate, stored.version)),
            }
        }
        if actual != versions {
            let problem = format!("{} was told {versions:?}, stored are {actual:?}", call.id);
            return Violation::of(Rule::Acknowledged, problem);
        }
        Ok(())
    }

    /// The lengths of a log that would answer with this conflict.
    fn conflict_lengths(&self, call: &AppendCall, conflicts: &[(u32, Version)]) -> Option<Lengths> {
        let is_expected = |(aggregate, _): &(u32, Version)| {
            call.expectations.iter().any(|expectation| expectation.aggregate == *aggregate)
        };
        if conflicts.is_empty() || !conflicts.iter().all(is_expected) {
            return None;
        }
        // Ids are looked up first: had they been stored, it would be a repetition.
        let stored = call.events.iter().filter_map(|event| self.witness.position_of(event.id));
        let most = stored.min().map_or(u64::MAX, |position| position.0 - 1);
        let mut lengths = Lengths { most, ..Lengths::ANY };
        for expectation in &call.expectations {
            let conflict = conflicts.iter().find(|it| it.0 == expectation.aggregate);
            lengths = lengths.and(match conflict {
                Some((_, actual)) if expectation.expected.is_met_by(*actual) => return None,
                Some((aggregate, actual)) => self.lengths_at(*aggregate, actual.0)?,
                None => self.lengths_meeting(*expectation)?,
            });
        }
        (lengths.least <= lengths.most).then_some(lengths)
    }

    fn lengths_meeting(&self, expectation: Expectation) -> Option<Lengths> {
        let aggregate = expectation.aggregate;
        match expectation.expected {
            ExpectedVersion::Any => Some(Lengths::ANY),
            ExpectedVersion::NoStream => self.lengths_at(aggregate, 0),
            ExpectedVersion::StreamExists => {
                Some(Lengths::at_least(self.witness.nth(Some(aggregate), 1)?.0))
            }
            ExpectedVersion::Exact(version) => self.lengths_at(aggregate, version.0),
        }
    }

    fn id_conflict_lengths(
        &self,
        call: &AppendCall,
        id: u128,
        position: Position,
        partly: bool,
    ) -> Option<Lengths> {
        let event = call.events.iter().find(|event| event.id == id)?;
        let stored = self.witness.get(position).filter(|stored| stored.id == id)?;
        let others = call.events.iter().filter(|other| other.id != id);
        let lengths = Lengths::at_least(position.0);
        if !partly {
            return (!is_same(event, stored)).then_some(lengths);
        }
        let mut most = 0;
        for other in others {
            most = match self.witness.position_of(other.id) {
                Some(position) => most.max(position.0 - 1),
                None => u64::MAX,
            };
            if most == u64::MAX {
                break;
            }
        }
        (most >= position.0).then_some(Lengths { most, ..lengths })
    }
}
