//! The other half of a pipeline: applies batches, and narrows down what cannot be applied.

use std::sync::Arc;
use std::time::Duration;

use quipu_client::{Position, Record, json};
use tokio::time::Instant;

use crate::batch::{Batch, Failure, Folded, Outcome};
use crate::checkpoints::{Checkpoint, Lag, Move, Status, advance, sequence};
use crate::clock::seconds_since;
use crate::error::ReplicateError;
use crate::observer::{Committed, Observer};
use crate::projection::Projection;
use crate::session::Session;
use crate::sql_error::{Remedy, SqlError};

/// Over how long a rate is told.
const RATE_OVER: Duration = Duration::from_secs(1);
/// A deferred constraint is looked at where it was broken: at the commit it would fail for all.
const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";
const PARK: &str = "INSERT INTO :own.event_parked (subscriber_name, sequence_number, id, \
        aggregate_type, aggregate_id, event_type, error, event)
    SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], \
        $7::text[], $8::bytea[])";

/// A projection, and the checkpoint that this process owns.
pub(crate) struct Member {
    pub(crate) projection: Arc<dyn Projection>,
    pub(crate) checkpoint: Checkpoint,
    /// Why it has stopped, if it has.
    failed: Option<String>,
}

impl Member {
    pub(crate) fn new(projection: Arc<dyn Projection>, checkpoint: Checkpoint) -> Self {
        Self { projection, checkpoint, failed: None }
    }
}

/// Applies batches over one connection.
///
/// Invariants:
/// 1. A batch is one transaction: what the projections write, what they park, and their
///    checkpoints.
/// 2. `members[..].checkpoint.position` is what was committed last; it never goes back.
/// 3. A projection that has failed is not written any more.
pub(crate) struct Applier {
    session: Session,
    members: Vec<Member>,
    observer: Arc<dyn Observer>,
    rate: Rate,
}

/// Why a batch was not applied as it is.
enum Refusal {
    /// A projection cannot take it: it is worth looking closer.
    Projection,
    Other(ReplicateError),
}

impl Applier {
    pub(crate) fn new(session: Session, members: Vec<Member>, observer: Arc<dyn Observer>) -> Self {
        Self { session, members, observer, rate: Rate::new() }
    }

    /// Applies a batch to every projection that has not failed.
    pub(crate) async fn apply(
        &mut self,
        batch: &Batch,
        log_end: Position,
    ) -> Result<(), ReplicateError> {
        let recorded = batch.recorded();
        let lag = Lag {
            log_end,
            seconds: recorded.map_or(0.0, |(_, last)| seconds_since(last)),
            events_per_second: self.rate.with(batch.records.len()),
        };
        let outcomes = match self.as_it_is(batch, lag).await {
            Ok(outcomes) => outcomes,
            Err(Refusal::Projection) => self.one_by_one(batch, lag).await?,
            Err(Refusal::Other(error)) => return Err(error),
        };
        self.rate.add(batch.records.len());
        for (member, outcome) in self.members.iter_mut().zip(outcomes) {
            let Some(outcome) = outcome else { continue };
            member.checkpoint = outcome.checkpoint;
            let name = &member.checkpoint.subscriber;
            for parked in &outcome.parked {
                self.observer.parked(name, parked);
            }
            if let Some(problem) = outcome.problem {
                self.observer.failed(name, &problem);
                member.failed = Some(problem);
            }
        }
        self.observer.committed(&Committed {
            projections: &self.working(),
            events: batch.records.len(),
            through: batch.through,
            log_end,
            recorded,
            events_per_second: lag.events_per_second,
        });
        Ok(())
    }

    fn working(&self) -> Vec<String> {
        let working = self.members.iter().filter(|member| member.failed.is_none());
        working.map(|member| member.checkpoint.subscriber.clone()).collect()
    }

    /// Whether nothing is left to be filled.
    pub(crate) fn all_failed(&self) -> bool {
        self.members.iter().all(|member| member.failed.is_some())
    }

    /// Those that have failed, and why.
    pub(crate) fn take_failed(&mut self) -> Vec<(String, String)> {
        let failed = self.members.iter_mut().filter_map(|member| {
            Some((member.checkpoint.subscriber.clone(), member.failed.clone()?))
        });
        failed.collect()
    }

    /// Says in the checkpoints that nobody works on them any more.
    pub(crate) async fn note_stopped(&self) -> Result<(), ReplicateError> {
        const NOTE: &str = "UPDATE :own.event_subscriptions AS s \
            SET status = 'stopped', updated_at = now() \
            FROM unnest($1::text[], $2::bigint[]) AS n(name, epoch) \
            WHERE s.subscriber_name = n.name AND s.epoch = n.epoch AND s.status = 'running'";
        let names: Vec<&str> =
            self.members.iter().map(|it| it.checkpoint.subscriber.as_str()).collect();
        let epochs: Vec<i64> = self.members.iter().map(|it| it.checkpoint.epoch).collect();
        let note = self.session.own(NOTE);
        self.session.execute("note that it stops", &note, &[&names, &epochs]).await?;
        Ok(())
    }

    /// The whole batch at once: nearly always that is all there is to it.
    async fn as_it_is(&self, batch: &Batch, lag: Lag) -> Result<Vec<Option<Applied>>, Refusal> {
        let outcomes: Vec<Option<Applied>> = (self.members.iter().zip(&batch.folded))
            .map(|(member, folded)| Applied::of(member, &folded.outcome, batch.through))
            .collect();
        self.session.run("begin", "BEGIN").await?;
        let moves: Vec<Move> = outcomes.iter().flatten().map(Applied::as_move).collect();
        let applied = async {
            advance(&self.session, &moves, lag).await.map_err(Refusal::Other)?;
            for (member, folded) in self.members.iter().zip(&batch.folded) {
                if member.failed.is_none() {
                    folded.fold.apply(&self.session).await?;
                    self.park(member, &folded.outcome.parked).await?;
                }
            }
            Ok(self.session.run("commit", "COMMIT").await?)
        };
        if let Err(refusal) = applied.await {
            // Where the connection is lost, Postgres rolls back by itself.
            self.session.run("roll back", "ROLLBACK").await.ok();
            return Err(refusal);
        }
        Ok(outcomes)
    }

    /// Each projection behind a savepoint of its own, in parts where the whole cannot be applied.
    async fn one_by_one(
        &self,
        batch: &Batch,
        lag: Lag,
    ) -> Result<Vec<Option<Applied>>, ReplicateError> {
        self.session.run("begin", "BEGIN").await?;
        let working = || self.members.iter().filter(|member| member.failed.is_none());
        let fence: Vec<Move> = working().map(|it| Applied::unmoved(it).as_move()).collect();
        advance(&self.session, &fence, lag).await?;
        let mut outcomes = Vec::with_capacity(self.members.len());
        for member in &self.members {
            if member.failed.is_some() {
                outcomes.push(None);
                continue;
            }
            self.session.run("set a savepoint", "SAVEPOINT member").await?;
            let applied = match self.narrow(member, &batch.records).await {
                Ok(outcome) => {
                    self.park(member, &outcome.parked).await?;
                    Applied::of(member, &outcome, batch.through)
                }
                Err(error) if error.remedy() == Remedy::Wait => return Err(error.into()),
                // No event is to blame: it stops where it is.
                Err(error) => {
                    self.session.run("roll back", "ROLLBACK TO SAVEPOINT member").await?;
                    Some(Applied { problem: Some(error.to_string()), ..Applied::unmoved(member) })
                }
            };
            outcomes.push(applied);
        }
        let moves: Vec<Move> = outcomes.iter().flatten().map(Applied::as_move).collect();
        advance(&self.session, &moves, lag).await?;
        self.session.run("commit", "COMMIT").await?;
        Ok(outcomes)
    }

    /// Applies what can be applied, in order, halving what cannot until single events are left.
    async fn narrow(&self, member: &Member, records: &[Record]) -> Result<Outcome, SqlError> {
        let mut outcome = Outcome::default();
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            let projection = &*member.projection;
            let folded = Folded::of(projection, part, member.checkpoint.position);
            self.session.run("set a savepoint", "SAVEPOINT part").await?;
            let applied = match folded.fold.apply(&self.session).await {
                Ok(()) => self.session.run("check the constraints", CHECK).await,
                failed => failed,
            };
            match applied {
                Ok(()) => {
                    self.session.run("release the savepoint", "RELEASE SAVEPOINT part").await?;
                    outcome.parked.extend(folded.outcome.parked);
                    outcome.stopped = folded.outcome.stopped;
                }
                Err(error) if error.remedy() == Remedy::LeaveOut => {
                    // Both: those that stay open lie in each other, by the thousand.
                    const UNDO: &str = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";
                    self.session.run("roll back", UNDO).await?;
                    if let [record] = part {
                        let problem = error.to_string();
                        let failure = Failure { record: record.clone(), problem };
                        outcome.fail(failure, projection.on_failure());
                    } else {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                }
                Err(error) => return Err(error),
            }
            if outcome.stopped.is_some() {
                break;
            }
        }
        Ok(outcome)
    }

    async fn park(&self, member: &Member, parked: &[Failure]) -> Result<(), SqlError> {
        if parked.is_empty() {
            return Ok(());
        }
        let records = || parked.iter().map(|failure| &failure.record);
        let positions: Vec<i64> = records().map(|it| sequence(it.position())).collect();
        let ids: Vec<_> = records().map(Record::event_id).collect();
        let aggregate_types: Vec<&str> = records().map(Record::aggregate_type).collect();
        let aggregate_ids: Vec<&str> = records().map(Record::aggregate_id).collect();
        let event_types: Vec<&str> = records().map(Record::event_type).collect();
        let problems: Vec<String> =
            parked.iter().map(|failure| failure.problem.replace('\0', "\u{fffd}")).collect();
        let lines: Vec<Vec<u8>> = records().map(line).collect();
        let name = &member.checkpoint.subscriber;
        self.session
            .execute(
                "park events",
                &self.session.own(PARK),
                &[
                    name,
                    &positions,
                    &ids,
                    &aggregate_types,
                    &aggregate_ids,
                    &event_types,
                    &problems,
                    &lines,
                ],
            )
            .await
            .map(drop)
    }
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = Vec::new();
    json::write_record(record, &mut line);
    line
}

/// Where a batch brings one projection.
struct Applied {
    checkpoint: Checkpoint,
    parked: Vec<String>,
    problem: Option<String>,
}

impl Applied {
    /// `None` for a projection that has failed before.
    fn of(member: &Member, outcome: &Outcome, through: Position) -> Option<Self> {
        if member.failed.is_some() {
            return None;
        }
        let before = member.checkpoint.position;
        let reached = match &outcome.stopped {
            Some(failure) => failure.record.position().previous(),
            None => through,
        };
        Some(Self {
            checkpoint: Checkpoint { position: reached.max(before), ..member.checkpoint.clone() },
            parked: outcome.parked.iter().map(Failure::text).collect(),
            problem: outcome.stopped.as_ref().map(Failure::text),
        })
    }

    fn unmoved(member: &Member) -> Self {
        Self { checkpoint: member.checkpoint.clone(), parked: Vec::new(), problem: None }
    }

    fn as_move(&self) -> Move {
        let status = if self.problem.is_some() { Status::Failed } else { Status::Running };
        let errors = self.parked.len() + usize::from(self.problem.is_some());
        Move {
            checkpoint: self.checkpoint.clone(),
            status,
            problem: self.problem.clone().or_else(|| self.parked.last().cloned()),
            errors: i64::try_from(errors).unwrap_or(i64::MAX),
        }
    }
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        match error.remedy() {
            Remedy::Wait => Self::Other(error.into()),
            Remedy::LeaveOut | Remedy::Mend => Self::Projection,
        }
    }
}

/// Events a second, over the last second or so.
struct Rate {
    since: Instant,
    events: usize,
    last: f64,
}

impl Rate {
    fn new() -> Self {
        Self { since: Instant::now(), events: 0, last: 0.0 }
    }

    fn add(&mut self, events: usize) {
        self.events += events;
        if self.since.elapsed() >= RATE_OVER {
            self.last = self.with(0);
            (self.since, self.events) = (Instant::now(), 0);
        }
    }

    /// As it will be once so many more are applied.
    #[expect(clippy::cast_precision_loss, reason = "a rate is not exact")]
    fn with(&self, more: usize) -> f64 {
        if self.last > 0.0 && self.since.elapsed() < RATE_OVER {
            return self.last;
        }
        let seconds = self.since.elapsed().as_secs_f64().max(0.001);
        ((self.events + more) as f64 / seconds * 10.0).round() / 10.0
    }
}
