//! What every system is asked to do: the same clients, appends and order.

use serde::{Deserialize, Serialize};

/// Aggregates, shared out among the clients.
pub(crate) const AGGREGATES: usize = 10_000;
/// Appends a second while a live subscriber follows: what the slowest system keeps up with.
pub(crate) const LIVE_PER_S: u64 = 200;

/// One of the workloads, in the order in which each system meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    OneWriter,
    ManyWriters,
    Batches,
    CatchUp,
    Live,
}

/// Who appends how much at a time; each client has one append in flight.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) clients: usize,
    pub(crate) batch: usize,
}

impl Workload {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::OneWriter, Self::ManyWriters, Self::Batches, Self::CatchUp, Self::Live];

    /// As tables and plots call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OneWriter => "one writer, one event at a time",
            Self::ManyWriters => "64 in flight, one event each",
            Self::Batches => "appends of 100, 8 in flight",
            Self::CatchUp => "catch-up read",
            Self::Live => "append to live delivery",
        }
    }

    /// Who appends; reading has no such shape.
    pub(crate) fn shape(self) -> Option<Shape> {
        match self {
            Self::OneWriter => Some(Shape { clients: 1, batch: 1 }),
            Self::ManyWriters => Some(Shape { clients: 64, batch: 1 }),
            Self::Batches => Some(Shape { clients: 8, batch: 100 }),
            Self::CatchUp | Self::Live => None,
        }
    }
}
