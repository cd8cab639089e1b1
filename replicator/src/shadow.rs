//! Tables filled beside those that are served: for a rebuild, and to check against.
//!
//! One run at a time: it holds a lock of the projection from before anything is made until all of
//! it is gone, and makes and removes on the connection that holds the lock, so that a run that has
//! lost it changes nothing. Schema, checkpoint and migrations are made in one transaction and
//! removed in one; a mark on the schema says which checkpoint it is filled under.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_postgres::types::ToSql;

use crate::checkpoints::{self, Claim, sequence};
use crate::error::ReplicateError;
use crate::migrations::{
    EVENTS_RELATION, Place, bring_up_to_date, forget, in_transaction, make_ready,
};
use crate::observer::Observer;
use crate::pipeline::{Pipeline, Setting, Task};
use crate::postgres::{literal, quoted};
use crate::projection::Projection;
use crate::reader::{Until, last_position};
use crate::replicator::Replicator;
use crate::session::Session;
use crate::sql_error::SqlError;

/// Postgres cuts names after 63 bytes, and `quipu_rebuild_` comes before that of a projection.
const PROJECTION_BYTES_MAX: usize = 63 - "quipu_rebuild_".len();
/// The checkpoint of tables that were filled from this log, by this definition, and not beyond its
/// end.
const OF_USE: &str = "SELECT s.id FROM :own.event_subscriptions s \
    CROSS JOIN LATERAL (SELECT version, definition FROM :own.quipu_replicator_migrations \
        WHERE projection = s.subscriber_name ORDER BY version DESC LIMIT 1) m \
    WHERE s.subscriber_name = $1 AND s.log_id = $2 AND s.last_processed_sequence <= $3 \
        AND m.version = $4 AND m.definition IS NOT DISTINCT FROM $5";
const MARK: &str = "SELECT obj_description(to_regnamespace($1::text), 'pg_namespace')";

/// A projection's tables in a schema of their own.
pub(crate) struct Shadow {
    pub(crate) projection: Arc<dyn Projection>,
    /// Under which its checkpoint and its migrations are kept meanwhile.
    pub(crate) label: String,
    pub(crate) place: Place,
    purpose: &'static str,
}

impl Shadow {
    /// The shadow of a projection for this purpose.
    pub(crate) fn of(
        replicator: &Replicator,
        name: &str,
        purpose: &'static str,
    ) -> Result<Self, ReplicateError> {
        let projection = Arc::clone(replicator.projection(name)?);
        let schema = replicator.postgres().schema().to_owned();
        check_name(name)?;
        let shadow = Some(format!("quipu_{purpose}_{name}"));
        let label = format!("{name} ({purpose})");
        Ok(Self { projection, label, place: Place { schema, shadow }, purpose })
    }

    pub(crate) fn schema(&self) -> &str {
        self.place.of_tables()
    }

    /// A connection that keeps other runs out as long as it lasts.
    pub(crate) async fn hold(&self, replicator: &Replicator) -> Result<Session, ReplicateError> {
        let purpose = format!("{} {}", self.purpose, self.projection.name());
        let held = replicator.postgres().connect(&purpose).await?;
        checkpoints::hold(&held, self.projection.name()).await?;
        // Not before: whoever holds the lock may keep all tables from being made for long.
        make_ready(&held, &self.place.schema).await?;
        Ok(held)
    }

    /// The same connection, or another one where it was lost. Somebody else may have been here
    /// between them.
    pub(crate) async fn hold_on(
        &self,
        replicator: &Replicator,
        held: Session,
    ) -> Result<Session, ReplicateError> {
        match held.run("look whether Postgres is there", "SELECT").await {
            Ok(()) => Ok(held),
            Err(_) => self.hold(replicator).await,
        }
    }

    /// The checkpoint of tables that an earlier run left and that are worth going on with.
    pub(crate) async fn find(
        &self,
        held: &Session,
        replicator: &Replicator,
    ) -> Result<Option<i64>, ReplicateError> {
        let store = replicator.store();
        let end = sequence(last_position(&**store).await?);
        let known = i32::try_from(self.projection.migrations().len()).unwrap_or(i32::MAX);
        let log_id = store.log_id();
        let values: [&(dyn ToSql + Sync); 5] =
            [&self.label, &log_id, &end, &known, &self.projection.definition()];
        let doing = "look for what was begun";
        let found = held.query(doing, &held.own(OF_USE), &values).await?;
        let Some(id) = found.first().map(|row| row.get(0)) else { return Ok(None) };
        Ok(is_marked(held, &self.place, id).await?.then_some(id))
    }

    /// Makes its tables in place of all that an earlier run left; the checkpoint made with them.
    pub(crate) async fn make(
        &self,
        held: &Session,
        replicator: &Replicator,
    ) -> Result<i64, ReplicateError> {
        let (projection, label) = (&*self.projection, &self.label);
        if projection.reads_events() {
            held.run("make the relation `events`", EVENTS_RELATION).await?;
        }
        in_transaction(held, async {
            self.clear(held).await?;
            let event_type = projection.interest().event_type();
            let log_id = replicator.store().log_id();
            let claim = Claim { subscriber: label, event_type, log_id, id: None };
            let gone = || ReplicateError::ShadowGone { projection: label.clone() };
            let id = checkpoints::add(held, claim).await?.ok_or_else(gone)?;
            bring_up_to_date(held, &self.place, projection, label).await?;
            let mark = literal(&mark(&self.place, id));
            let mark = format!("COMMENT ON SCHEMA {} IS {mark}", quoted(self.schema()));
            held.run("mark the schema", &mark).await?;
            Ok(id)
        })
        .await
    }

    /// Fills them from where they are.
    pub(crate) async fn fill(
        &self,
        replicator: &Replicator,
        checkpoint_id: i64,
        until: Until,
        observer: Arc<dyn Observer>,
    ) -> Result<(), ReplicateError> {
        // Kept to the end: without its sender, the pipeline would be told to stop.
        let (_never, stop) = watch::channel(false);
        let setting = Setting { observer, ..replicator.setting(stop) };
        let (projection, subscriber) = (Arc::clone(&self.projection), self.label.clone());
        let task = Task { projection, subscriber, checkpoint_id: Some(checkpoint_id) };
        let place = self.place.clone();
        let ended = Pipeline { setting, place, tasks: vec![task], until }.run().await?;
        match ended.failed.into_iter().next() {
            None => Ok(()),
            Some((projection, problem)) => Err(ReplicateError::Failed { projection, problem }),
        }
    }

    /// A connection that finds its tables.
    pub(crate) async fn connect(&self, replicator: &Replicator) -> Result<Session, ReplicateError> {
        replicator.postgres().connect_to(&self.label, self.schema()).await
    }

    /// Removes all of it.
    pub(crate) async fn remove(&self, held: &Session) -> Result<(), ReplicateError> {
        in_transaction(held, async { Ok(self.clear(held).await?) }).await
    }

    /// First the checkpoint, then the tables, as in every batch.
    async fn clear(&self, held: &Session) -> Result<(), SqlError> {
        checkpoints::remove(held, &self.label).await?;
        forget(held, &self.label).await?;
        let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(self.schema()));
        held.run("remove the tables filled beside", &drop).await
    }
}

/// Two projections whose schemas have one name would fill each other's tables.
fn check_name(name: &str) -> Result<(), ReplicateError> {
    let given = name.len();
    if given <= PROJECTION_BYTES_MAX {
        return Ok(());
    }
    let problem = format!(
        "its name has {given} bytes: at most {PROJECTION_BYTES_MAX}, or Postgres cuts that of the \
         schema that is filled beside"
    );
    Err(ReplicateError::Definition { projection: name.to_owned(), problem })
}

/// What says of a schema which checkpoint its tables are filled under.
fn mark(place: &Place, checkpoint_id: i64) -> String {
    format!("Quipu: filled beside {} under checkpoint {checkpoint_id}", quoted(&place.schema))
}

async fn is_marked(session: &Session, place: &Place, checkpoint_id: i64) -> Result<bool, SqlError> {
    let schema = quoted(place.of_tables());
    let found = session.query("read the mark of the schema", MARK, &[&schema]).await?;
    let found = found.first().and_then(|row| row.get::<_, Option<String>>(0));
    Ok(found.is_some_and(|found| found == mark(place, checkpoint_id)))
}

/// Checks that the tables are still those that were made with this checkpoint.
pub(crate) async fn check(
    session: &Session,
    place: &Place,
    label: &str,
    checkpoint_id: i64,
) -> Result<(), ReplicateError> {
    if is_marked(session, place, checkpoint_id).await? {
        return Ok(());
    }
    Err(ReplicateError::ShadowGone { projection: label.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_room_in_the_name_of_a_schema() {
        check_name(&"n".repeat(49)).unwrap();
        let refused = check_name(&"n".repeat(50)).unwrap_err().to_string();
        assert!(refused.contains("has 50 bytes") && refused.contains("at most 49"), "{refused}");
    }
}
