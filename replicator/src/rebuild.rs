//! A projection filled anew while the old one serves, and put in its place in one transaction.

use std::sync::Arc;

use quipu_client::Position;

use crate::checkpoints::position_of;
use crate::error::ReplicateError;
use crate::migrations::in_transaction;
use crate::observer::Observer;
use crate::postgres::quoted;
use crate::reader::Until;
use crate::replicator::Replicator;
use crate::session::Session;
use crate::shadow::Shadow;

/// Moves every relation of the shadow to where the old one of its name is dropped, with the rights
/// that were granted on that.
const SWAP: &str = include_str!("sql/swap.sql");
const FENCE: &str = "UPDATE event_subscriptions AS s
    SET last_processed_sequence = n.last_processed_sequence, log_id = n.log_id,
        epoch = s.epoch + 1, last_error = NULL,
        status = CASE s.status WHEN 'failed' THEN 'stopped' ELSE s.status END, updated_at = now()
    FROM event_subscriptions AS n
    WHERE s.subscriber_name = $1 AND n.subscriber_name = $2
    RETURNING s.last_processed_sequence";
const ADD: &str = "INSERT INTO event_subscriptions
        (subscriber_name, event_type, last_processed_sequence, status, log_id)
    SELECT $1, event_type, last_processed_sequence, 'stopped', log_id
    FROM event_subscriptions WHERE subscriber_name = $2
    RETURNING last_processed_sequence";
const TAKE_OVER: [&str; 4] = [
    "DELETE FROM event_parked WHERE subscriber_name = $1 AND $2::text IS NOT NULL",
    "UPDATE event_parked SET subscriber_name = $1 WHERE subscriber_name = $2",
    "DELETE FROM quipu_replicator_migrations WHERE projection = $1 AND $2::text IS NOT NULL",
    "UPDATE quipu_replicator_migrations SET projection = $1 WHERE projection = $2",
];
const REMOVE: &str = "DELETE FROM event_subscriptions WHERE subscriber_name = $1";

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
        match shadow.make(self).await {
            // An earlier rebuild was interrupted, and is of no use any more.
            Err(ReplicateError::Redefined { .. } | ReplicateError::NewerTables { .. }) => {
                self.start_over(&shadow).await?;
            }
            made => made?,
        }
        match shadow.fill(self, Until::CaughtUp, Arc::clone(&observer)).await {
            Err(ReplicateError::OtherLog { .. } | ReplicateError::PastEnd { .. }) => {
                self.start_over(&shadow).await?;
                shadow.fill(self, Until::CaughtUp, observer).await?;
            }
            filled => filled?,
        }
        let session = self.postgres().connect(&format!("rebuild {name}")).await?;
        swap(&session, &shadow, name).await
    }

    async fn start_over(&self, shadow: &Shadow) -> Result<(), ReplicateError> {
        let session = shadow.connect(self).await?;
        shadow.remove(&session).await?;
        shadow.make(self).await
    }
}

async fn swap(session: &Session, shadow: &Shadow, name: &str) -> Result<Position, ReplicateError> {
    in_transaction(session, async {
        // First the checkpoint, then the tables, as in every batch: whoever fills the old tables
        // is done with them by then, and finds at the next batch that the checkpoint is not his.
        let names: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&name, &shadow.label];
        let mut rows = session.query("take the checkpoint over", FENCE, &names).await?;
        if rows.is_empty() {
            rows = session.query("make the checkpoint", ADD, &names).await?;
        }
        let swap = SWAP
            .replace(":shadow", &literal(shadow.schema()))
            .replace(":served", &literal(&shadow.place.schema));
        session.run("put the new tables in place of the old ones", &swap).await?;
        for sql in TAKE_OVER {
            session.execute("take over what belongs to it", sql, &names).await?;
        }
        session.execute("remove the checkpoint of the rebuild", REMOVE, &[&shadow.label]).await?;
        let drop = format!("DROP SCHEMA {} CASCADE", quoted(shadow.schema()));
        session.run("remove the empty schema", &drop).await?;
        Ok(rows.first().map(|row| position_of(row.get(0))).unwrap_or_default())
    })
    .await
}

/// A text as SQL spells it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
