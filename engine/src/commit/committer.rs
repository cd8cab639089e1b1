//! The threads that drive the sequencer. A committer thread steps it, sends the answers, and
//! submits the write; with a blocking disk there are as many as groups in flight, so that an
//! append wakes one thread on its way in and its caller on the way out, and nobody in between.
#![expect(clippy::disallowed_methods, reason = "this module is where threads start")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::preparer::{PrepareJob, Prepared};
use super::sequencer::{Message, Sequencer, Step};
use crate::host::{call_host, tell, wake_all};
use crate::index::indexer::{Indexer, Next};
use crate::shared::Shared;

/// A few milliseconds of work.
const MERGE_STEP_ENTRIES: usize = 50_000;
/// When nothing has been appended for so long, merges have a processor of their own.
const QUIET: Duration = Duration::from_millis(5);

/// A bug of ours, or of a storage or a clock that a host has brought.
const PANICKED: &str = "a thread of the log panicked: this is a bug";

/// The running threads of a log.
pub struct Committer {
    threads: Vec<JoinHandle<()>>,
}

impl Committer {
    /// Starts them.
    ///
    /// # Errors
    /// That the system refuses a thread.
    pub fn start(log: &Arc<Shared>, sequencer: &Arc<Mutex<Sequencer>>) -> io::Result<Self> {
        let mut committer = Self { threads: Vec::new() };
        if let Err(error) = committer.start_threads(log, sequencer) {
            // Those that have started may have begun to write.
            log.inbox.set_closed();
            log.index_queue.close();
            committer.wait();
            return Err(error);
        }
        Ok(committer)
    }

    fn start_threads(
        &mut self,
        log: &Arc<Shared>,
        sequencer: &Arc<Mutex<Sequencer>>,
    ) -> io::Result<()> {
        let (prepare, prepare_jobs) = channel();
        let shared = Arc::clone(log);
        self.spawn("quipu-prepare", move || prepare_loop(&shared, &prepare_jobs))?;
        let shared = Arc::clone(log);
        self.spawn("quipu-index", move || index_loop(&shared))?;
        let submitters = log.env.storage.submitters(log.options.groups_in_flight);
        for _ in 0..submitters {
            let (log, sequencer) = (Arc::clone(log), Arc::clone(sequencer));
            let prepare = prepare.clone();
            self.spawn("quipu-commit", move || commit(&log, &sequencer, &prepare))?;
        }
        Ok(())
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// Waits until all have ended, and then does `last`. A thread of the log does not wait for
    /// itself: there, another one does both.
    pub fn join(self, last: impl FnOnce() + Send + 'static) {
        let here = std::thread::current().id();
        let is_here = self.threads.iter().any(|it| it.thread().id() == here);
        let join = move || {
            self.wait();
            last();
        };
        if !is_here {
            return join();
        }
        if let Err(error) = Builder::new().name("quipu-close".to_owned()).spawn(join) {
            tell!(error, %error, "cannot wait for the end of the log: it stays locked");
        }
    }

    fn wait(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tell!(error, "a thread of the log has panicked");
            }
        }
    }
}

/// Nobody must wait for an answer for ever: after a panic the log has failed, and says so to all.
fn commit(log: &Shared, sequencer: &Mutex<Sequencer>, jobs: &Sender<PrepareJob>) {
    let commits = || catch_unwind(AssertUnwindSafe(|| commit_loop(log, sequencer, jobs)));
    while commits().is_err() {
        sequencer.lock().fail(PANICKED);
        // The step that is lost may have advanced it.
        log.watermark.wake();
    }
}

fn commit_loop(log: &Shared, sequencer: &Mutex<Sequencer>, jobs: &Sender<PrepareJob>) {
    while !log.inbox.is_closed() {
        let step = sequencer.lock().step();
        let Step { messages, answers, has_advanced, prepare, write, more, .. } = step;
        if more {
            log.inbox.wake_another();
        }
        wake_all(log.inbox.take_granted());
        if has_advanced {
            log.watermark.wake();
        }
        for answer in answers {
            call_host(|| answer.send());
        }
        messages.iter().for_each(Message::tell);
        // The receiver lives until every sender is gone, that is, until this loop has ended.
        if let Some(job) = prepare {
            jobs.send(job).ok();
        }
        if step.closed {
            log.inbox.set_closed();
            log.index_queue.close();
            return;
        }
        match write {
            Some(write) => {
                let ticket = write.done.ticket();
                if let Some(result) = log.env.storage.submit(write) {
                    log.inbox.written_here(ticket, result);
                }
            }
            None => log.inbox.wait(step.arrivals, step.timeout),
        }
    }
}

fn prepare_loop(log: &Shared, jobs: &Receiver<PrepareJob>) {
    while let Ok(job) = jobs.recv() {
        let prepared = catch_unwind(AssertUnwindSafe(|| job.run(&*log.env.storage)));
        log.inbox.prepared(prepared.unwrap_or_else(|_| Prepared::failed(PANICKED)));
    }
}

fn index_loop(log: &Arc<Shared>) {
    let mut indexer = Indexer::new(Arc::clone(log));
    let mut patience = QUIET;
    loop {
        // A merge that was not ended is begun anew after the next start.
        match log.index_queue.next(indexer.is_merging().then_some(patience)) {
            Next::Work(work) => {
                or_anew(log, &mut indexer, |indexer| indexer.take(work));
                patience = QUIET;
            }
            Next::Nothing => {
                or_anew(log, &mut indexer, |indexer| indexer.merge_some(MERGE_STEP_ENTRIES));
                patience = Duration::ZERO;
            }
            Next::Closed => return,
        }
    }
}

/// What the indexer makes is derived: after a panic, a bug of ours, one that has seen nothing goes
/// on.
fn or_anew(log: &Arc<Shared>, indexer: &mut Indexer, work: impl FnOnce(&mut Indexer)) {
    if catch_unwind(AssertUnwindSafe(|| work(indexer))).is_err() {
        tell!(error, "the indexer panicked: this is a bug in Quipu");
        *indexer = Indexer::new(Arc::clone(log));
    }
}
