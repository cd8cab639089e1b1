//! The threads that read from disk for streams.
#![expect(clippy::disallowed_methods, reason = "it starts threads")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};

use crossbeam_channel::{Sender, unbounded};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads, the same all the time. A runtime has one for whoever asks, and an allocator may
/// keep for each what it has used: with 10,000 connections that was a hundred MiB and more.
pub(crate) struct Readers {
    jobs: Sender<Job>,
    unfinished: Arc<AtomicUsize>,
}

impl Readers {
    /// As many as there are processors, but two at least, since disks answer several at once, and
    /// eight at most. They end after the last job, once this is dropped.
    pub(crate) fn start() -> Self {
        let (jobs, queue) = unbounded::<Job>();
        let unfinished = Arc::<AtomicUsize>::default();
        let threads = available_parallelism().map_or(2, |count| count.get().clamp(2, 8));
        for _ in 0..threads {
            let (queue, unfinished) = (queue.clone(), Arc::clone(&unfinished));
            let work = move || {
                for job in queue {
                    drop(catch_unwind(AssertUnwindSafe(job)));
                    unfinished.fetch_sub(1, Ordering::Release);
                }
            };
            if let Err(error) = thread::Builder::new().name("quipu-read".to_owned()).spawn(work) {
                tracing::warn!(%error, "a thread that reads for streams could not be started");
            }
        }
        Self { jobs, unfinished }
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
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        if self.jobs.send(Box::new(move || drop(done.send(work())))).is_err() {
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
        }
        result.await.ok()
    }
}

#[cfg(test)]
mod tests {
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
}
