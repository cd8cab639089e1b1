//! Read models of a log in Postgres: filled exactly once in effect, rebuilt and checked on demand.
//!
//! `docs/replicator.md` says how an operator works with them. In reading order: what a read model
//! is ([`Projection`]), those there are ([`EventStoreMirror`], [`EventSnapshots`], [`Compliance`],
//! [`CallStatistics`], [`AccountBalances`], and those a user writes in SQL, [`SqlProjection`]), and
//! what fills them ([`Replicator`]): a *reader* that folds the next batch while an *applier* has
//! Postgres commit this one, each batch in one transaction with its checkpoints.

mod accounts;
mod applier;
mod batch;
mod calls;
mod checkpoints;
mod clock;
mod compliance;
mod copy_rows;
mod difference;
mod error;
mod instant;
mod jsonb;
mod metadata;
mod migrations;
mod mirror;
mod objects;
mod observer;
mod pipeline;
mod postgres;
mod projection;
mod reader;
mod rebuild;
mod replicator;
mod session;
mod shadow;
mod snapshots;
mod sql_error;
mod sql_projection;
mod status;
mod swap;
mod verify;

pub use accounts::AccountBalances;
pub use batch::BatchLimits;
pub use calls::CallStatistics;
pub use compliance::Compliance;
pub use difference::Difference;
pub use error::ReplicateError;
pub use instant::Instant;
pub use mirror::{EVENT_STORE, EventStoreMirror, UnfitJson};
pub use observer::{Committed, Observer, Unobserved};
pub use postgres::Postgres;
pub use projection::{Fold, Interest, OnFailure, Projection, storable};
pub use replicator::{Replicator, Summary};
pub use session::{Parameters, Session};
pub use snapshots::EventSnapshots;
pub use sql_error::{Remedy, SqlError};
pub use sql_projection::SqlProjection;
pub use status::{ProjectionStatus, status};
pub use verify::Verified;
