//! Deliberate defects, for the simulator to find. Without the feature `seeded-bugs`, which the
//! shipped binary lacks, `seeded` is the constant `false` and none of them is compiled in.

/// A rule of the log that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A durable group is answered although one before it is not durable.
    AcknowledgesOutOfOrder,
    /// A group is answered one step before readers find it.
    IndexesAfterTheAnswer,
    /// Groups in flight are shown to readers.
    ServesBeforeDurable,
    /// A conflict or duplicate that rests on a group in flight is answered at once.
    AnswersConflictsEarly,
    /// The watermark stands one position too far.
    WatermarkAheadByOne,
    /// After a failed write the next ones are made.
    GoesOnAfterAFailure,
    /// SEAL and the next header are written while groups are in flight.
    NoRollBarrier,
    /// The file of the next segment is prepared again while it is being activated.
    PreparesASpareTwice,
    /// A roll forgets the ids of the segment it leaves.
    ForgetsIdsAtRoll,
    /// A roll forgets the versions of the segment it leaves.
    ForgetsVersionsAtRoll,
    /// Versions in flight are not seen by the check.
    ChecksDurableVersionsOnly,
    /// Ids in flight are not recognised.
    KnowsDurableIdsOnly,
    /// Versions are checked before ids: a repetition is a conflict.
    ChecksVersionsBeforeIds,
    /// A known id is a duplicate whatever it carries.
    ComparesNoContent,
    /// `recorded_at` follows the clock back.
    RecordedAtGoesBack,
    /// A group claims that everything submitted before it is durable.
    ClaimsTooMuchDurable,
    /// The index of the live segment loses a record now and then.
    LosesAnIndexEntry,
    /// Opening writes no START.
    NoStartBarrier,
    /// Opening ignores what groups say was durable.
    IgnoresDurableBound,
    /// Opening cuts the block before the torn tail, too.
    CutsTooMuch,
    /// Opening forgets the ids in index files.
    ForgetsIndexedIds,
    /// A sealed segment is not known until a run holds it.
    LooksInRunsOnly,
    /// Runs are replaced by one that holds half of what they hold.
    SwapsInHalfARun,
    /// Of several versions of an aggregate a merge keeps the oldest.
    MergeKeepsTheOldest,
    /// Of an aggregate that several runs hold a merge forgets where all but the newest do.
    MergeLosesASegment,
    /// A run's filter lacks a key now and then.
    FilterLosesAKey,
    /// A run that cannot be read knows nothing.
    UnreadableRunKnowsNothing,
    /// Opening takes what follows the runs one segment too late.
    ReplaysTooLate,
    /// Opening takes a run whose segments end otherwise.
    TakesAForeignRun,
    /// An index file is used whatever its sum.
    TakesAnUncheckedIndex,
    /// A record that is read alone is taken whatever its header.
    TakesAnyHeader,
}

#[cfg(feature = "seeded-bugs")]
thread_local! {
    static SEEDED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Breaks a rule in every log that this thread drives, or none.
#[cfg(feature = "seeded-bugs")]
pub fn seed(bug: Option<Bug>) {
    SEEDED.set(bug);
}

/// Whether this rule is broken.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn seeded(bug: Bug) -> bool {
    SEEDED.get() == Some(bug)
}

/// Whether this rule is broken: never.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn seeded(_: Bug) -> bool {
    false
}
