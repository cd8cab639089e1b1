//! How long the log can have been at which moment, by all that was said of it.

use super::calls::CallId;
use super::stamp::Stamp;
use super::violation::{Rule, Violation};

/// The length that a log must have had, in events, at one moment of an operation at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Lengths {
    pub(super) const ANY: Self = Self { least: 0, most: u64::MAX };

    pub(super) fn at_least(least: u64) -> Self {
        Self { least, ..Self::ANY }
    }

    /// Lengths that are in both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { least: self.least.max(other.least), most: self.most.min(other.most) }
    }
}

/// When an operation was under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct During {
    pub(super) id: CallId,
    pub(super) invoked: Stamp,
    pub(super) responded: Stamp,
}

/// For each position, between which moments it became a part of the log.
///
/// Every operation only says: the log was so long or longer when I was answered, and not longer
/// than that when I began. All agree with one order in real time exactly if no position must have
/// been there before one that is not behind it can have been.
pub(super) struct Timeline {
    not_before: Vec<(Stamp, Option<CallId>)>,
    not_after: Vec<(Stamp, Option<CallId>)>,
    /// Lengths at which an append ends, and the log can have ended.
    ends: Vec<u64>,
}

impl Timeline {
    /// For a log whose appends end at these lengths, ascending, the last at its end.
    pub(super) fn new(ends: Vec<u64>) -> Self {
        let length = usize::try_from(ends.last().copied().unwrap_or(0)).unwrap_or(0);
        let not_before = vec![(Stamp::FIRST, None); length];
        let not_after = vec![(Stamp::NEVER, None); length];
        Self { not_before, not_after, ends }
    }

    /// Takes note of what an operation says; false if no end of an append is among these lengths.
    #[must_use]
    pub(super) fn note(&mut self, during: During, lengths: Lengths) -> bool {
        let length = self.not_before.len() as u64;
        let least = self.end_at_or_after(lengths.least);
        let most = if lengths.most >= length { length } else { self.end_until(lengths.most) };
        let Some(least) = least.filter(|least| *least <= most) else { return false };
        if let Some(last) = index(least).checked_sub(1) {
            let not_after = &mut self.not_after[last];
            if during.responded < not_after.0 {
                *not_after = (during.responded, Some(during.id));
            }
        }
        if let Some(not_before) = self.not_before.get_mut(index(most))
            && during.invoked > not_before.0
        {
            *not_before = (during.invoked, Some(during.id));
        }
        true
    }

    fn end_at_or_after(&self, length: u64) -> Option<u64> {
        if length == 0 {
            return Some(0);
        }
        self.ends.get(self.ends.partition_point(|end| *end < length)).copied()
    }

    fn end_until(&self, length: u64) -> u64 {
        let count = self.ends.partition_point(|end| *end <= length);
        count.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// Looks for an order in real time that all agree with.
    pub(super) fn check(&self) -> Result<(), Violation> {
        let mut not_after = self.not_after.clone();
        for index in (1..not_after.len()).rev() {
            not_after[index - 1] = not_after[index - 1].min(not_after[index]);
        }
        let mut not_before = (Stamp::FIRST, None);
        for ((since, until), position) in self.not_before.iter().zip(&not_after).zip(1_u64..) {
            not_before = not_before.max(*since);
            if not_before.0 > until.0 {
                return Violation::of(Rule::RealTime, contradiction(position, not_before, *until));
            }
        }
        Ok(())
    }
}

fn contradiction(
    position: u64,
    since: (Stamp, Option<CallId>),
    until: (Stamp, Option<CallId>),
) -> String {
    let name = |id: Option<CallId>| id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
    format!(
        "position {position} was not there yet at {}, by {}, but was there at {}, by {}",
        since.0,
        name(since.1),
        until.0,
        name(until.1)
    )
}

fn index(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
