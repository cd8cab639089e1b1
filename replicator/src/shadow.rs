//! Tables filled beside those that are served: for a rebuild, and to check against.

use std::sync::Arc;

use tokio::sync::watch;

use crate::checkpoints;
use crate::error::ReplicateError;
use crate::migrations::{Place, forget, make_ready, migrate};
use crate::observer::Observer;
use crate::pipeline::{Pipeline, Setting, Task};
use crate::postgres::quoted;
use crate::projection::Projection;
use crate::reader::Until;
use crate::replicator::Replicator;
use crate::session::Session;
use crate::sql_error::SqlError;

/// A projection's tables in a schema of their own.
pub(crate) struct Shadow {
    pub(crate) projection: Arc<dyn Projection>,
    /// Under which its checkpoint and its migrations are kept meanwhile.
    pub(crate) label: String,
    pub(crate) place: Place,
}

impl Shadow {
    /// The shadow of a projection for this purpose.
    pub(crate) fn of(
        replicator: &Replicator,
        name: &str,
        purpose: &str,
    ) -> Result<Self, ReplicateError> {
        let projection = Arc::clone(replicator.projection(name)?);
        let schema = replicator.postgres().schema().to_owned();
        let shadow = Some(format!("quipu_{purpose}_{name}"));
        let label = format!("{name} ({purpose})");
        Ok(Self { projection, label, place: Place { schema, shadow } })
    }

    pub(crate) fn schema(&self) -> &str {
        self.place.shadow.as_deref().unwrap_or(&self.place.schema)
    }

    /// Makes its tables, unless they are there.
    pub(crate) async fn make(&self, replicator: &Replicator) -> Result<(), ReplicateError> {
        let served = replicator.postgres().connect("migrations").await?;
        make_ready(&served, &self.place.schema).await?;
        let session = self.connect(replicator).await?;
        migrate(&session, &self.place, &*self.projection, &self.label).await
    }

    pub(crate) async fn connect(&self, replicator: &Replicator) -> Result<Session, ReplicateError> {
        replicator.postgres().connect_to(&self.label, &self.place.schemas()).await
    }

    /// Fills them from where they are.
    pub(crate) async fn fill(
        &self,
        replicator: &Replicator,
        until: Until,
        observer: Arc<dyn Observer>,
    ) -> Result<(), ReplicateError> {
        // Kept to the end: without its sender, the pipeline would be told to stop.
        let (_never, stop) = watch::channel(false);
        let setting = Setting { observer, ..replicator.setting(stop) };
        let task =
            Task { projection: Arc::clone(&self.projection), subscriber: self.label.clone() };
        let place = self.place.clone();
        let ended = Pipeline { setting, place, tasks: vec![task], until }.run().await?;
        match ended.failed.into_iter().next() {
            None => Ok(()),
            Some((projection, problem)) => Err(ReplicateError::Failed { projection, problem }),
        }
    }

    /// Removes all of it.
    pub(crate) async fn remove(&self, session: &Session) -> Result<(), SqlError> {
        let schema = quoted(self.schema());
        let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
        session.run("remove the tables filled beside", &drop).await?;
        checkpoints::remove(session, &self.label).await?;
        forget(session, &self.label).await
    }
}
