//! The rules of reads: the log as it was at one moment of the read, without gaps.

use quipu_types::Position;

use super::calls::{ReadCall, VersionCall};
use super::checker::Checker;
use super::timeline::{During, Lengths};
use super::violation::{Rule, Violation};

/// Checks a read, which may have been cut short.
pub(super) fn check(checker: &mut Checker<'_>, call: &ReadCall) -> Result<(), Violation> {
    let ReadCall { id, invoked, responded, .. } = *call;
    call.seen.iter().try_for_each(|seen| checker.shown(id, seen))?;
    let lengths = if call.backward { backward(checker, call) } else { forward(checker, call) };
    let Some(lengths) = lengths else {
        let seen: Vec<u64> = call.seen.iter().map(|seen| seen.position.0).collect();
        let ReadCall { of, from, limit, whole, .. } = call;
        let problem = format!(
            "{id} has gaps: of {of:?} from {from:?}, limit {limit:?}, whole {whole}, backward \
             {}: {seen:?}",
            call.backward
        );
        return Violation::of(Rule::Read, problem);
    };
    checker.note(Rule::Read, During { id, invoked, responded }, lengths)
}

/// Checks a question for a version.
pub(super) fn check_version(
    checker: &mut Checker<'_>,
    call: &VersionCall,
) -> Result<(), Violation> {
    let VersionCall { id, invoked, responded, aggregate, version } = *call;
    let Some(lengths) = checker.lengths_at(aggregate, version.0) else {
        let problem = format!("{id}: aggregate {aggregate} was never at version {version}");
        return Violation::of(Rule::Version, problem);
    };
    checker.note(Rule::Version, During { id, invoked, responded }, lengths)
}

impl ReadCall {
    /// It stopped where there was nothing more, not where it was told to.
    fn ran_out(&self) -> bool {
        self.whole && self.limit.is_none_or(|limit| (self.seen.len() as u64) < limit)
    }
}

fn forward(checker: &Checker<'_>, call: &ReadCall) -> Option<Lengths> {
    let first = call.from.unwrap_or(1).max(1);
    for (seen, number) in call.seen.iter().zip(first..) {
        if checker.witness.nth(call.of, number) != Some(seen.position) {
            return None;
        }
    }
    let least = call.seen.last().map_or(0, |seen| seen.position.0);
    let next = checker.witness.nth(call.of, first + call.seen.len() as u64);
    Some(Lengths { least, most: before(next.filter(|_| call.ran_out())) })
}

fn backward(checker: &Checker<'_>, call: &ReadCall) -> Option<Lengths> {
    let Some(top) = call.seen.first() else {
        let first = checker.witness.nth(call.of, 1);
        return Some(Lengths { least: 0, most: before(first.filter(|_| call.ran_out())) });
    };
    let highest = checker.witness.count(call.of, top.position.0);
    if call.from.is_some_and(|from| highest > from) {
        return None;
    }
    for (seen, number) in call.seen.iter().zip((1..=highest).rev().chain(std::iter::repeat(0))) {
        if checker.witness.nth(call.of, number) != Some(seen.position) {
            return None;
        }
    }
    if call.ran_out() && call.seen.len() as u64 != highest {
        return None;
    }
    let next = checker.witness.nth(call.of, highest + 1);
    let was_asked_for = call.from == Some(highest);
    Some(Lengths { least: top.position.0, most: before(next.filter(|_| !was_asked_for)) })
}

/// The longest log without the event at this position.
fn before(position: Option<Position>) -> u64 {
    position.map_or(u64::MAX, |position| position.0 - 1)
}
