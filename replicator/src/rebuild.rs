//! A projection filled anew while the old one serves, and put in its place in one transaction.

use std::sync::Arc;

use quipu_client::Position;

use crate::checkpoints::position_of;
use crate::error::ReplicateError;
use crate::migrations::in_transaction;
use crate::observer::Observer;
use crate::postgres::{literal, quoted};
use crate::reader::Until;
use crate::replicator::Replicator;
use crate::session::{Parameters, Session};
use crate::shadow::{self, Shadow};

/// Moves every relation of the shadow to where the old one of its name is dropped, with the rights
/// that were granted on that.
const SWAP: &str = include_str!("sql/swap.sql");
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
const TAKE_OVER: [&str; 4] = [
    "DELETE FROM :own.event_parked WHERE subscriber_name = $1 AND $2::text IS NOT NULL",
    "UPDATE :own.event_parked SET subscriber_name = $1 WHERE subscriber_name = $2",
    "DELETE FROM :own.quipu_replicator_migrations WHERE projection = $1 AND $2::text IS NOT NULL",
    "UPDATE :own.quipu_replicator_migrations SET projection = $1 WHERE projection = $2",
];
const REMOVE: &str = "DELETE FROM :own.event_subscriptions WHERE subscriber_name = $1";

impl Replicator {
    /// Fills a projection anew beside the one that serves, and puts it in its place once it has
    /// caught up: in one transaction, after which whoever fills the projection goes on from where
    /// the new tables are. One that was interrupted goes on where it was.
    ///
    /// # Errors
    /// Why it cannot: the projection is as it was.
    pub async fn rebuild(
        &self,
        name: &str,
        observer: Arc<dyn Observer>,
    ) -> Result<Position, ReplicateError> {
        let shadow = Shadow::of(self, name, "rebuild")?;
        let held = shadow.hold(self).await?;
        let checkpoint_id = match shadow.find(&held, self).await? {
            Some(begun) => begun,
            None => shadow.make(&held, self).await?,
        };
        shadow.fill(self, checkpoint_id, Until::CaughtUp, observer).await?;
        let held = shadow.hold_on(self, held).await?;
        swap(&held, &shadow, checkpoint_id).await
    }
}

async fn swap(
    session: &Session,
    shadow: &Shadow,
    checkpoint_id: i64,
) -> Result<Position, ReplicateError> {
    in_transaction(session, async {
        shadow::check(session, &shadow.place, &shadow.label, checkpoint_id).await?;
        // First the checkpoint, then the tables, as in every batch: whoever fills the old tables
        // is done with them by then, and finds at the next batch that the checkpoint is not his.
        let position = take_checkpoint_over(session, shadow).await?;
        let swap = SWAP
            .replace(":shadow", &literal(shadow.schema()))
            .replace(":served", &literal(&shadow.place.schema));
        session.run("put the new tables in place of the old ones", &swap).await?;
        let names: Parameters<'_> = &[&shadow.projection.name(), &shadow.label];
        for sql in TAKE_OVER {
            session.execute("take over what belongs to it", &session.own(sql), names).await?;
        }
        let remove = session.own(REMOVE);
        session.execute("remove the checkpoint of the rebuild", &remove, &[&shadow.label]).await?;
        let drop = format!("DROP SCHEMA {} CASCADE", quoted(shadow.schema()));
        session.run("remove the empty schema", &drop).await?;
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
