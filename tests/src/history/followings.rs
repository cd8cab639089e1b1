//! The rules of subscriptions: everything behind `after`, once, in order, and never withdrawn.

use quipu_types::Position;

use super::calls::{CallId, Following, Heard, Item};
use super::checker::Checker;
use super::timeline::{During, Lengths};
use super::violation::{Rule, Violation};

/// Checks what one subscription was told.
pub(super) fn check(checker: &mut Checker<'_>, following: &Following) -> Result<(), Violation> {
    let Following { id, of, after, .. } = *following;
    let after = match after {
        Some(after) => after,
        None => start(checker, following)?,
    };
    let mut listener = Listener { id, of, safe: after };
    for heard in &following.heard {
        let length = listener.hear(checker, heard)?;
        let during = During { id, invoked: following.invoked, responded: heard.at };
        checker.note(Rule::Shown, during, Lengths::at_least(length))?;
    }
    match following.due {
        Some(due) if listener.next(checker).is_some_and(|next| next <= due) => {
            let problem = format!("{id} was to hear all until {due}, and is at {}", listener.safe);
            Violation::of(Rule::Delivered, problem)
        }
        _ => Ok(()),
    }
}

/// Where a subscription began that was to hear only what is new: at the end, somewhere before what
/// it heard first.
fn start(checker: &mut Checker<'_>, following: &Following) -> Result<Position, Violation> {
    let Some(first) = following.heard.first() else { return Ok(Position::MAX) };
    let (start, most) = match first.item {
        Item::Mark(position) => (position, position.0),
        Item::Event(seen) => {
            let before = seen.position.previous();
            let count = checker.witness.count(following.of, before.0);
            let start = checker.witness.nth(following.of, count).unwrap_or_default();
            (start, before.0)
        }
    };
    let Following { id, invoked, .. } = *following;
    let during = During { id, invoked, responded: first.at };
    // A mark says no more than that the log was so long when it came.
    let lengths = match first.item {
        Item::Mark(_) => Lengths::ANY,
        Item::Event(_) => Lengths { least: start.0, most },
    };
    checker.note(Rule::NoGap, during, lengths)?;
    Ok(start)
}

/// A subscriber, as far as it was told.
struct Listener {
    id: CallId,
    of: Option<u32>,
    /// Everything up to here was delivered.
    safe: Position,
}

impl Listener {
    /// The event that is due next.
    fn next(&self, checker: &Checker<'_>) -> Option<Position> {
        let delivered = checker.witness.count(self.of, self.safe.0);
        checker.witness.nth(self.of, delivered + 1)
    }

    /// Takes one item; says how long the log was at least.
    fn hear(&mut self, checker: &Checker<'_>, heard: &Heard) -> Result<u64, Violation> {
        let Self { id, safe, .. } = *self;
        let next = self.next(checker);
        let position = match heard.item {
            Item::Event(seen) => {
                if seen.position <= safe {
                    let problem = format!("{id} had {safe}, and heard {} again", seen.position);
                    return Violation::of(Rule::NoRepeat, problem);
                }
                checker.shown(id, &seen)?;
                if next != Some(seen.position) {
                    let problem =
                        format!("{id} heard {} after {safe}, not {next:?}", seen.position);
                    return Violation::of(Rule::NoGap, problem);
                }
                seen.position
            }
            Item::Mark(position) => {
                if position.0 > checker.witness.length() {
                    let problem = format!("{id} was told of {position}, behind the log's end");
                    return Violation::of(Rule::Shown, problem);
                }
                if position < safe {
                    let problem = format!("{id} had {safe}, and was told {position}");
                    return Violation::of(Rule::NoRepeat, problem);
                }
                if next.is_some_and(|next| next <= position) {
                    let problem = format!("{id} was told all until {position}, but not {next:?}");
                    return Violation::of(Rule::NoGap, problem);
                }
                position
            }
        };
        self.safe = position;
        Ok(position.0)
    }
}
