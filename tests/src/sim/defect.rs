//! Every rule that the simulation can break on purpose, and must then notice.

use quipu_engine::bug::Bug;

use super::disk;

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// In the engine.
    Engine(Bug),
    /// In the disk.
    Disk(disk::Defect),
    /// Every segment has the same id: nothing tells groups of one from those of another.
    NoSalt,
    /// No WITNESS is written: damage to the last group looks like a torn tail.
    NoWitness,
}

impl Defect {
    /// All of them, with their names.
    pub const ALL: [(&str, Self); 39] = [
        ("acknowledges-before-flush", Self::Disk(disk::Defect::AcknowledgesBeforeFlush)),
        ("lies-about-flush", Self::Disk(disk::Defect::LiesAboutFlush)),
        ("retries-failed-flush", Self::Disk(disk::Defect::RetriesFailedFlush)),
        ("takes-short-write-as-whole", Self::Disk(disk::Defect::TakesShortWriteAsWhole)),
        ("skips-directory-sync", Self::Disk(disk::Defect::SkipsDirectorySync)),
        ("skips-file-sync", Self::Disk(disk::Defect::SkipsFileSync)),
        ("no-salt", Self::NoSalt),
        ("no-witness", Self::NoWitness),
        ("acknowledges-out-of-order", Self::Engine(Bug::AcknowledgesOutOfOrder)),
        ("indexes-after-the-answer", Self::Engine(Bug::IndexesAfterTheAnswer)),
        ("serves-before-durable", Self::Engine(Bug::ServesBeforeDurable)),
        ("answers-conflicts-early", Self::Engine(Bug::AnswersConflictsEarly)),
        ("watermark-ahead-by-one", Self::Engine(Bug::WatermarkAheadByOne)),
        ("goes-on-after-a-failure", Self::Engine(Bug::GoesOnAfterAFailure)),
        ("no-roll-barrier", Self::Engine(Bug::NoRollBarrier)),
        ("prepares-a-spare-twice", Self::Engine(Bug::PreparesASpareTwice)),
        ("forgets-ids-at-roll", Self::Engine(Bug::ForgetsIdsAtRoll)),
        ("forgets-versions-at-roll", Self::Engine(Bug::ForgetsVersionsAtRoll)),
        ("checks-durable-versions-only", Self::Engine(Bug::ChecksDurableVersionsOnly)),
        ("knows-durable-ids-only", Self::Engine(Bug::KnowsDurableIdsOnly)),
        ("checks-versions-before-ids", Self::Engine(Bug::ChecksVersionsBeforeIds)),
        ("compares-no-content", Self::Engine(Bug::ComparesNoContent)),
        ("recorded-at-goes-back", Self::Engine(Bug::RecordedAtGoesBack)),
        ("claims-too-much-durable", Self::Engine(Bug::ClaimsTooMuchDurable)),
        ("loses-an-index-entry", Self::Engine(Bug::LosesAnIndexEntry)),
        ("no-start-barrier", Self::Engine(Bug::NoStartBarrier)),
        ("ignores-durable-bound", Self::Engine(Bug::IgnoresDurableBound)),
        ("cuts-too-much", Self::Engine(Bug::CutsTooMuch)),
        ("forgets-indexed-ids", Self::Engine(Bug::ForgetsIndexedIds)),
        ("looks-in-runs-only", Self::Engine(Bug::LooksInRunsOnly)),
        ("swaps-in-half-a-run", Self::Engine(Bug::SwapsInHalfARun)),
        ("merge-keeps-the-oldest", Self::Engine(Bug::MergeKeepsTheOldest)),
        ("merge-loses-a-segment", Self::Engine(Bug::MergeLosesASegment)),
        ("filter-loses-a-key", Self::Engine(Bug::FilterLosesAKey)),
        ("unreadable-run-knows-nothing", Self::Engine(Bug::UnreadableRunKnowsNothing)),
        ("replays-too-late", Self::Engine(Bug::ReplaysTooLate)),
        ("takes-a-foreign-run", Self::Engine(Bug::TakesAForeignRun)),
        ("takes-an-unchecked-index", Self::Engine(Bug::TakesAnUncheckedIndex)),
        ("takes-any-header", Self::Engine(Bug::TakesAnyHeader)),
    ];

    /// The defect of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(it, _)| *it == name).map(|(_, defect)| *defect)
    }

    pub(super) fn of_engine(self) -> Option<Bug> {
        match self {
            Self::Engine(bug) => Some(bug),
            _ => None,
        }
    }

    pub(super) fn of_disk(self) -> Option<disk::Defect> {
        match self {
            Self::Disk(defect) => Some(defect),
            _ => None,
        }
    }
}
