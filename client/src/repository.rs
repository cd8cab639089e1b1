//! Aggregates out of a log and back into it.

use std::marker::PhantomData;
use std::sync::{Arc, Weak};

use futures::FutureExt;
use quipu_types::{AggregateKey, Append, AppendOutcome, Filter, ReadRequest, Version};

use crate::aggregates::Aggregate;
use crate::context::EventContext;
use crate::folded::{At, Folded};
use crate::repository_error::{ExecuteError, LoadError, SaveError};
use crate::root::Root;
use crate::save::{retry_conflicts, save_all};
use crate::snapshot::{SnapshotCodec, SnapshotError, Snapshotted};
use crate::snapshots::{Job, Rule, Snapshots};
use crate::stamps::{Stamps, SystemStamps};
use crate::store::EventStore;

/// How often a decision is tried again after a conflict.
const CONFLICT_RETRIES: u32 = 8;

/// The aggregates of one type in a log. Cheap to clone.
///
/// ```
/// # use std::sync::Arc;
/// # use quipu_client::*;
/// # #[derive(Default)] struct Door { is_open: bool }
/// # impl Aggregate for Door {
/// #     const TYPE: &'static str = "Door";
/// #     type Event = UntypedEvent;
/// #     fn apply(&mut self, event: &UntypedEvent) -> Result<(), Inapplicable> {
/// #         self.is_open = event.event_type == "Opened";
/// #         Ok(())
/// #     }
/// # }
/// # #[derive(Debug)] struct AlreadyOpen;
/// # impl Door {
/// #     fn open(&self) -> Result<Vec<UntypedEvent>, AlreadyOpen> {
/// #         let (event_type, data) = ("Opened".to_owned(), ().into());
/// #         let opened = UntypedEvent { event_type, schema_version: 1, data };
/// #         if self.is_open { Err(AlreadyOpen) } else { Ok(vec![opened]) }
/// #     }
/// # }
/// # #[cfg(feature = "embedded")]
/// # futures::executor::block_on(async {
/// # let folder = tempfile::tempdir().unwrap();
/// # let store = Embedded::open(folder.path(), Options::default()).unwrap();
/// let doors = Repository::<_, Door>::new(Arc::new(store));
/// let context = EventContext::new().correlated("morning");
/// doors.execute("front", &context, Door::open).await.unwrap();
/// assert!(doors.load("front").await.unwrap().state().is_open);
/// let before = doors.state_at("front", At::Version(Version(0))).await.unwrap();
/// assert!(!before.state.is_open);
/// # });
/// ```
pub struct Repository<S: ?Sized, A> {
    store: Arc<S>,
    stamps: Arc<dyn Stamps>,
    conflict_retries: u32,
    kept: Option<Arc<Kept<A>>>,
    aggregates: PhantomData<fn() -> A>,
}

/// How states of these aggregates are kept.
struct Kept<A> {
    codec: SnapshotCodec<A>,
    snapshots: Snapshots,
    /// Makes the work of taking one.
    job: Box<dyn Fn(&AggregateKey) -> Job + Send + Sync>,
}

/// What came of a decision.
#[derive(Debug)]
pub struct Decided<A: Aggregate> {
    /// The aggregate after it.
    pub root: Root<A>,
    /// What was stored; `None` if the decision gave no events.
    pub outcome: Option<AppendOutcome>,
}

impl<S: EventStore + ?Sized, A: Aggregate> Repository<S, A> {
    /// The aggregates of this type in a log.
    pub fn new(store: Arc<S>) -> Self {
        let (stamps, kept, aggregates) = (Arc::new(SystemStamps), None, PhantomData);
        Self { store, stamps, conflict_retries: CONFLICT_RETRIES, kept, aggregates }
    }

    /// With another source of ids and times than this machine.
    #[must_use]
    pub fn with_stamps(self, stamps: Arc<dyn Stamps>) -> Self {
        Self { stamps, ..self }
    }

    /// With so many retries of a decision after a conflict; 8 by default.
    #[must_use]
    pub fn with_conflict_retries(self, conflict_retries: u32) -> Self {
        Self { conflict_retries, ..self }
    }

    /// With snapshots: loading reads the newest one, and only the events after it.
    #[must_use]
    pub fn with_snapshots(self, snapshots: &Snapshots) -> Self
    where
        S: 'static,
        A: Snapshotted,
    {
        let (store, taking) = (Arc::downgrade(&self.store), snapshots.rule());
        let job = Box::new(move |key: &AggregateKey| -> Job {
            let (store, key) = (Weak::clone(&store), key.clone());
            Box::new(move || {
                async move {
                    let Some(store) = store.upgrade() else { return Ok(false) };
                    take_snapshot::<S, A>(store, &key, taking).await
                }
                .boxed()
            })
        });
        let (codec, snapshots) = (SnapshotCodec::default(), snapshots.clone());
        Self { kept: Some(Arc::new(Kept { codec, snapshots, job })), ..self }
    }

    /// The aggregate as it is now; at version 0 if it was never written.
    ///
    /// # Errors
    /// That a record cannot be read, is no event of it, or does not belong into its state.
    pub async fn load(&self, aggregate_id: &str) -> Result<Root<A>, LoadError> {
        let key = AggregateKey::new(A::TYPE, aggregate_id);
        let kept = self.newest_kept(&key, None).await;
        let known = kept.version;
        let folded = self.fold(&key, kept, None).await?;
        self.note(&key, known, folded.version);
        Ok(Root::loaded(key, folded))
    }

    /// The aggregate as it was.
    ///
    /// # Errors
    /// As [`Self::load`], up to that moment; and that it has never reached the version asked for.
    pub async fn state_at(&self, aggregate_id: &str, at: At) -> Result<Folded<A>, LoadError> {
        let key = AggregateKey::new(A::TYPE, aggregate_id);
        let kept = self.newest_kept(&key, Some(at)).await;
        let folded = self.fold(&key, kept, Some(at)).await?;
        match at {
            At::Version(given) if given > folded.version => {
                Err(LoadError::NoSuchVersion { key, given, actual: folded.version })
            }
            _ => Ok(folded),
        }
    }

    /// Saves what the aggregate has raised, if nobody has written to it since it was loaded.
    /// `None` if it has raised nothing.
    ///
    /// # Errors
    /// As [`save_all`].
    pub async fn save(
        &self,
        root: &mut Root<A>,
        context: &EventContext,
    ) -> Result<Option<AppendOutcome>, SaveError> {
        let before = root.version();
        let outcome = save_all(&*self.store, &*self.stamps, context, &mut [root]).await?;
        self.note(root.key(), before, root.version());
        Ok(outcome)
    }

    /// Loads, decides and saves; decides again on the new state if somebody else was faster.
    ///
    /// To be able to save again after an unknown outcome, load, raise and save yourself.
    ///
    /// # Errors
    /// What the aggregate refused, or what failed.
    pub async fn execute<R>(
        &self,
        aggregate_id: &str,
        context: &EventContext,
        decide: impl Fn(&A) -> Result<Vec<A::Event>, R>,
    ) -> Result<Decided<A>, ExecuteError<R>> {
        let attempt = || self.execute_once(aggregate_id, context, &decide);
        retry_conflicts(self.conflict_retries, attempt).await
    }

    async fn execute_once<R>(
        &self,
        aggregate_id: &str,
        context: &EventContext,
        decide: &impl Fn(&A) -> Result<Vec<A::Event>, R>,
    ) -> Result<Decided<A>, ExecuteError<R>> {
        let mut root = self.load(aggregate_id).await.map_err(ExecuteError::Load)?;
        let events = decide(root.state()).map_err(ExecuteError::Refused)?;
        if let Err(reason) = root.raise_all(events) {
            return Err(ExecuteError::Contradiction { key: root.key().clone(), reason });
        }
        let outcome = self.save(&mut root, context).await.map_err(ExecuteError::Save)?;
        Ok(Decided { root, outcome })
    }

    async fn newest_kept(&self, key: &AggregateKey, at: Option<At>) -> Folded<A> {
        match &self.kept {
            Some(kept) => kept.codec.newest(&*self.store, key, at).await,
            None => Folded::default(),
        }
    }

    /// An aggregate whose last kept state may be `kept` is now at `reached`.
    fn note(&self, key: &AggregateKey, known: Version, reached: Version) {
        if let Some(kept) = &self.kept
            && kept.snapshots.rule().is_due(known, reached)
        {
            kept.snapshots.offer(key, reached, || (kept.job)(key));
        }
    }

    /// Folds what follows `folded`: the whole history, or what a kept state does not cover.
    async fn fold(
        &self,
        key: &AggregateKey,
        mut folded: Folded<A>,
        until: Option<At>,
    ) -> Result<Folded<A>, LoadError> {
        let from = Some(folded.version.next().0);
        let filter = Filter::aggregate(key.clone());
        let mut history = self.store.read(ReadRequest { filter, from, ..Default::default() });
        loop {
            let page = history.next_batch().await?;
            if page.is_empty() {
                return Ok(folded);
            }
            for record in &page {
                if until.is_some_and(|at| !at.includes(record)) {
                    return Ok(folded);
                }
                folded.take(key, record)?;
            }
        }
    }
}

impl<S: ?Sized, A> Clone for Repository<S, A> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            stamps: Arc::clone(&self.stamps),
            conflict_retries: self.conflict_retries,
            kept: self.kept.clone(),
            aggregates: PhantomData,
        }
    }
}

/// Keeps the state as it is now, if that is still due.
async fn take_snapshot<S: EventStore + ?Sized, A: Snapshotted>(
    store: Arc<S>,
    key: &AggregateKey,
    rule: Rule,
) -> Result<bool, SnapshotError> {
    let codec = SnapshotCodec::<A>::default();
    let kept = codec.newest(&*store, key, None).await;
    let known = kept.version;
    let folded = Repository::<S, A>::new(Arc::clone(&store)).fold(key, kept, None).await?;
    if !rule.is_due(known, folded.version) {
        return Ok(false);
    }
    let event = codec.event(key, &folded, SystemStamps.next())?;
    store.append_system(Append::any(vec![event])).await?;
    Ok(true)
}
