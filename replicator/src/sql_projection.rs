//! Read models that a user writes in SQL: which events, their tables, and one statement a batch.
//!
//! The statement reads the batch as the relation `events`, a temporary table that is filled before
//! it runs and empty afterwards.

use futures::FutureExt;
use futures::future::BoxFuture;
use quipu_client::Record;
use quipu_client::event::JSON_CONTENT_TYPE;
use serde::Deserialize;

use crate::checkpoints::sequence;
use crate::copy_rows::CopyRows;
use crate::error::ReplicateError;
use crate::instant::Instant;
use crate::jsonb;
use crate::metadata::metadata_json;
use crate::projection::{Fold, Interest, OnFailure, Projection};
use crate::session::Session;
use crate::sql_error::SqlError;

const COPY: &str = "COPY pg_temp.events FROM STDIN (FORMAT binary)";
const EMPTY: &str = "TRUNCATE pg_temp.events";
const COLUMNS: i16 = 8;
const NAME_CHARACTERS_MAX: usize = 200;

/// A file of SQL projections.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    projection: Vec<Definition>,
}

/// One projection, as the file spells it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: String,
    #[serde(default)]
    aggregate_types: Vec<String>,
    #[serde(default)]
    event_types: Vec<String>,
    tables: String,
    statement: String,
    #[serde(default)]
    on_failure: Choice,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Choice {
    #[default]
    Stop,
    Park,
}

/// A read model in SQL.
#[derive(Clone, Debug)]
pub struct SqlProjection {
    name: String,
    interest: Interest,
    tables: String,
    statement: String,
    definition: String,
    on_failure: OnFailure,
}

impl SqlProjection {
    /// The projections that a TOML file defines.
    ///
    /// # Errors
    /// That it is none, or has a key that means nothing.
    pub fn read(toml: &str) -> Result<Vec<Self>, ReplicateError> {
        let file: File = toml::from_str(toml).map_err(|error| {
            let problem = error.to_string().trim_end().to_owned();
            ReplicateError::Definition { projection: "of this file".to_owned(), problem }
        })?;
        file.projection.into_iter().map(Self::new).collect()
    }

    /// The same, which keeps an event that it cannot apply in `event_parked`, whatever its file
    /// says.
    #[must_use]
    pub fn parking(self) -> Self {
        Self { on_failure: OnFailure::Park, ..self }
    }

    fn new(definition: Definition) -> Result<Self, ReplicateError> {
        let Definition { name, aggregate_types, event_types, tables, statement, on_failure } =
            definition;
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let (given, most) = (name.chars().count(), NAME_CHARACTERS_MAX);
        if name.is_empty() || given > most || !name.chars().all(is_word) {
            let problem = format!(
                "a name is 1 to {most} lower-case letters, digits and underscores; this one has \
                 {given} characters"
            );
            return Err(ReplicateError::Definition { projection: format!("{name:?}"), problem });
        }
        let on_failure = match on_failure {
            Choice::Stop => OnFailure::Stop,
            Choice::Park => OnFailure::Park,
        };
        let parts = [&aggregate_types.join(", "), &event_types.join(", "), &tables, &statement];
        let definition = parts.map(|part| part.trim()).join("\n--\n");
        let interest = Interest { aggregate_types, event_types, of_system: false };
        Ok(Self { name, interest, tables, statement, definition, on_failure })
    }
}

impl Projection for SqlProjection {
    fn name(&self) -> &str {
        &self.name
    }

    fn interest(&self) -> &Interest {
        &self.interest
    }

    fn migrations(&self) -> Vec<&str> {
        vec![&self.tables]
    }

    fn definition(&self) -> Option<&str> {
        Some(&self.definition)
    }

    fn statements(&self) -> Vec<&str> {
        vec![&self.statement]
    }

    fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    fn reads_events(&self) -> bool {
        true
    }

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(EventsRelation {
            projection: self.name.clone(),
            statement: self.statement.clone(),
            rows: CopyRows::new(),
            metadata: Vec::new(),
        })
    }
}

/// A batch as rows of `events`.
struct EventsRelation {
    projection: String,
    statement: String,
    rows: CopyRows,
    /// Room that is used again for each event.
    metadata: Vec<u8>,
}

impl Fold for EventsRelation {
    fn take(&mut self, record: &Record) -> Result<(), String> {
        let created_at = Instant::of(record.timestamp())?;
        if record.content_type() != JSON_CONTENT_TYPE {
            return Err(format!("its content type, {:?}, is not JSON", record.content_type()));
        }
        jsonb::check(record.payload())?;
        jsonb::check(record.custom())?;
        self.metadata.clear();
        metadata_json(record, true, &mut self.metadata);
        self.rows
            .row(COLUMNS)
            .bigint(sequence(record.position()))
            .text(record.aggregate_type())
            .text(record.aggregate_id())
            .bigint(i64::try_from(record.version().0).unwrap_or(i64::MAX))
            .text(record.event_type())
            .json(record.payload())
            .json(&self.metadata)
            .instant(created_at);
        Ok(())
    }

    fn apply<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<(), SqlError>> {
        async {
            if self.rows.is_empty() {
                return Ok(());
            }
            // Another projection of the same transaction may have filled it.
            session.run("empty `events`", EMPTY).await?;
            session.copy("fill `events`", COPY, self.rows.finished()).await?;
            let doing = format!("run the statement of {}", self.projection);
            session.execute(&doing, &self.statement, &[]).await.map(drop)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [[projection]]
        name = "daily"
        event_types = ["Paid"]
        tables = "CREATE TABLE daily (day DATE PRIMARY KEY)"
        statement = "INSERT INTO daily SELECT created_at::date FROM events"
    "#;

    fn refusal(from: &str, to: &str) -> String {
        let file = FILE.replacen(from, to, 1);
        assert_ne!(file, FILE, "{from} stands in the file");
        SqlProjection::read(&file).unwrap_err().to_string()
    }

    #[test]
    fn a_file_gives_its_projections() {
        let projections = SqlProjection::read(FILE).unwrap();
        assert_eq!(projections.len(), 1);
        assert_eq!(projections[0].name(), "daily");
        assert_eq!(projections[0].interest().event_type(), "Paid");
        assert_eq!(projections[0].on_failure(), OnFailure::Stop);
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        let unknown = refusal("event_types", "event_kinds");
        assert!(unknown.contains("event_kinds") && unknown.contains("event_types"), "{unknown}");
        assert!(refusal("statement", "#").contains("statement"));
        assert!(refusal("\"daily\"", "\"daily; DROP\"").contains("lower-case"));
        assert!(refusal("name = \"daily\"", "name = ").contains("TOML"));
    }
}
