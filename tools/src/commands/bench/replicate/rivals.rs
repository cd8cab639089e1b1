//! What Postgres alone can do with the same rows: a bare COPY, and an INSERT an event.

use std::time::Duration;

use quipu_client::{Embedded, EventStore, ReadRequest, Record, Timestamp};
use quipu_replicator::{
    BatchLimits, EventStoreMirror, Fold, Instant, OnFailure, Postgres, Projection, UnfitJson,
};

use super::{cannot, make_tables};
use crate::failure::Failure;
use crate::wait::{now, since};

const INSERT: &str = "INSERT INTO event_store (sequence_number, id, aggregate_id, aggregate_type, \
    event_type, event_data, metadata, version, created_at, schema_version) \
    VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8, $9, $10)";

/// How long Postgres takes for all rows, ready in memory, in transactions as the mirror has them.
pub(super) async fn copy(log: &Embedded, postgres: &Postgres) -> Result<Duration, Failure> {
    make_tables(log, postgres).await?;
    let (mirror, limits) =
        (EventStoreMirror::new(UnfitJson::Bytes, OnFailure::Stop), BatchLimits::default());
    let mut batches: Vec<Box<dyn Fold>> = Vec::new();
    let (mut events, mut bytes) = (0, 0);
    let mut records = log.read(ReadRequest::default());
    loop {
        let page = records.next_batch().await?;
        if page.is_empty() {
            break;
        }
        for record in page {
            if batches.is_empty() || events >= limits.events_max || bytes >= limits.bytes_max {
                batches.push(mirror.fold());
                (events, bytes) = (0, 0);
            }
            (events, bytes) = (events + 1, bytes + record.as_bytes().len());
            let batch = batches.last_mut().expect("there is one");
            batch.take(&record).map_err(Failure::No)?;
        }
    }
    let session = postgres.connect("bench copy").await?;
    let started = now();
    for batch in &batches {
        session.run("begin", "BEGIN").await.map_err(cannot)?;
        batch.apply(&session).await.map_err(cannot)?;
        session.run("commit", "COMMIT").await.map_err(cannot)?;
    }
    Ok(since(started))
}

/// How long it takes for each of the first events to be inserted and committed by itself.
pub(super) async fn insert(
    log: &Embedded,
    postgres: &Postgres,
    events_max: u64,
) -> Result<Duration, Failure> {
    make_tables(log, postgres).await?;
    let mut records = Vec::new();
    let mut read = log.read(ReadRequest { limit: Some(events_max), ..ReadRequest::default() });
    loop {
        let page = read.next_batch().await?;
        if page.is_empty() {
            break;
        }
        records.extend(page);
    }
    let session = postgres.connect("bench insert").await?;
    // As the server is set to: for a replicator, a commit need not be durable.
    session.run("commit as usual", "RESET synchronous_commit").await.map_err(cannot)?;
    let started = now();
    for record in &records {
        let metadata = format!(
            "{{\"correlation_id\":\"{}\",\"causation_id\":\"{}\"}}",
            record.correlation_id(),
            record.causation_id()
        );
        let created_at = instant(record.timestamp())?;
        let payload = std::str::from_utf8(record.payload()).unwrap_or_default();
        let (position, version, schema_version) = numbers(record)?;
        session
            .execute(
                "insert",
                INSERT,
                &[
                    &position,
                    &record.event_id(),
                    &record.aggregate_id(),
                    &record.aggregate_type(),
                    &record.event_type(),
                    &payload,
                    &metadata,
                    &version,
                    &created_at,
                    &schema_version,
                ],
            )
            .await
            .map_err(cannot)?;
    }
    Ok(since(started))
}

fn instant(timestamp: Timestamp) -> Result<Instant, Failure> {
    Instant::of(timestamp).map_err(Failure::No)
}

fn numbers(record: &Record) -> Result<(i64, i32, i32), Failure> {
    let too_large = |_| Failure::No(format!("{} is too large", record.position()));
    let position = i64::try_from(record.position().0).map_err(too_large)?;
    let version = i32::try_from(record.version().0).map_err(too_large)?;
    Ok((position, version, i32::from(record.schema_version())))
}
