//! A projection filled anew while the old one serves, and put in its place in one transaction.

use std::sync::Arc;

use quipu_client::Position;

use crate::error::ReplicateError;
use crate::observer::Observer;
use crate::reader::Until;
use crate::replicator::Replicator;
use crate::session::Session;
use crate::shadow::Shadow;
use crate::swap;

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
        let checkpoint_id = self.begin_rebuild(&shadow, &held).await?;
        shadow.fill(self, checkpoint_id, Until::CaughtUp, observer).await?;
        let held = shadow.hold_on(self, held).await?;
        swap::swap(&held, &shadow, checkpoint_id).await
    }

    /// The checkpoint of the tables that are to be filled. Whether they can take the place of what
    /// serves is looked at before the whole log is read.
    async fn begin_rebuild(&self, shadow: &Shadow, held: &Session) -> Result<i64, ReplicateError> {
        if let Some(begun) = shadow.find(held, self).await? {
            return swap::check(held, shadow).await.map(|()| begun);
        }
        let made = shadow.make(held, self).await?;
        if let Err(refused) = swap::check(held, shadow).await {
            shadow.remove(held).await?;
            return Err(refused);
        }
        Ok(made)
    }
}
