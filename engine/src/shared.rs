//! What the sequencer, the readers and the background threads of one log share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use quipu_types::{Corruption, Uuid};

use crate::clock::{Clock, Entropy};
use crate::commit::inbox::Inbox;
use crate::commit::watermark::CommitWatermark;
use crate::histogram::{Distribution, Histogram};
use crate::host::tell;
use crate::index::indexer::IndexQueue;
use crate::index::keys::KeyHasher;
use crate::index::sealed::{Sealed, SealedSet};
use crate::options::LogOptions;
use crate::segment::Segments;
use crate::segment::open_files::OpenFiles;
use crate::storage::Storage;

/// The seams a log stands on.
#[derive(Clone)]
pub struct Environment {
    /// The disk.
    pub storage: Arc<dyn Storage>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Whether the log takes appends, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogState {
    /// It does.
    Writable,
    /// It was opened for reading.
    ReadOnly,
    /// Damage was found when it was opened: it is read-only until mended.
    Damaged(Corruption),
    /// There is no space to prepare segments; it recovers by itself.
    NoSpace(String),
    /// A write failed: read-only until opened again.
    Failed(String),
    /// It was closed.
    Closed,
}

impl std::fmt::Display for LogState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Writable => f.write_str("writable"),
            Self::ReadOnly => f.write_str("opened read-only"),
            Self::Damaged(corruption) => {
                write!(f, "damaged, read-only until mended: {corruption}")
            }
            Self::NoSpace(reason) => write!(f, "no space for appends: {reason}"),
            Self::Failed(reason) => {
                write!(f, "failed, read-only until opened again: {reason}")
            }
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// 50 µs to 1.6 s.
const FLUSH_BOUNDS_US: [u64; 16] = powers_of_two(50);
/// 4 KiB to 16 MiB.
const GROUP_BOUNDS: [u64; 13] = powers_of_two(4 << 10);

const fn powers_of_two<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [first; N];
    let mut index = 1;
    while index < N {
        bounds[index] = bounds[index - 1] * 2;
        index += 1;
    }
    bounds
}

/// What the log has done since it was opened.
#[derive(Debug)]
pub struct Counters {
    appends: AtomicU64,
    events: AtomicU64,
    groups: AtomicU64,
    group_bytes: AtomicU64,
    duplicates: AtomicU64,
    conflicts: AtomicU64,
    index_reads: AtomicU64,
    flush_us: Histogram<{ FLUSH_BOUNDS_US.len() }>,
    group_sizes: Histogram<{ GROUP_BOUNDS.len() }>,
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            appends: zero(),
            events: zero(),
            groups: zero(),
            group_bytes: zero(),
            duplicates: zero(),
            conflicts: zero(),
            index_reads: zero(),
            flush_us: Histogram::new(FLUSH_BOUNDS_US),
            group_sizes: Histogram::new(GROUP_BOUNDS),
        }
    }
}

/// The counters' values at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Appends stored.
    pub appends: u64,
    /// Events stored.
    pub events: u64,
    /// Groups of appends written.
    pub groups: u64,
    /// Their bytes.
    pub group_bytes: u64,
    /// Appends answered as duplicates.
    pub duplicates: u64,
    /// Appends refused for a version or an id.
    pub conflicts: u64,
}

impl Counters {
    pub(crate) fn group(&self, appends: u64, events: u64, bytes: u64) {
        self.appends.fetch_add(appends, Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.group_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.group_sizes.count(bytes);
    }

    /// A durable write took so long.
    pub(crate) fn flush(&self, took: Duration) {
        self.flush_us.count(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// How long durable writes took, in microseconds.
    pub fn flush_us(&self) -> Distribution {
        self.flush_us.distribution()
    }

    /// How large groups were, in bytes.
    pub fn group_sizes(&self) -> Distribution {
        self.group_sizes.distribution()
    }

    pub(crate) fn duplicate(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn index_read(&self) {
        self.index_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Look-ups of ids and versions that have read a run's file.
    pub fn index_reads(&self) -> u64 {
        self.index_reads.load(Ordering::Relaxed)
    }

    /// Their values now.
    pub fn counts(&self) -> Counts {
        Counts {
            appends: self.appends.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            groups: self.groups.load(Ordering::Relaxed),
            group_bytes: self.group_bytes.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
        }
    }
}

/// What the parts of one log share.
pub struct Shared {
    /// The seams.
    pub env: Environment,
    /// The settings.
    pub options: LogOptions,
    /// The log's id.
    pub log_id: Uuid,
    /// The log's keyed hash.
    pub hasher: KeyHasher,
    /// The segments.
    pub segments: Segments,
    /// Files of those that are sealed and read from.
    pub open_files: OpenFiles,
    /// Durable and visible up to.
    pub watermark: CommitWatermark,
    /// What waits for the sequencer.
    pub inbox: Arc<Inbox>,
    /// What waits for the indexer.
    pub index_queue: IndexQueue,
    /// What is known of sealed segments.
    pub sealed: Sealed,
    /// What was done.
    pub counters: Counters,
    state: RwLock<LogState>,
    found_damage: Mutex<Option<Corruption>>,
}

impl Shared {
    /// Shared parts of a log with these segments.
    #[must_use]
    pub fn new(
        env: Environment,
        options: LogOptions,
        log_id: Uuid,
        (segments, sealed): (Segments, SealedSet),
        watermark: CommitWatermark,
        state: LogState,
    ) -> Self {
        let inbox = Arc::new(Inbox::new(options.queue_limits()));
        let open_files = OpenFiles::new(Arc::clone(&env.storage));
        Self {
            env,
            options,
            log_id,
            hasher: KeyHasher::new(log_id),
            segments,
            open_files,
            watermark,
            inbox,
            index_queue: IndexQueue::default(),
            sealed: Sealed::new(sealed),
            counters: Counters::default(),
            state: RwLock::new(state),
            found_damage: Mutex::new(None),
        }
    }

    /// Whether the log takes appends, and if not, why.
    pub fn state(&self) -> LogState {
        self.state.read().clone()
    }

    /// Changes the state. A failed log stays failed until it is closed.
    pub fn set_state(&self, next: LogState) {
        let mut state = self.state.write();
        if !matches!(&*state, LogState::Failed(_)) || next == LogState::Closed {
            *state = next;
        }
    }

    /// A read has met damage inside a sealed segment: everything else goes on, health says so.
    pub fn note_damage(&self, damage: &Corruption) {
        let mut found = self.found_damage.lock();
        let is_first = found.is_none();
        found.get_or_insert_with(|| damage.clone());
        drop(found);
        if is_first {
            tell!(error, %damage, "a read has met damage");
        }
    }

    /// The first damage that a read has met since the log was opened.
    pub fn found_damage(&self) -> Option<Corruption> {
        self.found_damage.lock().clone()
    }

    /// The damage found when the log was opened, if any.
    pub fn damage(&self) -> Option<Corruption> {
        match &*self.state.read() {
            LogState::Damaged(corruption) => Some(corruption.clone()),
            _ => None,
        }
    }
}
