//! A log without threads, driven step by step: the same appends make the same bytes every time.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use quipu_engine::index::indexer::Indexer;
use quipu_engine::{Environment, EventLog, LogOptions, OpenError, Origin};
use quipu_types::{Append, AppendError, AppendOutcome};

pub struct SteppedLog {
    log: Arc<EventLog>,
    indexer: Mutex<Indexer>,
}

impl SteppedLog {
    /// Opens a log and does what it wants done before the first append.
    ///
    /// # Errors
    /// As `EventLog::open`.
    pub fn open(env: Environment, options: LogOptions) -> Result<Self, OpenError> {
        let log = Self::open_untouched(env, options)?;
        log.run();
        Ok(log)
    }

    /// Opens a log.
    ///
    /// # Errors
    /// As `EventLog::open`.
    pub fn open_untouched(env: Environment, options: LogOptions) -> Result<Self, OpenError> {
        let log = Arc::new(EventLog::open_stepped(env, options, &mut |_, _| {})?);
        let indexer = Mutex::new(Indexer::new(Arc::clone(log.shared())));
        Ok(Self { log, indexer })
    }

    pub fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    pub fn indexer(&self) -> MutexGuard<'_, Indexer> {
        self.indexer.lock()
    }

    /// Appends, all of them waiting at once: they share groups as far as they fit.
    pub fn append_together(
        &self,
        appends: &[Append],
        origin: Origin,
    ) -> Vec<Result<AppendOutcome, AppendError>> {
        let answers = Arc::new(Mutex::new(Vec::new()));
        for append in appends {
            let prepared = self.log.prepare(append, origin).expect("the test's events are valid");
            let answers = Arc::clone(&answers);
            let reply = Box::new(move |answer| answers.lock().push(answer));
            self.log.try_submit(prepared, reply).expect("the queue takes a few appends");
        }
        self.run();
        let answers = std::mem::take(&mut *answers.lock());
        answers.into_iter().map(|answer| self.log.settle(answer?)).collect()
    }

    /// Appends one after another, each in a group of its own.
    pub fn append_each(&self, appends: &[Append]) {
        for append in appends {
            let answers = self.append_together(std::slice::from_ref(append), Origin::Client);
            for answer in answers {
                answer.expect("a good append is stored");
            }
        }
    }

    /// Does everything there is to do now.
    pub fn run(&self) {
        self.commit_and(|| {
            let mut indexer = self.indexer();
            while let Some(work) = self.log.shared().index_queue.try_pop() {
                indexer.take(work);
            }
            while indexer.is_merging() {
                indexer.merge_some(usize::MAX);
            }
        });
    }

    /// Writes what there is to write; the indexer comes to nothing.
    pub fn commit(&self) {
        self.commit_and(|| {});
    }

    fn commit_and(&self, index: impl Fn()) {
        let shared = self.log.shared();
        while let Some(step) = self.log.step() {
            let is_idle = step.write.is_none() && step.prepare.is_none();
            for answer in step.answers {
                answer.send();
            }
            if let Some(job) = step.prepare {
                shared.inbox.prepared(job.run(&*shared.env.storage));
            }
            index();
            if let Some(write) = step.write {
                let ticket = write.done.ticket();
                let result = shared.env.storage.submit(write).expect("this disk writes at once");
                shared.inbox.written_here(ticket, result);
            }
            if step.closed || is_idle {
                return;
            }
        }
    }

    /// Closes in order.
    pub fn close(self) {
        self.log.shared().inbox.close();
        self.run();
    }

    /// Ends as a crash would: nothing more is written.
    pub fn crash(self) {
        drop(self);
    }
}
