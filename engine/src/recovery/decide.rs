//! What the end of the active segment means: segments-format.md §11 as a pure function.

use crate::bug::{Bug, seeded};
use crate::format::IN_FLIGHT_BYTES_MAX;

/// What was found at and behind the last valid group of the active segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailFacts {
    /// E: end of the last group that is valid and continues the segment.
    pub end: u64,
    /// B: greatest `durable_upto` of any valid group of the segment.
    pub durable_upto: u64,
    /// Offset of the last block behind E that is not zero.
    pub last_nonzero: Option<u64>,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailCase {
    /// Nothing is there: go on at E.
    CleanEnd,
    /// Writes in flight at a crash, none acknowledged: keep a copy, zero, go on at E.
    Torn,
    /// Bytes that were durable are damaged: read-only, cut nothing.
    AcknowledgedDamaged,
    /// Something stands where it cannot have been in flight with what is missing before it.
    TooFar,
}

impl TailCase {
    /// What is missing at E was durable once, and so is everything before it.
    #[must_use]
    pub fn is_damage(self) -> bool {
        matches!(self, Self::AcknowledgedDamaged | Self::TooFar)
    }
}

/// The row of the table that the facts hit; every combination hits exactly one.
#[must_use]
pub fn decide(facts: &TailFacts) -> TailCase {
    if facts.durable_upto > facts.end && !seeded(Bug::IgnoresDurableBound) {
        return TailCase::AcknowledgedDamaged;
    }
    match facts.last_nonzero {
        // Further ahead a crash has met nothing but zeros being written.
        Some(last) if last >= facts.end + IN_FLIGHT_BYTES_MAX => TailCase::TooFar,
        Some(_) => TailCase::Torn,
        None => TailCase::CleanEnd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        let end = 8_192;
        let far = end + IN_FLIGHT_BYTES_MAX;
        for durable_upto in [4_096, end, end + 4_096] {
            for last_nonzero in [None, Some(end), Some(far - 4_096), Some(far)] {
                let facts = TailFacts { end, durable_upto, last_nonzero };
                let expected = if durable_upto > end {
                    TailCase::AcknowledgedDamaged
                } else if last_nonzero == Some(far) {
                    TailCase::TooFar
                } else if last_nonzero.is_some() {
                    TailCase::Torn
                } else {
                    TailCase::CleanEnd
                };
                assert_eq!(decide(&facts), expected, "{facts:?}");
            }
        }
    }
}
