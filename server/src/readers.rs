//! The threads that read from disk for streams.
#![expect(clippy::disallowed_methods, reason = "it starts threads")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, available_parallelism};

use crossbeam_channel::{Sender, unbounded};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads, the same all the time. A runtime has one for whoever asks, and an allocator may
/// keep for each what it has used: with 10,000 connections that was a hundred MiB and more.
pub(crate) struct Readers {
    /// `None` when they are to end.
    jobs: Option<Sender<Job>>,
    unfinished: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// As many as there are processors, but two at least, since disks answer several at once, and
    /// eight at most.
    pub(crate) fn start() -> Self {
        let (jobs, queue) = unbounded::<Job>();
        let unfinished = Arc::<AtomicUsize>::default();
        let count = available_parallelism().map_or(2, |count| count.get().clamp(2, 8));
        let mut threads = Vec::with_capacity(count);
        for _ in 0..count {
            let (queue, unfinished) = (queue.clone(), Arc::clone(&unfinished));
            let work = move || {
                for job in queue {
                    drop(catch_unwind(AssertUnwindSafe(job)));
                    unfinished.fetch_sub(1, Ordering::Release);
                }
            };
            match thread::Builder::new().name("quipu-read".to_owned()).spawn(work) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    tracing::warn!(%error, "a thread that reads for streams could not be started");
                }
            }
        }
        Self { jobs: Some(jobs), unfinished, threads }
    }

    /// Jobs that wait or are at work.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Acquire)
    }

    /// What the work comes to; `None` if it panicked, or if there is no thread at all.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job = move || {
            // Who has gone away meanwhile is not read for.
            if !done.is_closed() {
                drop(done.send(work()));
            }
        };
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let is_queued = self.jobs.as_ref().is_some_and(|jobs| jobs.send(Box::new(job)).is_ok());
        if !is_queued {
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
        }
        result.await.ok()
    }
}

impl Drop for Readers {
    /// Waits for what they are at: a log that is closed next has no reader any more.
    fn drop(&mut self) {
        self.jobs = None;
        let own = thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != own) {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_that_panics_ends_no_thread() {
        let readers = Readers::start();
        for number in 0..20 {
            assert_eq!(readers.run(|| panic!("on purpose")).await, None::<()>);
            assert_eq!(readers.run(move || number).await, Some(number));
        }
        while readers.unfinished() > 0 {
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a_thread_that_is_at_work_is_waited_for() {
        let readers = Readers::start();
        let ended = Arc::<AtomicUsize>::default();
        let (begun, begins) = oneshot::channel();
        let work = {
            let ended = Arc::clone(&ended);
            move || {
                begun.send(()).ok();
                thread::sleep(Duration::from_millis(50));
                ended.fetch_add(1, Ordering::Relaxed);
            }
        };
        tokio::select! {
            biased;
            _ = readers.run(work) => panic!("it is not done yet"),
            begun = begins => assert_eq!(begun, Ok(())),
        }
        drop(readers);
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    }
}
