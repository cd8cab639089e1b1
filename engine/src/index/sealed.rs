//! What is known of sealed segments: in sorted runs, and, until a run holds them, in memory. The
//! sequencer reads it as it is at one moment; the indexer replaces it.

use std::sync::Arc;

use parking_lot::RwLock;

use super::generation::Generation;
use super::run::Run;
use crate::format::run_file::{Key, Span};

/// Bits of a filter for each key, where memory allows: of a thousand new keys about one is let
/// through.
const FILTER_BITS: u64 = 16;
/// With fewer a filter is not worth its memory.
const FILTER_BITS_MIN: u64 = 4;

/// Bits of a run's filters for each key; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterBits {
    /// Of the filter of ids.
    pub ids: u64,
    /// Of the filter of aggregates.
    pub aggregates: u64,
}

impl FilterBits {
    /// For so many ids, none if they need no filter, and aggregates, of so many bytes that are
    /// left. Where they do not reach for both, aggregates have them: a new id is most often above
    /// the greatest, and not looked up.
    #[must_use]
    pub fn within(left: u64, (ids, aggregates): (u64, u64)) -> Self {
        match bits_within(left, ids + aggregates) {
            0 => Self { ids: 0, aggregates: bits_within(left, aggregates) },
            bits => Self { ids: if ids > 0 { bits } else { 0 }, aggregates: bits },
        }
    }
}

/// Bits a key in a half of what is left: the runs to come must find room, too, for where there is
/// no filter nearly every key that is new costs an access.
fn bits_within(left: u64, keys: u64) -> u64 {
    let bits = (left / 2).saturating_mul(8) / keys.max(1);
    if bits < FILTER_BITS_MIN { 0 } else { bits.min(FILTER_BITS) }
}

/// Everything known of sealed segments at one moment.
///
/// Invariants:
/// 1. Its parts, oldest first, cover every sealed segment once; so the newest part that knows an
///    aggregate knows its newest version.
/// 2. No id in them is greater than `greatest_id`.
#[derive(Clone, Default)]
pub struct SealedSet {
    parts: Vec<Part>,
    greatest_id: Key,
}

/// What is known of some sealed segments.
#[derive(Clone)]
pub enum Part {
    /// In a run.
    Run(Arc<Run>),
    /// In no run yet.
    Waiting(Arc<Waiting>),
}

/// A sealed segment that is in no run yet.
pub struct Waiting {
    /// What a run of it will cover.
    pub span: Span,
    /// What it holds.
    pub generation: Generation,
}

impl Part {
    /// What it covers.
    #[must_use]
    pub fn span(&self) -> &Span {
        match self {
            Self::Run(run) => run.span(),
            Self::Waiting(waiting) => &waiting.span,
        }
    }

    fn greatest_id(&self) -> Key {
        match self {
            Self::Run(run) => run.header().ids.last_key,
            Self::Waiting(waiting) => waiting.generation.greatest_id(),
        }
    }
}

/// The set as it is now.
#[derive(Default)]
pub struct Sealed {
    set: RwLock<Arc<SealedSet>>,
}

impl Sealed {
    /// With this set.
    #[must_use]
    pub fn new(set: SealedSet) -> Self {
        Self { set: RwLock::new(Arc::new(set)) }
    }

    /// The set as it is now.
    pub fn snapshot(&self) -> Arc<SealedSet> {
        Arc::clone(&self.set.read())
    }

    /// A segment has been sealed.
    pub fn push(&self, waiting: Waiting) {
        self.change(|set| set.push(Part::Waiting(Arc::new(waiting))));
    }

    /// Puts these in the place of the parts that cover the same segments, and no others.
    pub fn replace(&self, by: Vec<Arc<Run>>) {
        let (Some(first), Some(last)) = (by.first(), by.last()) else { return };
        let covered = first.span().first_segment..=last.span().last_segment;
        self.change(|set| {
            let before = set.segments();
            set.parts.retain(|part| !covered.contains(&part.span().first_segment));
            for run in by {
                set.push(Part::Run(run));
            }
            set.parts.sort_by_key(|part| part.span().first_segment);
            debug_assert_eq!(set.segments(), before, "each stays covered, once");
        });
    }

    fn change(&self, change: impl FnOnce(&mut SealedSet)) {
        let mut set = self.set.write();
        let mut changed = SealedSet::clone(&set);
        change(&mut changed);
        *set = Arc::new(changed);
    }
}

impl SealedSet {
    /// Adds the newest part.
    pub fn push(&mut self, part: Part) {
        self.greatest_id = self.greatest_id.max(part.greatest_id());
        self.parts.push(part);
    }

    /// No id in it is greater.
    #[must_use]
    pub fn greatest_id(&self) -> Key {
        self.greatest_id
    }

    /// Its parts, oldest first.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn segments(&self) -> u64 {
        self.parts.iter().map(|part| part.span().segments()).sum()
    }

    /// The part that covers a segment, if it is sealed.
    #[must_use]
    pub fn part_of(&self, segment: u64) -> Option<&Part> {
        let after = self.parts.partition_point(|part| part.span().first_segment <= segment);
        self.parts[..after].last().filter(|part| part.span().covers(segment))
    }

    /// The runs, oldest first.
    pub fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.parts.iter().filter_map(|part| match part {
            Part::Run(run) => Some(run),
            Part::Waiting(_) => None,
        })
    }

    /// What is in no run yet, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Waiting>> {
        self.parts.iter().filter_map(|part| match part {
            Part::Waiting(waiting) => Some(waiting),
            Part::Run(_) => None,
        })
    }

    /// Bytes of the filters of all runs but those replaced.
    #[must_use]
    pub fn filter_bytes(&self, replaced: &[Arc<Run>]) -> u64 {
        let stays = |run: &&Arc<Run>| !replaced.iter().any(|gone| Arc::ptr_eq(run, gone));
        self.runs().filter(stays).map(|run| run.memory().1).sum()
    }

    /// Its bytes in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let bytes = |part: &Part| match part {
            Part::Run(run) => run.memory().0 + run.memory().1,
            Part::Waiting(it) => it.generation.bytes(),
        };
        self.parts.iter().map(bytes).sum()
    }

    /// Aggregates and ids in it.
    #[must_use]
    pub fn known(&self) -> (u64, u64) {
        let known = |part: &Part| match part {
            Part::Run(run) => (run.header().born, run.header().ids.entries),
            Part::Waiting(it) => (it.generation.born(), it.generation.ids().len() as u64),
        };
        self.parts.iter().map(known).fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tiers::to_merge;

    /// The bits of all runs, after each segment of so many keys, all of them new.
    fn grow(segments: u64, keys: u64, filter_bytes: u64, mut look: impl FnMut(&[(u64, u64)])) {
        let bytes = |run: &(u64, u64)| run.0 * keys * run.1 / 8;
        let left = |runs: &[(u64, u64)]| filter_bytes - runs.iter().map(bytes).sum::<u64>();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for _ in 0..segments {
            runs.push((1, bits_within(left(&runs), keys)));
            loop {
                let sizes: Vec<u64> = runs.iter().map(|run| run.0).collect();
                let Some(range) = to_merge(&sizes, 4) else { break };
                let merged = sizes[range.clone()].iter().sum();
                runs.drain(range.clone());
                let bits = bits_within(left(&runs), merged * keys);
                runs.insert(range.start, (merged, bits));
            }
            look(&runs);
        }
    }

    #[test]
    fn filters_stay_within_their_memory_and_no_run_is_left_without_one() {
        let (memory, keys) = (416 << 20, 840_000);
        let least = |runs: &[(u64, u64)]| runs.iter().map(|run| run.1).min().unwrap_or(0);
        let segments = |runs: &[(u64, u64)]| runs.iter().map(|run| run.0).sum::<u64>();
        grow(340, keys, memory, |runs| {
            let wanted = if segments(runs) < 256 { FILTER_BITS } else { FILTER_BITS / 2 };
            assert!(least(runs) >= wanted, "{runs:?}");
        });
        grow(160, 2 * keys, memory, |runs| assert!(least(runs) >= FILTER_BITS_MIN, "{runs:?}"));
    }
}
