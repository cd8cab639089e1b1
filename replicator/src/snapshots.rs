//! `event_snapshots`: the states of aggregates that are kept in the log, as rows.

use futures::FutureExt;
use futures::future::BoxFuture;
use quipu_client::{Position, Record, SNAPSHOT_TYPE, Version};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::checkpoints::sequence;
use crate::copy_rows::CopyRows;
use crate::instant::Instant;
use crate::jsonb;
use crate::projection::{Fold, Interest, OnFailure, Projection, declared, storable};
use crate::session::Session;
use crate::sql_error::SqlError;

const MIGRATIONS: [&str; 1] = [include_str!("sql/event_snapshots_1.sql")];
const COPY: &str = "COPY event_snapshots (sequence_number, id, aggregate_id, aggregate_type, \
    version, state, state_bytes, state_version, last_event_sequence, created_at) \
    FROM STDIN (FORMAT binary)";
const COLUMNS: i16 = 10;
/// As wide as the columns are.
const AGGREGATE_ID_CHARACTERS_MAX: usize = 255;
const AGGREGATE_TYPE_CHARACTERS_MAX: usize = 100;

/// The mirror of the log's snapshots.
#[derive(Clone, Debug)]
pub struct EventSnapshots {
    interest: Interest,
    on_failure: OnFailure,
}

impl EventSnapshots {
    /// The projection `event_snapshots`.
    #[must_use]
    pub fn new(on_failure: OnFailure) -> Self {
        let interest = Interest { of_system: true, ..Interest::of(&[SNAPSHOT_TYPE], &[]) };
        Self { interest, on_failure }
    }
}

impl Projection for EventSnapshots {
    declared!("event_snapshots", MIGRATIONS);

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(SnapshotsFold { rows: CopyRows::new() })
    }
}

/// What a snapshot's payload says.
#[derive(Deserialize)]
struct Taken<'a> {
    aggregate_type: String,
    aggregate_id: String,
    version: Version,
    position: Position,
    #[serde(borrow)]
    state: &'a RawValue,
}

struct SnapshotsFold {
    rows: CopyRows,
}

impl Fold for SnapshotsFold {
    fn take(&mut self, record: &Record) -> Result<(), String> {
        let taken: Taken<'_> = serde_json::from_slice(record.payload())
            .map_err(|error| format!("it is no snapshot: {error}"))?;
        let id = storable("its aggregate id", &taken.aggregate_id, AGGREGATE_ID_CHARACTERS_MAX)?;
        let kind =
            storable("its aggregate type", &taken.aggregate_type, AGGREGATE_TYPE_CHARACTERS_MAX)?;
        let version = i32::try_from(taken.version.0).map_err(|_| {
            format!("its version, {}, is above what INTEGER holds, {}", taken.version, i32::MAX)
        })?;
        let created_at = Instant::of(record.timestamp())?;
        let state = taken.state.get().as_bytes();
        let row = self.rows.row(COLUMNS);
        row.bigint(sequence(record.position())).uuid(record.event_id()).text(id).text(kind);
        row.integer(version);
        match jsonb::check(state) {
            Ok(()) => row.json(state).null(),
            Err(_) => row.null().bytes(state),
        };
        row.integer(i32::from(record.schema_version()))
            .bigint(sequence(taken.position))
            .instant(created_at);
        Ok(())
    }

    fn apply<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<(), SqlError>> {
        async {
            if self.rows.is_empty() {
                return Ok(());
            }
            session.copy("write event_snapshots", COPY, self.rows.finished()).await
        }
        .boxed()
    }
}
