//! [`Replicator`]: keeps projections filled from a log.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures::future::try_join_all;
use quipu_client::{EventStore, Position};
use tokio::sync::watch;

use crate::batch::BatchLimits;
use crate::checkpoints::position_of;
use crate::error::ReplicateError;
use crate::migrations::{self, Place};
use crate::observer::{Observer, Unobserved};
use crate::pipeline::{Pipeline, Setting, Task};
use crate::postgres::Postgres;
use crate::projection::Projection;
use crate::reader::Until;
use crate::session::Session;

/// Keeps projections in Postgres filled from a log, each event once in effect.
///
/// What a batch of events changes, and how far each projection has come, is written in one
/// transaction: whatever is killed, it goes on where the tables are. Projections that are at the
/// same place when it starts share a transaction; one that has to catch up does not hold up the
/// others.
pub struct Replicator {
    store: Arc<dyn EventStore>,
    postgres: Postgres,
    projections: Vec<Arc<dyn Projection>>,
    limits: BatchLimits,
    observer: Arc<dyn Observer>,
}

/// Why a replicator ended, where it did not fail as a whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Projections that have stopped, each with the reason.
    pub failed: Vec<(String, String)>,
}

impl Replicator {
    /// A replicator of this log. Nothing happens before [`Self::run`].
    pub fn new(
        store: Arc<dyn EventStore>,
        postgres: Postgres,
        projections: Vec<Arc<dyn Projection>>,
    ) -> Self {
        let (limits, observer) = (BatchLimits::default(), Arc::new(Unobserved));
        Self { store, postgres, projections, limits, observer }
    }

    /// With other limits of a batch than the default ones.
    #[must_use]
    pub fn with_limits(self, limits: BatchLimits) -> Self {
        Self { limits, ..self }
    }

    /// With somebody who is told what happens.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    pub(crate) fn store(&self) -> &Arc<dyn EventStore> {
        &self.store
    }

    pub(crate) fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Follows the log until `stop` resolves, or every projection has stopped.
    ///
    /// A Postgres that goes away is waited for, and so is a server of the log.
    ///
    /// # Errors
    /// Why it does not begin, or cannot go on without somebody mending something.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> Result<Summary, ReplicateError> {
        self.drive(Until::Stopped, stop).await
    }

    /// As [`Self::run`], and ends when everything that is in the log has been applied.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn catch_up(&self) -> Result<Summary, ReplicateError> {
        self.drive(Until::CaughtUp, std::future::pending()).await
    }

    async fn drive(
        &self,
        until: Until,
        stop: impl Future<Output = ()>,
    ) -> Result<Summary, ReplicateError> {
        let mut stop = pin!(stop);
        // Whoever holds a lock on the tables may hold it for long.
        let tasks = tokio::select! {
            tasks = self.begin() => tasks?,
            () = &mut stop => return Ok(Summary::default()),
        };
        let place = Place { schema: self.postgres.schema().to_owned(), shadow: None };
        let (stopper, stopped) = watch::channel(false);
        let pipelines = tasks.into_values().map(|tasks| {
            let (setting, place) = (self.setting(stopped.clone()), place.clone());
            tokio::spawn(Pipeline { setting, place, tasks, until }.run())
        });
        let pipelines: Vec<_> = pipelines.collect();
        let handles: Vec<_> = pipelines.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        let mut running = Box::pin(try_join_all(pipelines.into_iter().map(|pipeline| async {
            pipeline.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        })));
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = &mut stop => {
                stopper.send_replace(true);
                running.await
            }
        };
        // Where one cannot go on at all, the others end with it.
        handles.iter().for_each(tokio::task::AbortHandle::abort);
        let failed = ended?.into_iter().flat_map(|ended| ended.failed).collect();
        Ok(Summary { failed })
    }

    async fn begin(&self) -> Result<BTreeMap<Position, Vec<Task>>, ReplicateError> {
        self.make_tables().await?;
        self.by_checkpoint().await
    }

    /// Makes the tables of all projections, or brings them up to date.
    ///
    /// # Errors
    /// Why they cannot be made: nothing is changed of that projection then.
    pub async fn make_tables(&self) -> Result<(), ReplicateError> {
        let session = self.postgres.connect("migrations").await?;
        migrations::make_ready(&session, self.postgres.schema()).await?;
        let place = Place { schema: self.postgres.schema().to_owned(), shadow: None };
        for projection in &self.projections {
            migrations::migrate(&session, &place, &**projection, projection.name()).await?;
        }
        Ok(())
    }

    pub(crate) fn setting(&self, stop: watch::Receiver<bool>) -> Setting {
        Setting {
            store: Arc::clone(&self.store),
            postgres: self.postgres.clone(),
            limits: self.limits,
            observer: Arc::clone(&self.observer),
            stop,
        }
    }

    /// The projection of this name.
    pub(crate) fn projection(&self, name: &str) -> Result<&Arc<dyn Projection>, ReplicateError> {
        let found = self.projections.iter().find(|projection| projection.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.projections.iter().map(|it| it.name()).collect();
            let hint = format!("; there is {}", names.join(", "));
            ReplicateError::UnknownProjection { projection: name.to_owned(), hint }
        })
    }

    /// The projections, by where they are.
    async fn by_checkpoint(&self) -> Result<BTreeMap<Position, Vec<Task>>, ReplicateError> {
        let session = self.postgres.connect("checkpoints").await?;
        let mut tasks: BTreeMap<Position, Vec<Task>> = BTreeMap::new();
        for projection in &self.projections {
            let subscriber = projection.name().to_owned();
            let position = checkpoint(&session, &subscriber).await?.unwrap_or_default();
            let projection = Arc::clone(projection);
            let task = Task { projection, subscriber, checkpoint_id: None };
            tasks.entry(position).or_default().push(task);
        }
        Ok(tasks)
    }
}

/// How far a projection has come; `None` where nobody has begun.
pub(crate) async fn checkpoint(
    session: &Session,
    subscriber: &str,
) -> Result<Option<Position>, ReplicateError> {
    const FIND: &str =
        "SELECT last_processed_sequence FROM event_subscriptions WHERE subscriber_name = $1";
    let rows = session.query("read the checkpoints", FIND, &[&subscriber]).await?;
    Ok(rows.first().map(|row| position_of(row.get(0))))
}
