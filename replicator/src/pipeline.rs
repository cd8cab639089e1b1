//! Projections that are at about the same place, filled together: one reader, one connection, one
//! transaction a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quipu_client::{EventStore, Position, ReadError};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::applier::{Applier, Member};
use crate::batch::BatchLimits;
use crate::checkpoints::{self, Claim};
use crate::error::ReplicateError;
use crate::migrations::{self, EVENTS_RELATION, Place};
use crate::observer::Observer;
use crate::postgres::Postgres;
use crate::projection::Projection;
use crate::reader::{Reader, Until, watch_end};
use crate::session::Session;
use crate::shadow;

/// Batches that are folded and wait for Postgres.
const BATCHES_WAITING_MAX: usize = 1;
/// How long one that is to stop waits for what Postgres has begun.
const STOP_WAIT: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A projection that is to be filled, and under which name its checkpoint is kept.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) projection: Arc<dyn Projection>,
    pub(crate) subscriber: String,
    /// The checkpoint that was made with the tables, where they are beside those that serve.
    pub(crate) checkpoint_id: Option<i64>,
}

/// What pipelines share.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) postgres: Postgres,
    pub(crate) limits: BatchLimits,
    pub(crate) observer: Arc<dyn Observer>,
    /// Becomes true when everything is to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Fills projections.
pub(crate) struct Pipeline {
    pub(crate) setting: Setting,
    pub(crate) place: Place,
    pub(crate) tasks: Vec<Task>,
    pub(crate) until: Until,
}

/// How a pipeline ended, where nothing stood in its way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Projections that stopped, and why.
    pub(crate) failed: Vec<(String, String)>,
}

/// What one connection has come to.
#[derive(Default)]
struct Progress {
    /// The projections were taken over.
    is_ours: bool,
    has_applied: bool,
}

/// Aborts a task when it is dropped.
struct Helper(AbortHandle);

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Until it is to stop, and Postgres has had time to be done with what it has begun: whoever holds
/// a lock on a table may hold it for long. A batch that is cut off changes nothing.
async fn waited_in_vain(mut stop: watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
    tokio::time::sleep(STOP_WAIT).await;
}

impl Pipeline {
    /// Fills them until it is done, is told to stop, or all have failed; what passes is waited for.
    pub(crate) async fn run(mut self) -> Result<Ended, ReplicateError> {
        let (mut ended, mut pause, mut was_ours) = (Ended::default(), PAUSE_MIN, false);
        loop {
            let mut progress = Progress::default();
            let stop = self.setting.stop.clone();
            let connected = tokio::select! {
                connected = self.connected(&mut ended, &mut progress) => connected,
                () = waited_in_vain(stop) => return Ok(ended),
            };
            let problem = match connected {
                Ok(()) => return Ok(ended),
                Err(problem) if problem.is_passing() => problem,
                // Postgres has not noticed yet that the connection before is lost.
                Err(problem @ ReplicateError::AlreadyRunning { .. }) if was_ours => problem,
                Err(problem) => return Err(problem),
            };
            was_ours |= progress.is_ours;
            pause = if progress.has_applied { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            self.setting.observer.waiting(&problem, jittered);
            let mut stop = self.setting.stop.clone();
            tokio::select! {
                () = tokio::time::sleep(jittered) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(ended),
            }
        }
    }

    /// As long as one connection lasts.
    async fn connected(
        &mut self,
        ended: &mut Ended,
        progress: &mut Progress,
    ) -> Result<(), ReplicateError> {
        let names: Vec<&str> = self.tasks.iter().map(|task| task.subscriber.as_str()).collect();
        let purpose = names.join(", ");
        let session = self.setting.postgres.connect_to(&purpose, self.place.of_tables()).await?;
        let members = self.take(&session).await?;
        progress.is_ours = true;
        let end = Arc::new(AtomicU64::new(0));
        let watching = watch_end(Arc::clone(&self.setting.store), Arc::clone(&end));
        let _watching = Helper(tokio::spawn(watching).abort_handle());
        let reader = Reader {
            store: Arc::clone(&self.setting.store),
            members: (members.iter())
                .map(|it| (Arc::clone(&it.projection), it.checkpoint.position))
                .collect(),
            limits: self.setting.limits,
            until: self.until,
        };
        let (sender, mut batches) = mpsc::channel(BATCHES_WAITING_MAX);
        let mut reading = tokio::spawn(reader.run(sender));
        let _reading = Helper(reading.abort_handle());
        let mut applier = Applier::new(session, members, Arc::clone(&self.setting.observer));
        let mut stop = self.setting.stop.clone();
        let outcome = loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                _ = stop.wait_for(|stop| *stop) => break Ok(()),
            };
            let Some(batch) = batch else {
                break match (&mut reading).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(self.cannot_read(error)),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                };
            };
            let log_end = Position(end.load(Ordering::Relaxed)).max(batch.through);
            if let Err(error) = applier.apply(&batch, log_end).await {
                break Err(error);
            }
            progress.has_applied = true;
            if applier.all_failed() {
                break Ok(());
            }
        };
        let failed = applier.take_failed();
        self.tasks.retain(|task| failed.iter().all(|(name, _)| *name != task.subscriber));
        ended.failed.extend(failed);
        if outcome.is_ok() {
            applier.note_stopped().await?;
        }
        outcome
    }

    async fn take(&self, session: &Session) -> Result<Vec<Member>, ReplicateError> {
        if self.tasks.iter().any(|task| task.projection.reads_events()) {
            session.run("make the relation `events`", EVENTS_RELATION).await?;
        }
        let mut members = Vec::with_capacity(self.tasks.len());
        for Task { projection, subscriber, checkpoint_id } in &self.tasks {
            let event_type = projection.interest().event_type();
            let (log_id, id) = (self.setting.store.log_id(), *checkpoint_id);
            if let Some(id) = id {
                shadow::check(session, &self.place, subscriber, id).await?;
            }
            let claim = Claim { subscriber, event_type, log_id, id };
            let checkpoint = checkpoints::take(session, &self.place.schema, claim).await?;
            if id.is_none() {
                // After the epoch was raised: whoever rebuilds from now on raises it again.
                migrations::check(session, &**projection).await?;
            }
            members.push(Member::new(Arc::clone(projection), checkpoint));
        }
        Ok(members)
    }

    fn cannot_read(&self, error: ReadError) -> ReplicateError {
        let projection = || {
            let names: Vec<&str> = self.tasks.iter().map(|it| it.subscriber.as_str()).collect();
            names.join(", ")
        };
        match error {
            ReadError::PastEnd { given, end } => {
                ReplicateError::PastEnd { projection: projection(), given, end }
            }
            ReadError::OtherLog { given, actual } => {
                ReplicateError::OtherLog { projection: projection(), given, actual }
            }
            error => error.into(),
        }
    }
}
