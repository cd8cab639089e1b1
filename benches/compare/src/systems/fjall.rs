//! fjall in this process: a key-value store that a host would build an event store on.
//!
//! Keys are positions, and aggregate and version; each append is checked against the latter. Since
//! each flush of fjall is one caller's own, appends that wait while another is flushed share the
//! next batch, as a host would write it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::Running;
use crate::clock;
use crate::driver::{Client, appending_on_threads};
use crate::events::{AGGREGATE_TYPE, Append, EVENT_TYPE, Event};
use crate::figures::{Figures, Tally};
use crate::folder::Folder;
use crate::process::cpu_seconds_of;
use crate::workload::Workload;

pub(super) const SETTINGS: &str = "its defaults, without compression; positions to events, \
    aggregate and version to positions; `SyncAll` on every batch, which holds what waited; a \
    thread a writer; versions checked";

/// The database; the folder goes after it.
pub(super) struct Fjall {
    store: Store,
    folder: Folder,
}

struct Store {
    database: Database,
    events: Keyspace,
    versions: Keyspace,
    queue: Mutex<Queue>,
    moved: Condvar,
}

/// What waits, and who writes.
struct Queue {
    waiting: Vec<Prepared>,
    submitted: u64,
    durable: u64,
    is_writing: bool,
    last_position: u64,
    failure: Option<String>,
}

/// An append as keys and values.
struct Prepared {
    aggregate: [u8; 16],
    events: Vec<(u64, Vec<u8>)>,
}

impl Fjall {
    pub(super) fn open(folder: Folder) -> Result<Self> {
        let database = Database::builder(folder.path()).open()?;
        let events = database.keyspace("events", KeyspaceCreateOptions::default)?;
        let versions = database.keyspace("versions", KeyspaceCreateOptions::default)?;
        let queue = Queue {
            waiting: Vec::new(),
            submitted: 0,
            durable: 0,
            is_writing: false,
            last_position: 0,
            failure: None,
        };
        let (queue, moved) = (Mutex::new(queue), Condvar::new());
        Ok(Self { store: Store { database, events, versions, queue, moved }, folder })
    }

    fn scan(&self, duration: Duration) -> Result<Tally> {
        let started = clock::now();
        let mut tally = Tally::nothing();
        for entry in self.store.events.iter() {
            let value = entry.value()?;
            std::hint::black_box(&value);
            tally.events += 1;
            if tally.events.is_multiple_of(1_000) && started.elapsed() > duration {
                break;
            }
        }
        tally.seconds = started.elapsed().as_secs_f64();
        Ok(tally)
    }
}

impl Running for Fjall {
    fn measure(&mut self, workload: Workload, duration: Duration) -> Result<Option<Figures>> {
        let me = std::process::id();
        let (cpu_before, disk_before) = (cpu_seconds_of(me), self.folder.used_bytes());
        let tally = match (workload.shape(), workload) {
            (Some(shape), _) => {
                let mut clients: Vec<&Store> = (0..shape.clients).map(|_| &self.store).collect();
                appending_on_threads(&mut clients, shape, duration)?
            }
            (None, Workload::CatchUp) => self.scan(duration)?,
            (None, _) => return Ok(None),
        };
        let grown = self.folder.used_bytes().saturating_sub(disk_before);
        Ok(Some(Figures {
            events: tally.events,
            seconds: tally.seconds,
            latency_us: tally.percentiles(),
            cpu_seconds: cpu_seconds_of(me) - cpu_before,
            disk_bytes: workload.shape().map(|_| grown),
        }))
    }
}

impl Client for &Store {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let events = append.events.iter().map(|event| (event.version, encoded(event))).collect();
        self.commit(Prepared { aggregate: *append.aggregate_id.as_bytes(), events })
    }
}

impl Store {
    /// Waits until the append is durable; whoever finds nobody writing writes all that waits.
    fn commit(&self, append: Prepared) -> Result<()> {
        let mut queue = self.lock();
        queue.waiting.push(append);
        queue.submitted += 1;
        let own = queue.submitted;
        while queue.durable < own {
            if let Some(failure) = &queue.failure {
                bail!("{failure}");
            }
            if queue.is_writing {
                queue = self.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.is_writing = true;
            let (appends, upto) = (std::mem::take(&mut queue.waiting), queue.submitted);
            let first = queue.last_position;
            drop(queue);
            let written = self.write(appends, first);
            queue = self.lock();
            queue.is_writing = false;
            match written {
                Ok(last) => (queue.last_position, queue.durable) = (last, upto),
                Err(error) => queue.failure = Some(format!("{error:#}")),
            }
            self.moved.notify_all();
        }
        Ok(())
    }

    fn write(&self, appends: Vec<Prepared>, mut position: u64) -> Result<u64> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for append in appends {
            let key = |version: u64| [&append.aggregate[..], &version.to_be_bytes()].concat();
            let first = append.events.first().context("an append has events")?.0;
            if self.versions.contains_key(key(first))? {
                bail!("a conflict at version {first}");
            }
            for (version, value) in append.events {
                position += 1;
                let place = position.to_be_bytes();
                batch.insert(&self.versions, key(version), place);
                batch.insert(&self.events, place, value);
            }
        }
        batch.commit()?;
        Ok(position)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that the other systems keep of an event, but its aggregate's id, which is in the key.
fn encoded(event: &Event) -> Vec<u8> {
    let mut value = Vec::with_capacity(event.payload.len() + 160);
    value.extend_from_slice(event.id.as_bytes());
    value.extend_from_slice(&event.created_us.to_be_bytes());
    let (correlation, causation) = (&event.correlation_id, &event.causation_id);
    for text in [AGGREGATE_TYPE, EVENT_TYPE, correlation, causation, &event.payload] {
        value.extend_from_slice(&(text.len() as u64).to_be_bytes());
        value.extend_from_slice(text.as_bytes());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Shape;

    #[test]
    fn appends_that_wait_share_a_batch_and_none_is_lost() {
        let name = format!("quipu-compare-fjall-{}", std::process::id());
        let fjall = Fjall::open(Folder::create(&std::env::temp_dir(), &name).unwrap()).unwrap();
        let shape = Shape { clients: 8, batch: 3 };
        let mut clients = [&fjall.store; 8];
        let tally = appending_on_threads(&mut clients, shape, Duration::from_millis(100)).unwrap();
        let read = fjall.scan(Duration::from_secs(10)).unwrap();
        assert!(tally.events > 0);
        assert_eq!(read.events, tally.events);
    }

    #[test]
    fn a_version_that_is_taken_is_refused() {
        let name = format!("quipu-compare-fjall-check-{}", std::process::id());
        let fjall = Fjall::open(Folder::create(&std::env::temp_dir(), &name).unwrap()).unwrap();
        let append = || Prepared { aggregate: [7; 16], events: vec![(1, vec![1])] };
        fjall.store.commit(append()).unwrap();
        assert!(fjall.store.commit(append()).is_err());
    }
}
