//! Threads that run futures: the bus's own, and those of each handler, which may get stuck in a
//! host's code and are then replaced.
#![expect(clippy::disallowed_methods, reason = "the threads of event buses start here")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle, current};

use async_executor::{Executor, Task};
use event_listener::Event;
use futures::future::select;
// Not that of `futures`: inside of it no other can be called, and handlers may block.
use futures_lite::future::block_on;
use parking_lot::Mutex;

use super::stop::Stop;

/// Threads of one handler that may be stuck at once.
const STUCK_MAX: usize = 16;

/// A few threads and what they run. They end when it is dropped, each after what it is doing.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    name: String,
    executor: Executor<'static>,
    stop: Stop,
    /// One thread more than needed ends.
    retire: Event,
    stuck: AtomicUsize,
}

impl Workers {
    /// Starts so many threads, at least one.
    pub(super) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            executor: Executor::new(),
            stop: Stop::default(),
            retire: Event::new(),
            stuck: AtomicUsize::new(0),
        });
        let workers = Self { shared, threads: Mutex::default() };
        for _ in 0..threads.max(1) {
            workers.add_thread()?;
        }
        Ok(workers)
    }

    pub(super) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        self.shared.executor.spawn(future)
    }

    /// A thread is stuck: another one takes its place. `None` if too many are.
    pub(super) fn replace_stuck(&self) -> Option<Stuck> {
        let stuck = self.shared.stuck.fetch_add(1, Ordering::Relaxed);
        let replaced = stuck < STUCK_MAX && self.add_thread().is_ok();
        if !replaced {
            self.shared.stuck.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Stuck(Arc::clone(&self.shared)))
    }

    /// Waits until every thread has ended. Only for those that run no host's code.
    pub(super) fn join(&self) {
        self.shared.stop.set();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.thread().id() != current().id() {
                // A thread that panicked has ended too.
                thread.join().ok();
            }
        }
    }

    fn add_thread(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let run = move || {
            let end = select(Box::pin(shared.stop.wait()), shared.retire.listen());
            block_on(shared.executor.run(end));
        };
        let thread = Builder::new().name(self.shared.name.clone()).spawn(run)?;
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.set();
    }
}

/// A thread that was stuck; dropped when it is free again.
pub(super) struct Stuck(Arc<Shared>);

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.stuck.fetch_sub(1, Ordering::Relaxed);
        self.0.retire.notify_additional(1);
    }
}
