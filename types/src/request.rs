//! What a reader and a subscriber ask for, and what a subscriber receives.

use uuid::Uuid;

use crate::filter::Filter;
use crate::position::Position;
use crate::record::Record;

/// Which way a read goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forward,
    /// Newest first.
    Backward,
}

/// A read of what is durable when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// Which records.
    pub filter: Filter,
    /// Where to begin, inclusive: a version where the filter names an aggregate, else a position.
    /// Default: the beginning of a forward read, the end of a backward one.
    pub from: Option<u64>,
    /// Which way.
    pub direction: Direction,
    /// At most so many records; default all.
    pub limit: Option<u64>,
}

/// Where a subscription begins: after what its consumer handled last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAfter {
    /// After this position; 0 means from the beginning. One past the end is waited for.
    Position(Position),
    /// Only what comes after the subscription starts.
    End,
    /// After the position in a checkpoint that the consumer saved. Refused if it is of another log
    /// or lies past the end: such a consumer would miss events without noticing.
    Checkpoint(Checkpoint),
}

/// A consumer's saved place: in which log, and what it handled last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub log_id: Uuid,
    /// The last position handled.
    pub position: Position,
}

impl Default for StartAfter {
    fn default() -> Self {
        Self::Position(Position::START)
    }
}

/// A subscription: catch up, then follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeRequest {
    /// Which records.
    pub filter: Filter,
    /// Where to begin.
    pub after: StartAfter,
}

/// What a subscription delivers; after each item there is one position that is safe to save.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SubscriptionItem {
    /// The next record that the filter takes; save its position once it is handled.
    Event(Record),
    /// Nothing up to here is left to deliver: safe to save.
    Checkpoint(Position),
    /// Everything durable up to here has been delivered; what follows is live.
    CaughtUp(Position),
    /// The subscriber was live and is now behind: reading goes on from disk.
    FellBehind(Position),
}
