//! How far each projection has come: rows of `event_subscriptions`, each with one owner at a time.
//!
//! An advisory lock keeps a second replicator out while the first is connected. The epoch fences
//! one that only believes it still is: whoever takes a projection over raises it, and a checkpoint
//! is moved only under the epoch it was taken with.

use std::time::Duration;

use quipu_client::{Position, Uuid};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::ReplicateError;
use crate::migrations::in_transaction;
use crate::session::Session;
use crate::sql_error::SqlError;

/// How long to wait for a lock: the connection of a replicator that was killed lingers.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The key of a projection's lock; `$1` is its schema and `$2` its subscriber.
macro_rules! lock_key {
    () => {
        "hashtextextended('quipu-replicator:' || $1 || ':' || $2, 0)"
    };
}
const LOCK: &str = concat!("SELECT pg_try_advisory_lock(", lock_key!(), ")");
/// Who holds a projection's lock.
pub(crate) const HOLDER: &str = concat!(
    "SELECT format('pid %s, %s%s', a.pid, a.application_name, ' from ' || a.client_addr)
       FROM pg_locks l JOIN pg_stat_activity a USING (pid)
      WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND ((l.classid::bigint << 32) | l.objid::bigint) = ",
    lock_key!()
);
const ADD: &str = "INSERT INTO :own.event_subscriptions \
        (subscriber_name, event_type, status, log_id) \
    SELECT $1::text, $2::text, 'stopped', $3::uuid \
    WHERE NOT EXISTS (SELECT 1 FROM :own.event_subscriptions WHERE subscriber_name = $1::text) \
    RETURNING id";
const FIND: &str = "SELECT last_processed_sequence, log_id, id FROM :own.event_subscriptions \
    WHERE subscriber_name = $1 FOR UPDATE";
const TAKE: &str = "UPDATE :own.event_subscriptions \
    SET epoch = epoch + 1, event_type = $2, status = 'running', updated_at = now() \
    WHERE subscriber_name = $1 RETURNING epoch";
const MOVE: &str = "UPDATE :own.event_subscriptions AS s
    SET last_processed_sequence = n.position, status = n.status, updated_at = now(),
        last_error = coalesce(n.problem, s.last_error), error_count = s.error_count + n.errors,
        lag_events = n.lag_events, lag_seconds = n.lag_seconds, events_per_second = $8
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[],
                $7::bigint[], $9::double precision[])
        AS n(name, epoch, position, status, problem, errors, lag_events, lag_seconds)
    WHERE s.subscriber_name = n.name AND s.epoch = n.epoch";

/// Which checkpoint is to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) subscriber: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) log_id: Uuid,
    /// The one that was made with tables of their own; `None` makes it where there is none.
    pub(crate) id: Option<i64>,
}

/// A checkpoint that this process owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) subscriber: String,
    pub(crate) epoch: i64,
    pub(crate) position: Position,
}

/// Where a checkpoint is moved to, and what is said with it.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) status: Status,
    /// What went wrong, where something did.
    pub(crate) problem: Option<String>,
    /// How many events could not be applied.
    pub(crate) errors: i64,
}

/// What stands in the column `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Running,
    Failed,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Failed => "failed",
        }
    }
}

/// How far the log is ahead, and how fast it is followed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lag {
    pub(crate) log_end: Position,
    pub(crate) seconds: f64,
    pub(crate) events_per_second: f64,
}

/// Takes a projection over: locks it and raises its epoch. Held until the connection ends.
pub(crate) async fn take(
    session: &Session,
    schema: &str,
    claim: Claim<'_>,
) -> Result<Checkpoint, ReplicateError> {
    let Claim { subscriber, event_type, log_id, id } = claim;
    if let Some(holder) = lock(session, schema, subscriber).await? {
        let projection = subscriber.to_owned();
        return Err(ReplicateError::AlreadyRunning { projection, holder });
    }
    in_transaction(session, async {
        if id.is_none() {
            add(session, claim).await?;
        }
        let find = session.own(FIND);
        let found = session.query("read the checkpoint", &find, &[&subscriber]).await?;
        let is_meant = |row: &&Row| id.is_none_or(|id| id == row.get::<_, i64>(2));
        let row = found.first().filter(is_meant).ok_or_else(|| absent(claim))?;
        let (position, given) = (position_of(row.get(0)), row.get::<_, Uuid>(1));
        if given != log_id {
            let (projection, actual) = (subscriber.to_owned(), log_id);
            return Err(ReplicateError::OtherLog { projection, given, actual });
        }
        let take = session.own(TAKE);
        let taken =
            session.query("take the checkpoint", &take, &[&subscriber, &event_type]).await?;
        let epoch = taken.first().ok_or_else(|| absent(claim))?.get(0);
        Ok(Checkpoint { subscriber: subscriber.to_owned(), epoch, position })
    })
    .await
}

/// Makes the checkpoint, at the beginning of the log, unless it is there; its id if it was made.
pub(crate) async fn add(session: &Session, claim: Claim<'_>) -> Result<Option<i64>, SqlError> {
    let Claim { subscriber, event_type, log_id, .. } = claim;
    let values: [&(dyn ToSql + Sync); 3] = [&subscriber, &event_type, &log_id];
    let added = session.query("make the checkpoint", &session.own(ADD), &values).await?;
    Ok(added.first().map(|row| row.get(0)))
}

/// Keeps every other rebuild and check of a projection out until the connection ends, whatever
/// schema they serve: what they fill is named after the projection alone.
pub(crate) async fn hold(session: &Session, projection: &str) -> Result<(), ReplicateError> {
    const ANY_SCHEMA: &str = "";
    match lock(session, ANY_SCHEMA, projection).await? {
        None => Ok(()),
        Some(holder) => {
            Err(ReplicateError::AlreadyBeside { projection: projection.to_owned(), holder })
        }
    }
}

/// Waits for a lock; who holds it, where that does not end in time.
async fn lock(
    session: &Session,
    schema: &str,
    subscriber: &str,
) -> Result<Option<String>, SqlError> {
    let deadline = tokio::time::Instant::now() + LOCK_WAIT;
    loop {
        let locked = session.query("lock the projection", LOCK, &[&schema, &subscriber]).await?;
        if locked.first().is_some_and(|row| row.get(0)) {
            return Ok(None);
        }
        if tokio::time::Instant::now() >= deadline {
            let holder = session.query("see who runs", HOLDER, &[&schema, &subscriber]).await?;
            let holder = holder.first().and_then(|row| row.get::<_, Option<String>>(0));
            return Ok(Some(holder.unwrap_or_else(|| "which has just ended".to_owned())));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Moves checkpoints, inside a transaction that is open: first of all in it, so that whoever has
/// lost one writes nothing, and so that rows are locked before tables in every transaction.
pub(crate) async fn advance(
    session: &Session,
    moves: &[Move],
    lag: Lag,
) -> Result<(), ReplicateError> {
    let names: Vec<&str> = moves.iter().map(|it| it.checkpoint.subscriber.as_str()).collect();
    let epochs: Vec<i64> = moves.iter().map(|it| it.checkpoint.epoch).collect();
    let positions: Vec<i64> = moves.iter().map(|it| sequence(it.checkpoint.position)).collect();
    let statuses: Vec<&str> = moves.iter().map(|it| it.status.word()).collect();
    let problems: Vec<Option<String>> = moves
        .iter()
        .map(|it| it.problem.as_ref().map(|text| text.replace('\0', "\u{fffd}")))
        .collect();
    let errors: Vec<i64> = moves.iter().map(|it| it.errors).collect();
    let behind = |it: &Move| lag.log_end.0.saturating_sub(it.checkpoint.position.0);
    let lag_events: Vec<i64> = moves.iter().map(|it| sequence(Position(behind(it)))).collect();
    let lag_seconds: Vec<f64> =
        lag_events.iter().map(|events| if *events > 0 { lag.seconds } else { 0.0 }).collect();
    let moved = session
        .execute(
            "move the checkpoints",
            &session.own(MOVE),
            &[
                &names,
                &epochs,
                &positions,
                &statuses,
                &problems,
                &errors,
                &lag_events,
                &lag.events_per_second,
                &lag_seconds,
            ],
        )
        .await?;
    if moved == moves.len() as u64 { Ok(()) } else { Err(fenced(&names.join(", "))) }
}

/// Removes a checkpoint: a rebuild or a check is done with it.
pub(crate) async fn remove(session: &Session, subscriber: &str) -> Result<(), SqlError> {
    const REMOVE: &str = "DELETE FROM :own.event_subscriptions WHERE subscriber_name = $1";
    const EMPTY: &str = "DELETE FROM :own.event_parked WHERE subscriber_name = $1";
    let (remove, empty) = (session.own(REMOVE), session.own(EMPTY));
    session.execute("remove the checkpoint", &remove, &[&subscriber]).await?;
    session.execute("remove parked events", &empty, &[&subscriber]).await.map(drop)
}

fn absent(claim: Claim<'_>) -> ReplicateError {
    match claim.id {
        Some(_) => ReplicateError::ShadowGone { projection: claim.subscriber.to_owned() },
        None => fenced(claim.subscriber),
    }
}

fn fenced(projection: &str) -> ReplicateError {
    ReplicateError::Fenced { projection: projection.to_owned() }
}

/// A position as a `BIGINT`.
pub(crate) fn sequence(position: Position) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}

/// A `BIGINT` as a position.
pub(crate) fn position_of(sequence: i64) -> Position {
    Position(u64::try_from(sequence).unwrap_or(0))
}
