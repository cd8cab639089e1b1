//! When snapshots are taken, and the work of taking them: off the path of whoever saves.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use blocking::unblock;
use futures::FutureExt;
use futures::future::{AbortHandle, BoxFuture, abortable};
use futures_lite::future::block_on;
use parking_lot::{Condvar, Mutex};
use quipu_types::{AggregateKey, Version};

use crate::snapshot::SnapshotError;

/// How often a snapshot is taken unless told otherwise, in events.
const EVERY: u64 = 100;
/// Aggregates that wait for theirs; beyond it they wait for their next load or save.
const WAITING_MAX: usize = 1_024;
/// Aggregates of which it is known that their state cannot be kept.
const HOPELESS_MAX: usize = 1_024;

/// Takes snapshots of one aggregate after the other, on a thread of its own while there are any to
/// take. Cheap to clone, and to share between repositories: all clones are one queue.
///
/// A save or a load that brings an aggregate past a multiple of `every` puts it into the queue, and
/// goes on. When the last clone is dropped, with the repositories that hold one, the queue is
/// forgotten: nothing is lost but time.
#[derive(Clone)]
pub struct Snapshots {
    shared: Arc<Shared>,
    /// Held for its end.
    _owner: Arc<Owner>,
}

/// What became of the snapshots that were due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Stored.
    pub taken: u64,
    /// Not stored, for `last_error` or others before it.
    pub failed: u64,
    /// Not even tried, because too many were waiting.
    pub skipped: u64,
    /// Why the last one that failed did.
    pub last_error: Option<SnapshotError>,
}

/// Takes a snapshot if it is still due; says whether it was.
pub(crate) type Job =
    Box<dyn FnOnce() -> BoxFuture<'static, Result<bool, SnapshotError>> + Send + 'static>;

/// When one is due.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    every: u64,
}

impl Rule {
    /// Whether an aggregate whose kept state is of version `known` has now passed a multiple.
    pub(crate) fn is_due(self, known: Version, reached: Version) -> bool {
        self.multiple(reached) > self.multiple(known)
    }

    fn multiple(self, version: Version) -> u64 {
        version.0 / self.every
    }
}

struct Shared {
    rule: Rule,
    state: Mutex<State>,
    idle: Condvar,
}

/// An aggregate that waits for its snapshot.
struct Due {
    key: AggregateKey,
    multiple: u64,
    job: Job,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Due>,
    waiting: HashSet<AggregateKey>,
    /// Those whose state could not be kept, and by which multiple: it is tried again at the next.
    hopeless: HashMap<AggregateKey, u64>,
    is_running: bool,
    is_closed: bool,
    under_way: Option<AbortHandle>,
    counts: SnapshotCounts,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self::every(EVERY)
    }
}

impl Snapshots {
    /// One each time that an aggregate passes a multiple of so many events; at least 1.
    #[must_use]
    pub fn every(events: u64) -> Self {
        let (state, idle) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { rule: Rule { every: events.max(1) }, state, idle });
        Self { _owner: Arc::new(Owner(Arc::clone(&shared))), shared }
    }

    /// What became of those that were due.
    pub fn counts(&self) -> SnapshotCounts {
        self.shared.state.lock().counts.clone()
    }

    /// Waits until nothing is waiting or under way.
    pub async fn settled(&self) {
        let shared = Arc::clone(&self.shared);
        unblock(move || shared.wait(&mut shared.state.lock())).await;
    }

    pub(crate) fn rule(&self) -> Rule {
        self.shared.rule
    }

    /// Puts an aggregate that has reached a version into the queue, unless it is there or its
    /// state is known not to be one that can be kept.
    pub(crate) fn offer(&self, key: &AggregateKey, reached: Version, job: impl FnOnce() -> Job) {
        let multiple = self.shared.rule.multiple(reached);
        let mut state = self.shared.state.lock();
        let is_hopeless = state.hopeless.get(key).is_some_and(|failed| multiple <= *failed);
        if state.is_closed || is_hopeless || state.waiting.contains(key) {
            return;
        }
        if state.queue.len() >= WAITING_MAX {
            state.counts.skipped += 1;
            return;
        }
        state.waiting.insert(key.clone());
        state.queue.push_back(Due { key: key.clone(), multiple, job: job() });
        let starts = !std::mem::replace(&mut state.is_running, true);
        drop(state);
        if starts {
            let shared = Arc::clone(&self.shared);
            unblock(move || shared.run()).detach();
        }
    }
}

impl State {
    /// Until it reaches the next multiple. Forgotten is forgotten: it costs another try.
    fn give_up(&mut self, key: AggregateKey, multiple: u64) {
        if self.hopeless.len() >= HOPELESS_MAX {
            self.hopeless.clear();
        }
        self.hopeless.insert(key, multiple);
    }
}

impl Shared {
    fn run(&self) {
        while let Some(Due { key, multiple, job }) = self.next() {
            // A state is a host's code: its panic must not end the queue.
            let taken = AssertUnwindSafe(job()).catch_unwind();
            let taken = taken.map(|taken| taken.unwrap_or(Err(SnapshotError::Panicked)));
            let (taking, handle) = abortable(taken);
            {
                let mut state = self.state.lock();
                if state.is_closed {
                    continue;
                }
                state.under_way = Some(handle);
            }
            let taken = block_on(taking);
            let mut state = self.state.lock();
            state.under_way = None;
            state.waiting.remove(&key);
            match taken {
                Ok(Ok(true)) => state.counts.taken += 1,
                Ok(Err(error)) => {
                    if error.is_final() {
                        state.give_up(key, multiple);
                    }
                    state.counts.failed += 1;
                    state.counts.last_error = Some(error);
                }
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }

    fn next(&self) -> Option<Due> {
        let mut state = self.state.lock();
        let next = state.queue.pop_front().filter(|_| !state.is_closed);
        if next.is_none() {
            state.is_running = false;
            drop(state);
            self.idle.notify_all();
        }
        next
    }

    fn wait(&self, state: &mut parking_lot::MutexGuard<'_, State>) {
        self.idle.wait_while(state, |state| state.is_running);
    }
}

/// Ends the work with the last clone, so that the log is not held any longer.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        let forgotten = std::mem::take(&mut state.queue);
        if let Some(handle) = state.under_way.take() {
            handle.abort();
        }
        self.0.wait(&mut state);
        drop(state);
        drop(forgotten);
    }
}
