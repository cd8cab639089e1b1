//! Where a record stands in the log's one total order.

use serde::{Deserialize, Serialize};

/// Place of a record in the log: gapless, the first record has 1.
///
/// 0 is [`Position::START`], before everything; it is a valid `after` and never a record's.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first record.
    pub const START: Self = Self(0);
    /// The first record's position.
    pub const FIRST: Self = Self(1);
    /// After every record there will ever be.
    pub const MAX: Self = Self(u64::MAX);

    /// The position right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position right before this one; [`Position::START`] stays.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
