//! The one trait that every way to a log implements.

use futures::future::BoxFuture;
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, ReadError, ReadRequest, SubscribeRequest,
    Uuid, Version,
};

#[cfg(doc)]
use quipu_types::aggregate::CLIENT_SYSTEM_TYPES;

use crate::batches::{RecordStream, Subscription};

/// An event store: the same promises whether the log is in this process or across a network.
pub trait EventStore: Send + Sync {
    /// Stores an append, whole or not at all.
    ///
    /// When the future resolves to `Ok`, the events are on stable storage (written and flushed),
    /// indexed and visible to readers; there is no setting that acknowledges earlier. Appends are
    /// admitted in the order in which their futures are first polled, and none is acknowledged
    /// before all that were admitted earlier are durable; futures of different tasks may wake in
    /// any order. It waits while the store is busy.
    ///
    /// Submitting the same events again is safe: known ids with the same content are answered
    /// with the original positions and `duplicate: true`, for the life of the log.
    ///
    /// Dropping the future does not say whether the append was stored.
    ///
    /// # Errors
    /// See [`AppendError`]: nothing was stored, but for
    /// [`is_outcome_unknown`](AppendError::is_outcome_unknown).
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>>;

    /// As [`Self::append`], of what a client keeps in the system's aggregates. `append` refuses
    /// them, and readers do not see them unless they ask. Every event's aggregate is of one of
    /// [`CLIENT_SYSTEM_TYPES`]; any aggregate may be expected at a version.
    ///
    /// # Errors
    /// As [`Self::append`].
    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>>;

    /// Reads what is durable now, never more; events that come later are not part of it.
    fn read(&self, request: ReadRequest) -> RecordStream;

    /// Catches up, then follows: every record that the filter takes, once, in order, and only
    /// when it is durable. A position past the end is waited for.
    ///
    /// # Errors
    /// That a checkpoint is of another log, or lies past the end of this one. A store across a
    /// network says the latter with the first batch.
    fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError>;

    /// The log's id: part of every checkpoint, so that a consumer never goes on in another log.
    fn log_id(&self) -> Uuid;

    /// Whether no other process can write to this log while this store is open.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// The newest durable version of an aggregate; `Version::NONE` if it was never written.
    fn version(&self, key: &AggregateKey) -> BoxFuture<'_, Result<Version, ReadError>>;
}
