//! Quipu's vocabulary: the words that every other package shares, and nothing that does I/O.
//!
//! Modules in reading order: the numbers ([`position`], [`version`], [`timestamp`]), what is
//! submitted ([`aggregate`], [`event`], [`append`]), what is stored ([`record`]), what is asked
//! ([`filter`], [`request`]), what can go wrong ([`error`]), and how an event is spelled in JSON
//! ([`json`]).

pub mod aggregate;
pub mod append;
pub mod error;
pub mod event;
pub mod filter;
pub mod json;
pub mod limits;
pub mod position;
pub mod record;
pub mod request;
pub mod timestamp;
pub mod version;

pub use aggregate::AggregateKey;
pub use append::{Append, AppendOutcome};
pub use error::{AppendError, Corruption, IdConflictReason, Invalid, ReadError, VersionConflict};
pub use event::{Metadata, NewEvent};
pub use filter::Filter;
pub use limits::Limits;
pub use position::Position;
pub use record::Record;
pub use request::{
    Checkpoint, Direction, ReadRequest, StartAfter, SubscribeRequest, SubscriptionItem,
};
pub use timestamp::Timestamp;
pub use uuid::Uuid;
pub use version::{ExpectedVersion, Version};
