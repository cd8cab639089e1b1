//! Tables filled beside, put in the place of those that serve: all of them, or nothing is changed.

use quipu_client::Position;
use tokio_postgres::error::SqlState;

use crate::checkpoints::position_of;
use crate::error::ReplicateError;
use crate::migrations::{foreign, in_transaction, not_made, wait_for_others};
use crate::objects::{Object, objects_of, others_of};
use crate::postgres::quoted;
use crate::session::{Parameters, Session};
use crate::shadow::{self, Shadow};

const RIGHTS: &str = include_str!("sql/rights.sql");
const FENCE: &str = "UPDATE :own.event_subscriptions AS s
    SET last_processed_sequence = n.last_processed_sequence, log_id = n.log_id,
        epoch = s.epoch + 1, last_error = NULL,
        status = CASE s.status WHEN 'failed' THEN 'stopped' ELSE s.status END, updated_at = now()
    FROM :own.event_subscriptions AS n
    WHERE s.subscriber_name = $1 AND n.subscriber_name = $2
    RETURNING s.last_processed_sequence";
const ADD: &str = "INSERT INTO :own.event_subscriptions
        (subscriber_name, event_type, last_processed_sequence, status, log_id)
    SELECT $1, event_type, last_processed_sequence, 'stopped', log_id
    FROM :own.event_subscriptions WHERE subscriber_name = $2
    RETURNING last_processed_sequence";
const TAKE_OVER: [&str; 5] = [
    "DELETE FROM :own.event_parked WHERE subscriber_name = $1 AND $2::text IS NOT NULL",
    "UPDATE :own.event_parked SET subscriber_name = $1 WHERE subscriber_name = $2",
    // What the new definition does not make any more is still there, and a replicator's.
    "UPDATE :own.quipu_replicator_migrations SET made = (
        SELECT array_agg(DISTINCT name)
        FROM :own.quipu_replicator_migrations m CROSS JOIN LATERAL unnest(m.made) AS name
        WHERE m.projection IN ($1, $2))
     WHERE projection = $2",
    "DELETE FROM :own.quipu_replicator_migrations WHERE projection = $1 AND $2::text IS NOT NULL",
    "UPDATE :own.quipu_replicator_migrations SET projection = $1 WHERE projection = $2",
];
const REMOVE: &str = "DELETE FROM :own.event_subscriptions WHERE subscriber_name = $1";

/// Checks that it can be done, as far as can be known before.
pub(crate) async fn check(session: &Session, shadow: &Shadow) -> Result<(), ReplicateError> {
    let others = others_of(session, shadow.schema()).await?;
    if !others.is_empty() {
        let (projection, objects) = (shadow.projection.name().to_owned(), others.join(", "));
        return Err(ReplicateError::Unmovable { projection, objects });
    }
    let new = objects_of(session, shadow.schema()).await?;
    replaced_by(session, shadow, &new).await.map(drop)
}

/// Puts them in place, with their checkpoint and the rights on the old ones; up to where they are
/// filled.
pub(crate) async fn swap(
    session: &Session,
    shadow: &Shadow,
    checkpoint_id: i64,
) -> Result<Position, ReplicateError> {
    in_transaction(session, async {
        wait_for_others(session, &shadow.place.schema).await?;
        shadow::check(session, &shadow.place, &shadow.label, checkpoint_id).await?;
        // First the checkpoint, then the tables, as in every batch: whoever fills the old tables
        // is done with them by then, and finds at the next batch that the checkpoint is not his.
        let position = take_checkpoint_over(session, shadow).await?;
        check(session, shadow).await?;
        put_in_place(session, shadow).await?;
        let names: Parameters<'_> = &[&shadow.projection.name(), &shadow.label];
        for sql in TAKE_OVER {
            session.execute("take over what belongs to it", &session.own(sql), names).await?;
        }
        let remove = session.own(REMOVE);
        session.execute("remove the checkpoint of the rebuild", &remove, &[&shadow.label]).await?;
        Ok(position)
    })
    .await
}

/// Moves the projection's checkpoint to where the new tables are, or makes it there.
async fn take_checkpoint_over(
    session: &Session,
    shadow: &Shadow,
) -> Result<Position, ReplicateError> {
    let names: Parameters<'_> = &[&shadow.projection.name(), &shadow.label];
    let mut rows = session.query("take the checkpoint over", &session.own(FENCE), names).await?;
    if rows.is_empty() {
        rows = session.query("make the checkpoint", &session.own(ADD), names).await?;
    }
    let gone = || ReplicateError::ShadowGone { projection: shadow.label.clone() };
    Ok(position_of(rows.first().ok_or_else(gone)?.get(0)))
}

async fn put_in_place(session: &Session, shadow: &Shadow) -> Result<(), ReplicateError> {
    let (beside, served) = (quoted(shadow.schema()), quoted(&shadow.place.schema));
    let new = objects_of(session, shadow.schema()).await?;
    let old = replaced_by(session, shadow, &new).await?;
    let rights = session.query("look up the rights", RIGHTS, &[&beside, &served]).await?;
    let mut statements: Vec<String> = rights.iter().map(|row| row.get(0)).collect();
    // A part of a partitioned table may have gone with it.
    statements.extend(old.iter().map(|Object { kind, name, .. }| {
        format!("DROP {kind} IF EXISTS {served}.{}", quoted(name))
    }));
    statements.extend(new.iter().map(|Object { kind, name, .. }| {
        format!("ALTER {kind} {beside}.{} SET SCHEMA {served}", quoted(name))
    }));
    let doing = "put the new tables in place of the old ones";
    session.run(doing, &statements.join(";\n")).await.map_err(|error| {
        if error.is(&SqlState::DUPLICATE_TABLE) || error.is(&SqlState::DUPLICATE_OBJECT) {
            return foreign(shadow.projection.name(), &shadow.place.schema, &error.to_string());
        }
        error.into()
    })?;
    // Not what is in it: whatever that was, what serves now may depend on it.
    Ok(session.run("remove the empty schema", &format!("DROP SCHEMA {beside}")).await?)
}

/// What serves under the names of the new tables: made by a replicator, all of it.
async fn replaced_by(
    session: &Session,
    shadow: &Shadow,
    new: &[Object],
) -> Result<Vec<Object>, ReplicateError> {
    let (projection, schema) = (shadow.projection.name(), &*shadow.place.schema);
    let mut old = objects_of(session, schema).await?;
    old.retain(|old| new.iter().any(|new| new.name == old.name));
    let names = old.iter().map(|it| it.name.clone()).collect();
    let not_made = not_made(session, projection, names).await?;
    if not_made.is_empty() {
        return Ok(old);
    }
    Err(foreign(projection, schema, &not_made.join(", ")))
}
