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

    /// Puts these in the place of the parts that cover the same segments.
    pub fn replace(&self, by: Vec<Arc<Run>>) {
        let (Some(first), Some(last)) = (by.first(), by.last()) else { return };
        let covered = first.span().first_segment..=last.span().last_segment;
        self.change(|set| {
            set.parts.retain(|part| !covered.contains(&part.span().first_segment));
            for run in by {
                set.push(Part::Run(run));
            }
            set.parts.sort_by_key(|part| part.span().first_segment);
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

    /// Bits for each key of a filter to come, in the place of those of `replaced`, so that all
    /// filters stay within `filter_bytes`; 0 for none.
    #[must_use]
    pub fn filter_bits(&self, keys: u64, replaced: &[Arc<Run>], filter_bytes: u64) -> u64 {
        let stays = |run: &&Arc<Run>| !replaced.iter().any(|gone| Arc::ptr_eq(run, gone));
        let taken: u64 = self.runs().filter(stays).map(|run| run.memory().1).sum();
        let bits = filter_bytes.saturating_sub(taken).saturating_mul(8) / keys.max(1);
        if bits < FILTER_BITS_MIN { 0 } else { bits.min(FILTER_BITS) }
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
