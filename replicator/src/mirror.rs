//! `event_store`: every event as a row, and who did what as a view of it.

use futures::FutureExt;
use futures::future::BoxFuture;
use quipu_client::Record;
use quipu_client::event::JSON_CONTENT_TYPE;

use crate::checkpoints::sequence;
use crate::copy_rows::CopyRows;
use crate::instant::Instant;
use crate::jsonb;
use crate::metadata::metadata_json;
use crate::projection::{Fold, Interest, OnFailure, Projection, declared};
use crate::session::Session;
use crate::sql_error::SqlError;

/// Its name, and that of its table.
pub const EVENT_STORE: &str = "event_store";
const MIGRATIONS: [&str; 1] = [include_str!("sql/event_store_1.sql")];
const COPY: &str = "COPY event_store (sequence_number, id, aggregate_id, aggregate_type, \
    event_type, event_data, metadata, version, created_at, schema_version, content_type, \
    event_bytes, custom_bytes) FROM STDIN (FORMAT binary)";
const COLUMNS: i16 = 13;

/// What to do with JSON that Postgres cannot hold as `jsonb`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnfitJson {
    /// Its bytes are stored beside, in `event_bytes` or `custom_bytes`.
    #[default]
    Bytes,
    /// It cannot be applied: see [`OnFailure`].
    Fail,
}

/// The mirror of the log: the table `event_store`, filled by COPY, and the view `audit_trail`.
#[derive(Clone, Debug, Default)]
pub struct EventStoreMirror {
    interest: Interest,
    unfit_json: UnfitJson,
    on_failure: OnFailure,
}

impl EventStoreMirror {
    /// A mirror of every event that is not the system's.
    #[must_use]
    pub fn new(unfit_json: UnfitJson, on_failure: OnFailure) -> Self {
        Self { interest: Interest::default(), unfit_json, on_failure }
    }
}

impl Projection for EventStoreMirror {
    declared!(EVENT_STORE, MIGRATIONS);

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(MirrorFold {
            unfit_json: self.unfit_json,
            rows: CopyRows::new(),
            metadata: Vec::new(),
        })
    }
}

struct MirrorFold {
    unfit_json: UnfitJson,
    rows: CopyRows,
    /// Room that is used again for each event.
    metadata: Vec<u8>,
}

impl MirrorFold {
    /// Whether Postgres holds the JSON; an error where it must.
    fn is_held(&self, json: &[u8]) -> Result<bool, String> {
        match (jsonb::check(json), self.unfit_json) {
            (Ok(()), _) => Ok(true),
            (Err(_), UnfitJson::Bytes) => Ok(false),
            (Err(problem), UnfitJson::Fail) => Err(problem),
        }
    }
}

impl Fold for MirrorFold {
    fn take(&mut self, record: &Record) -> Result<(), String> {
        let created_at = Instant::of(record.timestamp())?;
        let version = i32::try_from(record.version().0).map_err(|_| {
            let given = record.version();
            format!("its version, {given}, is above what INTEGER holds, {}", i32::MAX)
        })?;
        let (payload, custom) = (record.payload(), record.custom());
        let is_json = record.content_type() == JSON_CONTENT_TYPE;
        let is_held = is_json && self.is_held(payload)?;
        let is_custom_held = custom.is_empty() || self.is_held(custom)?;
        self.metadata.clear();
        metadata_json(record, is_custom_held, &mut self.metadata);
        let row = self.rows.row(COLUMNS);
        row.bigint(sequence(record.position()))
            .uuid(record.event_id())
            .text(record.aggregate_id())
            .text(record.aggregate_type())
            .text(record.event_type());
        if is_held {
            row.json(payload)
        } else {
            row.null()
        };
        row.json(&self.metadata)
            .integer(version)
            .instant(created_at)
            .integer(i32::from(record.schema_version()));
        if is_json {
            row.null()
        } else {
            row.text(record.content_type())
        };
        if is_held {
            row.null()
        } else {
            row.bytes(payload)
        };
        if is_custom_held {
            row.null()
        } else {
            row.bytes(custom)
        };
        Ok(())
    }

    fn apply<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<(), SqlError>> {
        async {
            if self.rows.is_empty() {
                return Ok(());
            }
            session.copy("write event_store", COPY, self.rows.finished()).await
        }
        .boxed()
    }
}
