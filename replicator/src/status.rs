//! How projections are: as their checkpoints say it, and measured against the log where it is
//! there.

use quipu_client::{EventStore, Filter, Position, ReadRequest, Timestamp, Uuid};

use crate::checkpoints::{HOLDER, position_of};
use crate::clock::seconds_since;
use crate::error::ReplicateError;
use crate::instant::Instant;
use crate::postgres::{Postgres, quoted};
use crate::reader::last_position;

const ALL: &str = "SELECT s.subscriber_name, s.event_type, s.last_processed_sequence, s.status, \
        s.error_count, s.last_error, s.updated_at, s.log_id, s.lag_events, s.lag_seconds, \
        s.events_per_second, \
        (SELECT count(*) FROM event_parked p WHERE p.subscriber_name = s.subscriber_name) \
    FROM event_subscriptions s ORDER BY s.subscriber_name";
const FIND_TABLE: &str = "SELECT 1 WHERE to_regclass($1::text) IS NOT NULL";

/// How one projection is.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The event type it takes, or `*`.
    pub event_type: String,
    /// `running`, `stopped` or `failed`; `interrupted` where it says running and nobody runs it.
    pub status: String,
    /// Everything up to here is applied.
    pub position: Position,
    /// Events of the log that are not applied yet.
    pub lag_events: u64,
    /// How long the first of them has waited, in seconds; from the checkpoint alone, how far behind
    /// the clock the last batch was.
    pub lag_seconds: f64,
    /// Events applied a second, when it was last heard of.
    pub events_per_second: f64,
    /// Events that could not be applied, ever.
    pub error_count: i64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Events that are parked.
    pub parked: i64,
    /// The log it is filled from.
    pub log_id: Uuid,
    /// When it was last heard of.
    pub updated_at: Timestamp,
}

/// How all projections of a schema are. With the log at hand, lag is what it is now; without, what
/// it was when each was last heard of.
///
/// # Errors
/// That Postgres or the log cannot be asked.
pub async fn status(
    postgres: &Postgres,
    store: Option<&dyn EventStore>,
) -> Result<Vec<ProjectionStatus>, ReplicateError> {
    let session = postgres.connect("status").await?;
    let table = format!("{}.event_subscriptions", quoted(postgres.schema()));
    if session.query("look for checkpoints", FIND_TABLE, &[&table]).await?.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session.query("read the checkpoints", ALL, &[]).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let (name, status): (String, String) = (row.get(0), row.get(3));
        let holder = session.query("see who runs", HOLDER, &[&postgres.schema(), &name]).await?;
        let is_interrupted = status == "running" && holder.is_empty();
        let mut status = ProjectionStatus {
            name,
            event_type: row.get(1),
            status: if is_interrupted { "interrupted".to_owned() } else { status },
            position: position_of(row.get(2)),
            lag_events: u64::try_from(row.get::<_, i64>(8)).unwrap_or(0),
            lag_seconds: row.get(9),
            events_per_second: row.get(10),
            error_count: row.get(4),
            last_error: row.get(5),
            parked: row.get(11),
            log_id: row.get(7),
            updated_at: row.get::<_, Instant>(6).timestamp(),
        };
        if let Some(store) = store {
            measure(&mut status, store).await?;
        }
        all.push(status);
    }
    Ok(all)
}

async fn measure(
    status: &mut ProjectionStatus,
    store: &dyn EventStore,
) -> Result<(), ReplicateError> {
    let (given, actual) = (status.log_id, store.log_id());
    if given != actual {
        let projection = status.name.clone();
        return Err(ReplicateError::OtherLog { projection, given, actual });
    }
    let end = last_position(store).await?;
    status.lag_events = end.0.saturating_sub(status.position.0);
    let first = ReadRequest {
        filter: Filter { include_system: true, ..Filter::default() },
        from: Some(status.position.next().0),
        limit: Some(1),
        ..ReadRequest::default()
    };
    let waiting =
        if status.lag_events > 0 { store.read(first).next_batch().await? } else { Vec::new() };
    status.lag_seconds = waiting.first().map_or(0.0, |record| seconds_since(record.recorded_at()));
    Ok(())
}
