//! Whether a projection's tables are what the log gives.

use std::sync::Arc;

use quipu_client::Position;

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
        let served = self.postgres().connect(&format!("verify {name}")).await?;
        let through = begin(&served, self, name).await?;
        let session = shadow.connect(self).await?;
        shadow.remove(&session).await?;
        shadow.make(self).await?;
        shadow.fill(self, Until::Position(through), observer).await?;
        let schema = self.postgres().schema();
        let tables = tables_of(&session, shadow.schema()).await?;
        let mut difference = None;
        for table in &tables {
            let filled = (&session, shadow.schema());
            difference = first_difference((&served, schema), filled, table).await?;
            if difference.is_some() {
                break;
            }
        }
        shadow.remove(&session).await?;
        Ok(Verified { through, tables, difference })
    }
}

/// From here on the session sees the tables as they are now; up to where they are filled.
async fn begin(
    session: &Session,
    replicator: &Replicator,
    name: &str,
) -> Result<Position, ReplicateError> {
    const FIND: &str = "SELECT last_processed_sequence, log_id FROM event_subscriptions \
        WHERE subscriber_name = $1";
    const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    session.run("take a snapshot", SNAPSHOT).await?;
    let rows = session.query("read the checkpoint", FIND, &[&name]).await?;
    let Some(row) = rows.first() else {
        let hint = " in this database: nobody has filled it yet".to_owned();
        return Err(ReplicateError::UnknownProjection { projection: name.to_owned(), hint });
    };
    let (given, actual) = (row.get::<_, quipu_client::Uuid>(1), replicator.store().log_id());
    if given != actual {
        let projection = name.to_owned();
        return Err(ReplicateError::OtherLog { projection, given, actual });
    }
    Ok(position_of(row.get(0)))
}
