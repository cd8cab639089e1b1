//! What a client asks of a log, when, and what it is told.

use quipu_types::{ExpectedVersion, Position, Version};
use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use super::stored::{Seen, Submitted};

/// Which of whose operations: numbers rise in the order in which a client begins them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId {
    pub client: u32,
    pub number: u64,
}

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "operation {} of client {}", self.number, self.client)
    }
}

/// An append, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendCall {
    pub id: CallId,
    pub invoked: Stamp,
    pub responded: Stamp,
    pub events: Vec<Submitted>,
    pub expectations: Vec<Expectation>,
    pub outcome: Outcome,
}

/// What an append expects of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    pub aggregate: u32,
    #[serde(with = "ExpectedSpelling")]
    pub expected: ExpectedVersion,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ExpectedVersion")]
enum ExpectedSpelling {
    Any,
    NoStream,
    StreamExists,
    Exact(Version),
}

/// What an append was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is stored.
    Stored { duplicate: bool, positions: Vec<Position>, versions: Vec<(u32, Version)> },
    /// It is not, for these aggregates were at these versions.
    Conflict(Vec<(u32, Version)>),
    /// It is not, for this id stands there, with other content or without the others.
    IdConflict { event: u128, position: Position, partly: bool },
    /// It is not, for a reason that the log's content does not show: no space, never sent.
    Failed(String),
    /// Nothing certain, or nothing yet.
    Unknown,
}

/// A read, as far as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCall {
    pub id: CallId,
    pub invoked: Stamp,
    pub responded: Stamp,
    /// One aggregate's events, or all.
    pub of: Option<u32>,
    pub backward: bool,
    /// A version of the aggregate, or a position; the first that was asked for.
    pub from: Option<u64>,
    pub limit: Option<u64>,
    pub seen: Vec<Seen>,
    /// It came to its end.
    pub whole: bool,
}

/// A question for an aggregate's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionCall {
    pub id: CallId,
    pub invoked: Stamp,
    pub responded: Stamp,
    pub aggregate: u32,
    pub version: Version,
}

/// A subscription, until it was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    pub id: CallId,
    pub invoked: Stamp,
    /// One aggregate's events, or all.
    pub of: Option<u32>,
    /// The last position that it had already; `None` to hear only what is new.
    pub after: Option<Position>,
    pub heard: Vec<Heard>,
    /// It was to hear everything up to here before it was dropped.
    pub due: Option<Position>,
}

/// One thing that a subscriber was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    pub at: Stamp,
    pub item: Item,
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    Event(Seen),
    /// Nothing up to here is left to be delivered.
    Mark(Position),
}
