//! A promise that was not kept.

use std::fmt;

/// What the log promises its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Positions have no gaps.
    Positions,
    /// Versions of an aggregate have no gaps.
    Versions,
    /// An id is stored once.
    UniqueIds,
    /// `recorded_at` never goes back.
    RecordedAt,
    /// What is stored was submitted, with that content.
    Submitted,
    /// An append is stored whole, in its order, without anything between.
    Whole,
    /// What was told to have failed is not stored.
    Failed,
    /// What was acknowledged is stored where it was said to be, at the versions that were said.
    Acknowledged,
    /// Of several appends with the same ids one at most was the first.
    FirstOnce,
    /// What is stored met its expectations.
    Expectations,
    /// A conflict names what was expected and not met at one moment of the append.
    Conflict,
    /// An id conflict names an event that stood there at one moment of the append.
    IdConflict,
    /// A read shows the log as it was at one moment of the read, without gaps.
    Read,
    /// A version that was told was the aggregate's at one moment of the question.
    Version,
    /// Nothing that was shown is withdrawn or altered.
    Shown,
    /// A subscriber hears everything behind its `after`, without gaps.
    NoGap,
    /// A subscriber hears nothing twice.
    NoRepeat,
    /// A subscriber hears in the end all that was due.
    Delivered,
    /// What was answered before something else began stands before it.
    RealTime,
    /// Appends of one client are stored in the order in which it made them, but for those that its
    /// connection had to try again.
    InTurn,
}

/// A rule, and how it was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub problem: String,
}

impl Violation {
    pub(super) fn of<T>(rule: Rule, problem: impl Into<String>) -> Result<T, Self> {
        Err(Self { rule, problem: problem.into() })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.problem)
    }
}

impl std::error::Error for Violation {}
