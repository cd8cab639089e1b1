//! The check of a history: can one log, which did one thing after the other in the order of its
//! positions, have told its clients all this, each answer at one moment of its operation?
//!
//! Positions give the order, so nothing is searched for: every operation says between which lengths
//! the log was at one moment of it (`timeline`), and what it was told must be what a log of these
//! lengths would say. O(n log n).

use super::appends;
use super::calls::{CallId, Outcome};
use super::followings;
use super::journal::History;
use super::reads;
use super::stored::Seen;
use super::timeline::{During, Lengths, Timeline};
use super::violation::{Rule, Violation};
use super::witness::Witness;

/// How much was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub appends: u64,
    pub stored: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub failed: u64,
    /// Appends whose outcome was never told, and of these those that the log has.
    pub unknown: u64,
    pub unknown_stored: u64,
    pub reads: u64,
    /// Events and marks that subscribers heard.
    pub heard: u64,
    /// Events in the log.
    pub events: u64,
}

impl Checked {
    /// Operations with an answer or an outcome that was checked: appends, reads, questions, and
    /// what was delivered.
    pub fn operations(&self) -> u64 {
        self.appends + self.reads + self.heard
    }

    pub fn add(&mut self, other: &Self) {
        self.appends += other.appends;
        self.stored += other.stored;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.unknown_stored += other.unknown_stored;
        self.reads += other.reads;
        self.heard += other.heard;
        self.events += other.events;
    }
}

/// Checks every rule; the first violation that is found is told.
pub fn check(history: &History) -> Result<Checked, Violation> {
    let witness = Witness::new(&history.log)?;
    appends::check_submitted(history)?;
    let (stored, ends) = appends::find_stored(history, &witness)?;
    let mut checker = Checker { witness, timeline: Timeline::new(ends) };
    checker.check_stored(history, &stored)?;
    for call in &history.appends {
        checker.check_append(call)?;
    }
    for call in &history.reads {
        reads::check(&mut checker, call)?;
    }
    for call in &history.versions {
        reads::check_version(&mut checker, call)?;
    }
    for following in &history.followings {
        followings::check(&mut checker, following)?;
    }
    checker.timeline.check()?;
    if !history.out_of_turn {
        appends::check_turns(history)?;
    }
    Ok(count(history, &checker.witness))
}

/// What the rules are checked against.
pub(super) struct Checker<'a> {
    pub(super) witness: Witness<'a>,
    pub(super) timeline: Timeline,
}

impl Checker<'_> {
    /// An operation was right if the log had one of these lengths meanwhile.
    pub(super) fn note(
        &mut self,
        rule: Rule,
        during: During,
        lengths: Lengths,
    ) -> Result<(), Violation> {
        if self.timeline.note(during, lengths) {
            return Ok(());
        }
        let (id, Lengths { least, most }) = (during.id, lengths);
        let problem =
            format!("{id}: true of a log of {least} to {most} events, but no append ends there");
        Violation::of(rule, problem)
    }

    /// The lengths of a log in which an aggregate has this version.
    pub(super) fn lengths_at(&self, aggregate: u32, version: u64) -> Option<Lengths> {
        let of = Some(aggregate);
        let least = match version {
            0 => 0,
            version => self.witness.nth(of, version)?.0,
        };
        let next = self.witness.nth(of, version + 1);
        Some(Lengths { least, most: next.map_or(u64::MAX, |next| next.0 - 1) })
    }

    pub(super) fn shown(&self, id: CallId, seen: &Seen) -> Result<(), Violation> {
        let position = seen.position;
        let problem = match self.witness.get(position) {
            Some(stored) if stored.seen() == *seen => return Ok(()),
            Some(stored) => format!("{id} saw another event at position {position}: {stored:?}"),
            None => format!("{id} saw position {position}, but the log ends before it"),
        };
        Violation::of(Rule::Shown, problem)
    }
}

fn count(history: &History, witness: &Witness<'_>) -> Checked {
    let mut checked = Checked {
        appends: history.appends.len() as u64,
        reads: (history.reads.len() + history.versions.len()) as u64,
        events: witness.length(),
        ..Checked::default()
    };
    for call in &history.appends {
        match &call.outcome {
            Outcome::Stored { duplicate: false, .. } => checked.stored += 1,
            Outcome::Stored { duplicate: true, .. } => checked.duplicates += 1,
            Outcome::Conflict(_) | Outcome::IdConflict { .. } => checked.conflicts += 1,
            Outcome::Failed(_) => checked.failed += 1,
            Outcome::Unknown => {
                checked.unknown += 1;
                let first = call.events.first().and_then(|event| witness.position_of(event.id));
                checked.unknown_stored += u64::from(first.is_some());
            }
        }
    }
    checked.heard = history.followings.iter().map(|it| it.heard.len() as u64).sum();
    checked
}

#[cfg(test)]
mod tests {
    use quipu_types::{ExpectedVersion, Position, Version};

    use super::super::calls::{AppendCall, Following, Heard, Item, ReadCall};
    use super::super::example::Example;
    use super::super::stamp::Stamp;
    use super::super::stored::{Stored, Submitted};
    use super::*;

    fn example(seed: u64) -> History {
        Example::new(seed).history()
    }

    /// Breaks a correct history in one place; each seed in which there is such a place must show
    /// one of these rules broken, and some seed must have one.
    #[track_caller]
    fn must_find(rules: &[Rule], break_it: impl Fn(&mut History) -> Option<()>) {
        let mut broken = 0;
        for seed in 0..100 {
            let mut history = example(seed);
            if break_it(&mut history).is_none() {
                continue;
            }
            broken += 1;
            match check(&history) {
                Err(violation) => {
                    assert!(rules.contains(&violation.rule), "seed {seed}: {violation}");
                }
                Ok(_) => panic!("seed {seed}: {rules:?} was broken, and that was not found"),
            }
        }
        assert!(broken > 10, "{rules:?} could be broken in {broken} histories only");
    }

    fn stored_call(history: &mut History, is_it: impl Fn(&AppendCall) -> bool) -> Option<usize> {
        let is_first = |call: &&AppendCall| {
            matches!(call.outcome, Outcome::Stored { duplicate: false, .. }) && is_it(call)
        };
        let call = history.appends.iter().filter(is_first).nth(3)?;
        history.appends.iter().position(|other| other == call)
    }

    fn positions(call: &AppendCall) -> &[Position] {
        match &call.outcome {
            Outcome::Stored { positions, .. } => positions,
            _ => &[],
        }
    }

    /// Takes events out of the log as if they had never been, and makes it a log again.
    fn cut(history: &mut History, gone: impl Fn(&Stored) -> bool) {
        history.log.retain(|stored| !gone(stored));
        let mut versions = std::collections::HashMap::new();
        for (stored, place) in history.log.iter_mut().zip(1..) {
            let version: &mut u64 = versions.entry(stored.aggregate).or_default();
            *version += 1;
            (stored.position, stored.version) = (Position(place), Version(*version));
        }
    }

    /// Only the appends: what others saw of it would tell first.
    fn only_appends(history: &mut History) {
        history.reads.clear();
        history.versions.clear();
        history.followings.clear();
    }

    fn long_read(history: &mut History) -> Option<&mut ReadCall> {
        history.reads.iter_mut().filter(|read| read.seen.len() > 4 && read.of.is_none()).nth(2)
    }

    fn long_following(history: &mut History) -> Option<&mut Following> {
        history.followings.iter_mut().filter(|it| it.heard.len() > 5).nth(2)
    }

    #[test]
    fn what_a_correct_log_does_is_right() {
        let mut all = Checked::default();
        for seed in 0..500 {
            let checked = check(&example(seed));
            all.add(&checked.unwrap_or_else(|violation| panic!("seed {seed}: {violation}")));
        }
        assert!(all.duplicates > 500 && all.conflicts > 500 && all.failed > 500, "{all:?}");
        assert!(all.unknown_stored > 500 && all.unknown > all.unknown_stored, "{all:?}");
        assert!(all.reads > 500 && all.heard > 500 && all.operations() > 10_000, "{all:?}");
    }

    #[test]
    fn a_log_with_gaps_is_none() {
        must_find(&[Rule::Positions], |history| {
            history.log.remove(5);
            Some(())
        });
        must_find(&[Rule::Versions], |history| {
            history.log.get_mut(9).map(|stored| stored.version = stored.version.next())
        });
        must_find(&[Rule::UniqueIds], |history| {
            history.log[12].id = history.log[3].id;
            Some(())
        });
        must_find(&[Rule::RecordedAt], |history| {
            history.log[12].recorded_at -= 1;
            Some(())
        });
    }

    #[test]
    fn what_nobody_submitted_is_found() {
        must_find(&[Rule::Submitted], |history| {
            history.log[8].content ^= 2;
            Some(())
        });
        must_find(&[Rule::Submitted], |history| {
            history.log[8].id = 1;
            Some(())
        });
    }

    #[test]
    fn half_an_append_is_found() {
        must_find(&[Rule::Whole], |history| {
            let index = stored_call(history, |call| call.events.len() == 3)?;
            let last = history.appends[index].events[2].id;
            cut(history, |stored| stored.id == last);
            Some(())
        });
        must_find(&[Rule::Whole], |history| {
            only_appends(history);
            let index = stored_call(history, |call| call.events.len() > 1)?;
            let first = usize::try_from(positions(&history.appends[index])[0].0).ok()? - 1;
            history.log.swap(first, first + 1);
            cut(history, |_| false);
            Some(())
        });
    }

    #[test]
    fn what_failed_and_is_stored_is_found() {
        must_find(&[Rule::Failed], |history| {
            let index = stored_call(history, |_| true)?;
            let events = history.appends[index].events.clone();
            for call in history.appends.iter_mut().filter(|call| call.events == events) {
                call.outcome = Outcome::Failed("no space".to_owned());
            }
            Some(())
        });
    }

    #[test]
    fn what_was_acknowledged_and_is_gone_is_found() {
        must_find(&[Rule::Acknowledged], |history| {
            only_appends(history);
            let index = stored_call(history, |call| call.expectations.iter().all(is_free))?;
            // The last ones, as a power cut takes them.
            let from = positions(&history.appends[index])[0];
            cut(history, |stored| stored.position >= from);
            history.appends.truncate(index + 1);
            Some(())
        });
        must_find(&[Rule::Acknowledged], |history| {
            let index = stored_call(history, |_| true)?;
            let Outcome::Stored { versions, .. } = &mut history.appends[index].outcome else {
                return None;
            };
            versions[0].1 = versions[0].1.next();
            Some(())
        });
        must_find(&[Rule::Acknowledged], |history| {
            // A repetition is answered with other places than the original ones.
            let call = history
                .appends
                .iter_mut()
                .find(|call| matches!(call.outcome, Outcome::Stored { duplicate: true, .. }))?;
            let Outcome::Stored { positions, .. } = &mut call.outcome else { return None };
            for position in positions {
                *position = position.next();
            }
            Some(())
        });
    }

    fn is_conflict(call: &AppendCall) -> bool {
        matches!(call.outcome, Outcome::Conflict(_) | Outcome::IdConflict { .. })
    }

    fn is_free(expectation: &super::super::calls::Expectation) -> bool {
        expectation.expected == ExpectedVersion::Any
    }

    #[test]
    fn a_repetition_that_is_told_to_be_the_first_is_found() {
        must_find(&[Rule::FirstOnce], |history| {
            let is_repetition = |call: &&mut AppendCall| {
                matches!(call.outcome, Outcome::Stored { duplicate: true, .. })
            };
            let firsts = history.appends.clone();
            let call = history.appends.iter_mut().filter(is_repetition).find(|call| {
                firsts.iter().any(|first| {
                    first.events == call.events
                        && matches!(first.outcome, Outcome::Stored { duplicate: false, .. })
                })
            })?;
            let Outcome::Stored { duplicate, .. } = &mut call.outcome else { return None };
            *duplicate = false;
            Some(())
        });
    }

    #[test]
    fn what_is_stored_against_its_expectations_is_found() {
        must_find(&[Rule::Expectations], |history| {
            let index = stored_call(history, |call| positions(call)[0].0 > 20)?;
            let events = history.appends[index].events.clone();
            for call in history.appends.iter_mut().filter(|call| call.events == events) {
                call.expectations[0].expected = ExpectedVersion::Exact(Version(500));
            }
            Some(())
        });
    }

    #[test]
    fn a_conflict_without_a_reason_is_found() {
        let conflict = |history: &mut History, actual: fn(Version) -> Version| {
            let is_conflict = |call: &&mut AppendCall| matches!(call.outcome, Outcome::Conflict(_));
            let call = history.appends.iter_mut().filter(is_conflict).nth(4)?;
            let Outcome::Conflict(conflicts) = &mut call.outcome else { return None };
            conflicts[0].1 = actual(conflicts[0].1);
            Some(())
        };
        // A version that it never had.
        must_find(&[Rule::Conflict], |history| conflict(history, |actual| Version(actual.0 + 500)));
        must_find(&[Rule::Conflict], |history| {
            let is_conflict = |call: &&mut AppendCall| matches!(call.outcome, Outcome::Conflict(_));
            let call = history.appends.iter_mut().filter(is_conflict).nth(4)?;
            call.expectations.iter_mut().for_each(|it| it.expected = ExpectedVersion::Any);
            Some(())
        });
        // One that it had, but long before.
        must_find(&[Rule::RealTime, Rule::Conflict], |history| {
            only_appends(history);
            let conflicts = |call: &AppendCall| match &call.outcome {
                Outcome::Conflict(conflicts) => conflicts.clone(),
                _ => Vec::new(),
            };
            let is_late = |call: &&mut AppendCall| {
                let conflicts = conflicts(call);
                conflicts.len() == 1 && conflicts[0].1.0 > 6
            };
            let call = history.appends.iter_mut().rfind(is_late)?;
            let aggregate = conflicts(call)[0].0;
            call.expectations.retain(|it| it.aggregate == aggregate);
            call.expectations[0].expected = ExpectedVersion::Exact(Version(500));
            let Outcome::Conflict(conflicts) = &mut call.outcome else { return None };
            conflicts[0].1 = Version(1);
            Some(())
        });
    }

    #[test]
    fn an_id_conflict_without_a_reason_is_found() {
        must_find(&[Rule::IdConflict], |history| {
            let call = history
                .appends
                .iter_mut()
                .find(|call| matches!(call.outcome, Outcome::IdConflict { .. }))?;
            let Outcome::IdConflict { position, .. } = &mut call.outcome else { return None };
            *position = position.next();
            Some(())
        });
        must_find(&[Rule::IdConflict], |history| {
            let call = history
                .appends
                .iter_mut()
                .find(|call| matches!(call.outcome, Outcome::IdConflict { partly: true, .. }))?;
            let log = &history.log;
            let content = |id| log.iter().find(|it| it.id == id).map(|it| it.content);
            let is_same =
                |event: &Submitted| content(event.id).is_none_or(|it| it == event.content);
            if !call.events.iter().all(is_same) {
                return None;
            }
            let Outcome::IdConflict { partly, .. } = &mut call.outcome else { return None };
            *partly = false;
            Some(())
        });
    }

    #[test]
    fn a_read_with_a_gap_is_found() {
        must_find(&[Rule::Read], |history| {
            long_read(history)?.seen.remove(2);
            Some(())
        });
        must_find(&[Rule::Read], |history| {
            let read = long_read(history)?;
            read.seen.swap(1, 2);
            Some(())
        });
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_is_found() {
        must_find(&[Rule::RealTime], |history| {
            let is_last = |read: &&mut ReadCall| {
                read.of.is_none() && !read.backward && read.from.is_none() && read.limit.is_none()
            };
            let read = history.reads.iter_mut().rfind(is_last)?;
            let appends = &history.appends;
            let start = appends.iter().flat_map(positions).map(|it| it.0).max()?;
            let keep = read.seen.len().checked_sub(30)?;
            // Back to the end of an append: the half of one would be another fault.
            let ends = appends.iter().filter_map(|call| positions(call).last());
            let end = ends.map(|it| it.0).filter(|end| *end <= keep as u64).max()?;
            assert!(end < start);
            read.seen.truncate(usize::try_from(end).ok()?);
            Some(())
        });
    }

    #[test]
    fn a_read_that_shows_half_an_append_is_found() {
        must_find(&[Rule::Read], |history| {
            let calls: Vec<_> =
                history.appends.iter().filter(|call| positions(call).len() == 3).cloned().collect();
            let half = |read: &ReadCall| {
                let end = read.seen.last()?.position;
                calls.iter().any(|call| positions(call)[2] == end).then_some(())
            };
            let whole = |read: &&mut ReadCall| {
                let is_all = read.of.is_none() && !read.backward && read.limit.is_none();
                is_all && read.seen.len() > 1 && half(read).is_some()
            };
            let read = history.reads.iter_mut().find(whole)?;
            read.seen.pop();
            Some(())
        });
    }

    #[test]
    fn a_wrong_version_is_found() {
        must_find(&[Rule::Version], |history| {
            history.versions.iter_mut().last().map(|call| call.version = Version(500))
        });
        must_find(&[Rule::RealTime, Rule::Version], |history| {
            let call = history.versions.iter_mut().filter(|call| call.version.0 > 8).last()?;
            call.version = Version(1);
            Some(())
        });
    }

    #[test]
    fn what_is_withdrawn_or_altered_is_found() {
        must_find(&[Rule::Shown], |history| {
            long_read(history)?.seen[1].print ^= 1;
            Some(())
        });
        must_find(&[Rule::Shown], |history| {
            let end = history.log.len() as u64;
            let following = long_following(history)?;
            let last = following.heard.last_mut()?;
            last.item = Item::Mark(Position(end + 1));
            Some(())
        });
        must_find(&[Rule::Shown], |history| {
            // An append whose outcome nobody knows was shown, and is gone after all.
            history.appends.retain(|call| !is_conflict(call));
            let last = history.log.last()?.id;
            let made = |call: &&AppendCall| call.events.iter().any(|event| event.id == last);
            let events = history.appends.iter().find(made)?.events.clone();
            let is_of = |call: &AppendCall| {
                call.events.iter().any(|event| events.iter().any(|it| it.id == event.id))
            };
            for call in history.appends.iter_mut().filter(|call| is_of(call)) {
                call.outcome = Outcome::Unknown;
            }
            history
                .reads
                .iter()
                .flat_map(|it| &it.seen)
                .find(|seen| history.log[history.log.len() - 1].position == seen.position)?;
            history.log.truncate(history.log.len() - events.len());
            history.followings.clear();
            Some(())
        });
    }

    #[test]
    fn a_subscriber_that_misses_or_repeats_is_found() {
        must_find(&[Rule::NoGap], |history| {
            long_following(history)?.heard.remove(1);
            Some(())
        });
        must_find(&[Rule::NoRepeat], |history| {
            let following = long_following(history)?;
            following.heard.insert(2, following.heard[1]);
            Some(())
        });
        must_find(&[Rule::NoRepeat], |history| {
            let following = long_following(history)?;
            let Item::Event(first) = following.heard[0].item else { return None };
            following.after = Some(first.position);
            Some(())
        });
        must_find(&[Rule::NoGap], |history| {
            let following = long_following(history)?;
            let Item::Event(first) = following.heard[0].item else { return None };
            following.after = Some(first.position.previous());
            following.heard.drain(..2);
            Some(())
        });
        must_find(&[Rule::Delivered], |history| {
            let following = long_following(history)?;
            following.heard.truncate(2);
            Some(())
        });
    }

    #[test]
    fn a_subscriber_that_hears_something_before_it_was_appended_is_found() {
        must_find(&[Rule::RealTime], |history| {
            let following = long_following(history)?;
            let at = Stamp(1);
            following.heard.iter_mut().for_each(|heard: &mut Heard| heard.at = at);
            Some(())
        });
    }

    #[test]
    fn an_order_against_real_time_is_found() {
        // The first is answered before the second begins, and stands behind it.
        must_find(&[Rule::RealTime], |history| {
            only_appends(history);
            history
                .appends
                .retain(|call| call.expectations.iter().all(is_free) && !is_conflict(call));
            let kept: std::collections::HashSet<u128> =
                history.appends.iter().flat_map(|call| &call.events).map(|it| it.id).collect();
            cut(history, |stored| !kept.contains(&stored.id));
            answer_again(history);
            let index = stored_call(history, |call| positions(call)[0].0 > 6)?;
            let call = &mut history.appends[index];
            (call.invoked, call.responded) = (Stamp(1), Stamp(2));
            Some(())
        });
    }

    /// Answers all appends by the log as it is now.
    fn answer_again(history: &mut History) {
        let log = history.log.clone();
        for call in &mut history.appends {
            let Outcome::Stored { positions, versions, .. } = &mut call.outcome else { continue };
            let find = |id: u128| log.iter().find(|stored| stored.id == id);
            let stored: Vec<_> = call.events.iter().filter_map(|it| find(it.id)).collect();
            *positions = stored.iter().map(|it| it.position).collect();
            for (aggregate, version) in versions {
                let own = stored.iter().filter(|it| it.aggregate == *aggregate);
                *version = own.map(|it| it.version).max().unwrap_or_default();
            }
        }
    }

    #[test]
    fn appends_of_one_client_out_of_turn_are_found_unless_they_may() {
        let swap = |history: &mut History| {
            let firsts: Vec<usize> = (0..history.appends.len())
                .filter(|index| {
                    let call = &history.appends[*index];
                    matches!(call.outcome, Outcome::Stored { duplicate: false, .. })
                        && call.id.client == 0
                })
                .collect();
            let keeps = |call: &AppendCall| call.expectations.iter().all(is_free);
            let other = (1..firsts.len()).find(|at| keeps(&history.appends[firsts[*at]]))?;
            let (one, other) = (firsts[other - 1], firsts[other]);
            let ids = (history.appends[one].id, history.appends[other].id);
            (history.appends[other].id, history.appends[one].id) = ids;
            Some(())
        };
        must_find(&[Rule::InTurn], swap);
        let mut history = example(1);
        swap(&mut history).unwrap();
        history.out_of_turn = true;
        check(&history).unwrap();
    }
}
