//! Tells damage at the end of a log from what a crash leaves there.

use quipu_types::{Corruption, Position};

use super::chain::LastFile;
use super::decide::{TailCase, decide};
use super::tail::ScannedTail;
use crate::segment::scanner::ScanEnd;

/// Damage in segment `number`, which is active or was to be.
#[must_use]
pub fn damage_in(number: u64, tail: &ScannedTail) -> Option<Corruption> {
    let facts = &tail.facts;
    let problem = match decide(facts) {
        TailCase::AcknowledgedDamaged => format!(
            "at offset {}: {}; what was written there was durable up to offset {}",
            facts.end, tail.end, facts.durable_upto
        ),
        TailCase::TooFar => format!(
            "at offset {}: {}; what stands at offset {} is too far behind to have been in flight \
             with it",
            facts.end,
            tail.end,
            facts.last_nonzero.unwrap_or(facts.end)
        ),
        TailCase::Torn | TailCase::CleanEnd => return None,
    };
    let (first, last) = (tail.next_position, Position::MAX);
    Some(Corruption { segment: number, first, last, problem })
}

/// What stands where segment `last` + 1 belongs, and how the last segment ends.
pub struct Behind<'a> {
    /// Number of the last segment, 0 if there is none.
    pub last: u64,
    /// It ends with SEAL.
    pub is_sealed: bool,
    /// Position of the next record.
    pub next_position: Position,
    /// The file behind it.
    pub file: Option<&'a LastFile>,
}

impl<'a> Behind<'a> {
    /// What stands behind a segment that was scanned.
    #[must_use]
    pub fn scanned(last: u64, tail: &ScannedTail, file: Option<&'a LastFile>) -> Self {
        let is_sealed = tail.end == ScanEnd::Sealed;
        Self { last, is_sealed, next_position: tail.next_position, file }
    }

    /// Damage there.
    #[must_use]
    pub fn damage(&self) -> Option<Corruption> {
        let problem = match self.file {
            None if self.last == 0 => "its file is missing".to_owned(),
            None if self.is_sealed => {
                let last = self.last;
                format!("its file is missing; it was there before segment {last} was sealed")
            }
            Some(LastFile::NoHeader { fault, group_at: Some(at), .. }) => {
                format!("{fault}; the segment has groups (at offset {at})")
            }
            Some(_) if self.last == 0 => "it has no valid header".to_owned(),
            _ => return None,
        };
        let (first, last) = (self.next_position, Position::MAX);
        Some(Corruption { segment: self.last + 1, first, last, problem })
    }
}
