//! Several aggregates, of any types, saved in one append: all of it is stored or none.

use quipu_types::{AggregateKey, Append, AppendOutcome, ExpectedVersion, NewEvent, Version};

use crate::codec_error::EncodeError;
use crate::context::EventContext;
use crate::repository_error::{IsConflict, SaveError};
use crate::stamps::Stamps;
use crate::store::EventStore;

/// An aggregate of whichever type that has events to save, or whose version is to be checked.
pub trait Uncommitted: Send {
    /// Its type and id.
    fn key(&self) -> &AggregateKey;

    /// Its last stored version, which the append expects.
    fn version(&self) -> Version;

    /// Its uncommitted events, as they are to be appended; the same each time.
    ///
    /// # Errors
    /// That one cannot be written.
    fn new_events(
        &mut self,
        stamps: &dyn Stamps,
        context: &EventContext,
    ) -> Result<Vec<NewEvent>, EncodeError>;

    /// Says that its uncommitted events are stored.
    fn mark_committed(&mut self);
}

/// Saves what all of these have raised in one append, each expected at the version it was loaded
/// with, those that raised nothing included. Nothing is appended, and `None` is answered, if none
/// has raised anything.
///
/// # Errors
/// Why nothing was stored, or that the outcome is not known: save again then, with the same
/// context and before anything else is raised; what was stored is found by its ids.
pub async fn save_all<S: EventStore + ?Sized>(
    store: &S,
    stamps: &dyn Stamps,
    context: &EventContext,
    aggregates: &mut [&mut dyn Uncommitted],
) -> Result<Option<AppendOutcome>, SaveError> {
    let mut append = Append::default();
    for aggregate in aggregates.iter_mut() {
        append.events.extend(aggregate.new_events(stamps, context)?);
        let expected = ExpectedVersion::Exact(aggregate.version());
        append.expectations.push((aggregate.key().clone(), expected));
    }
    if append.events.is_empty() {
        return Ok(None);
    }
    let outcome = store.append(append).await?;
    for aggregate in aggregates {
        aggregate.mark_committed();
    }
    Ok(Some(outcome))
}

/// Does something that loads, decides and saves; and again, at most `retries` times, as long as
/// somebody else is faster.
///
/// # Errors
/// What the last attempt said.
pub async fn retry_conflicts<T, E: IsConflict, F: Future<Output = Result<T, E>>>(
    retries: u32,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    for _ in 0..retries {
        match attempt().await {
            Err(error) if error.is_conflict() => {}
            result => return result,
        }
    }
    attempt().await
}
