//! Whether a projection's tables are what the log gives.

use std::sync::Arc;
use std::time::Duration;

use quipu_client::{EventStore, Position, Uuid};
use tokio::time::{Instant, sleep};

use crate::checkpoints::position_of;
use crate::difference::{Difference, first_difference, tables_of};
use crate::error::ReplicateError;
use crate::observer::Observer;
use crate::reader::{Until, last_position};
use crate::replicator::Replicator;
use crate::session::Session;
use crate::shadow::Shadow;

/// How long a log may be behind the tables: one that is read beside its writer shows later what a
/// replicator has had from that.
const BEHIND_MAX: Duration = Duration::from_secs(5);
const LOOK_PAUSE: Duration = Duration::from_millis(100);

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
    let given = position_of(row.get(0));
    match end_past(&**replicator.store(), given).await? {
        end if end < given => Err(ReplicateError::PastEnd { projection, given, end }),
        _ => Ok(given),
    }
}

/// The end of the log, once it is not before this position any more, or has been for long.
async fn end_past(store: &dyn EventStore, position: Position) -> Result<Position, ReplicateError> {
    let deadline = Instant::now() + BEHIND_MAX;
    loop {
        let end = last_position(store).await?;
        if end >= position || Instant::now() >= deadline {
            return Ok(end);
        }
        sleep(LOOK_PAUSE).await;
    }
}
