//! Whether a projection's tables are what the log gives.

use std::sync::Arc;

use quipu_client::{Position, Uuid};

use crate::checkpoints::position_of;
use crate::difference::{Difference, first_difference, tables_of};
use crate::error::ReplicateError;
use crate::observer::Observer;
use crate::reader::Until;
use crate::replicator::Replicator;
use crate::session::Session;
use crate::shadow::Shadow;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Up to where the tables were filled when they were looked at.
    pub through: Position,
    /// The tables that were compared.
    pub tables: Vec<String>,
    /// The first difference.
    pub difference: Option<Difference>,
}

impl Replicator {
    /// Compares a projection's tables with a fold of the log into tables of their own, up to the
    /// position that the projection has reached. The projection may be running: it is looked at as
    /// it was when the check began.
    ///
    /// # Errors
    /// Why they cannot be compared.
    pub async fn verify(
        &self,
        name: &str,
        observer: Arc<dyn Observer>,
    ) -> Result<Verified, ReplicateError> {
        let shadow = Shadow::of(self, name, "verify")?;
        let held = shadow.hold(self).await?;
        // Before anything is made.
        reached(&held, self, name).await?;
        let checkpoint_id = shadow.make(&held, self).await?;
        let verified = self.compare(&shadow, &held, checkpoint_id, observer).await;
        let removed = async {
            held.run("give the snapshot up", "ROLLBACK").await?;
            shadow.remove(&held).await
        };
        let removed = removed.await;
        let verified = verified?;
        removed.map(|()| verified)
    }

    async fn compare(
        &self,
        shadow: &Shadow,
        held: &Session,
        checkpoint_id: i64,
        observer: Arc<dyn Observer>,
    ) -> Result<Verified, ReplicateError> {
        // From here on this connection sees the tables as they are now.
        const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        held.run("take a snapshot", SNAPSHOT).await?;
        let through = reached(held, self, shadow.projection.name()).await?;
        shadow.fill(self, checkpoint_id, Until::Position(through), observer).await?;
        let filled = shadow.connect(self).await?;
        let tables = tables_of(&filled, shadow.schema()).await?;
        let (served, filled) = ((held, &*shadow.place.schema), (&filled, shadow.schema()));
        let mut difference = None;
        for table in &tables {
            difference = first_difference(served, filled, table).await?;
            if difference.is_some() {
                break;
            }
        }
        Ok(Verified { through, tables, difference })
    }
}

/// Up to where the projection is filled.
async fn reached(
    session: &Session,
    replicator: &Replicator,
    name: &str,
) -> Result<Position, ReplicateError> {
    const FIND: &str = "SELECT last_processed_sequence, log_id FROM :own.event_subscriptions \
        WHERE subscriber_name = $1";
    let rows = session.query("read the checkpoint", &session.own(FIND), &[&name]).await?;
    let projection = name.to_owned();
    let Some(row) = rows.first() else {
        let hint = " in this database: nobody has filled it yet".to_owned();
        return Err(ReplicateError::UnknownProjection { projection, hint });
    };
    let (given, actual) = (row.get::<_, Uuid>(1), replicator.store().log_id());
    if given != actual {
        return Err(ReplicateError::OtherLog { projection, given, actual });
    }
    Ok(position_of(row.get(0)))
}
