//! Calls of a host's code, which may fail, panic, take too long, or never come back.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Either, poll_fn, select};
use futures_timer::Delay;
use parking_lot::Mutex;

use super::clock::now;
use super::delivery::{Delivery, HandlerError};
use super::metrics::Meter;
use super::stop::Stop;
use super::workers::{Stuck, Workers};

type Handled = Result<(), HandlerError>;

/// A host's code.
#[derive(Clone)]
pub(super) enum Code {
    Sync(Arc<dyn Fn(&Delivery) -> Handled + Send + Sync>),
    Async(Arc<dyn Fn(Delivery) -> BoxFuture<'static, Handled> + Send + Sync>),
}

impl Code {
    async fn call(&self, delivery: &Delivery) -> Handled {
        match self {
            Self::Sync(code) => code(delivery),
            Self::Async(code) => code(delivery.clone()).await,
        }
    }
}

/// Why an attempt did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Unreadable(String),
    #[error("it panicked: {0}")]
    Panicked(String),
    #[error("it took longer than {0:?}")]
    TimedOut(Duration),
    /// Nothing more of it can be called.
    #[error("too many calls of it hang, the last for {0:?}")]
    Hangs(Duration),
}

/// What came of a batch: how many were handled, and why the next one was not.
pub(super) struct Attempted {
    pub(super) handled: usize,
    pub(super) failure: Option<Failure>,
}

/// Calls of one handler.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) code: Code,
    pub(super) workers: Arc<Workers>,
    pub(super) timeout: Duration,
    pub(super) meter: Arc<Meter>,
    /// Between two events of a batch: is there to be another?
    pub(super) stop: Arc<Stop>,
}

impl Calls {
    /// Hands out a batch, one event after the other, up to the first that fails. Each may take as
    /// long as the time-out; one that takes longer is given up, whether it comes back or not.
    pub(super) async fn attempt(self, batch: Vec<Delivery>) -> Attempted {
        let Self { code, workers, timeout, meter, stop } = self;
        let pulse = Arc::new(Pulse::default());
        let run = hand_out(code, batch, Arc::clone(&pulse), meter, stop);
        let mut task = workers.spawn(watched(run, Arc::clone(&pulse)));
        loop {
            let late = Delay::new(pulse.left(timeout));
            match select(&mut task, late).await {
                Either::Left((attempted, _)) => return attempted,
                Either::Right(_) => {
                    if let Some(handled) = pulse.give_up(timeout, &workers) {
                        let hangs = pulse.hangs();
                        let failure = if hangs { Failure::Hangs } else { Failure::TimedOut };
                        return Attempted { handled, failure: Some(failure(timeout)) };
                    }
                }
            }
        }
    }
}

async fn hand_out(
    code: Code,
    batch: Vec<Delivery>,
    pulse: Arc<Pulse>,
    meter: Arc<Meter>,
    stop: Arc<Stop>,
) -> Attempted {
    for (handled, delivery) in batch.iter().enumerate() {
        if stop.is_set() || !pulse.begin(handled) {
            return Attempted { handled, failure: None };
        }
        let called = AssertUnwindSafe(code.call(delivery)).catch_unwind().await;
        let failure = match called {
            Ok(Ok(())) => {
                meter.handled(delivery.record().event_type(), pulse.elapsed());
                continue;
            }
            Ok(Err(HandlerError::Failed(reason))) => Failure::Failed(reason),
            Ok(Err(HandlerError::Unreadable(error))) => Failure::Unreadable(error.to_string()),
            Err(panic) => Failure::Panicked(words_of(&*panic)),
        };
        return Attempted { handled, failure: Some(failure) };
    }
    Attempted { handled: batch.len(), failure: None }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words").to_owned()
}

/// Polls a future, and notes when a thread is inside it.
async fn watched(future: impl Future<Output = Attempted>, pulse: Arc<Pulse>) -> Attempted {
    let mut future = pin!(future);
    poll_fn(|context| {
        pulse.0.lock().is_polled = true;
        let polled: Poll<Attempted> = future.as_mut().poll(context);
        let mut beat = pulse.0.lock();
        beat.is_polled = false;
        // The thread is free again: the one that took its place may end.
        let stuck = beat.stuck.take();
        drop(beat);
        drop(stuck);
        polled
    })
    .await
}

/// How far a batch is, for whoever waits for it.
#[derive(Default)]
struct Pulse(Mutex<Beat>);

#[derive(Default)]
struct Beat {
    /// The event under way, and since when.
    current: Option<(usize, Instant)>,
    is_given_up: bool,
    is_polled: bool,
    hangs: bool,
    stuck: Option<Stuck>,
}

impl Pulse {
    /// The next event begins, unless the batch was given up.
    fn begin(&self, index: usize) -> bool {
        let mut beat = self.0.lock();
        if !beat.is_given_up {
            beat.current = Some((index, now()));
        }
        !beat.is_given_up
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().current.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// What is left of the time that the event under way may take.
    fn left(&self, timeout: Duration) -> Duration {
        timeout.saturating_sub(self.elapsed())
    }

    /// Gives the batch up if its event under way has had its time; says how many were handled.
    fn give_up(&self, timeout: Duration, workers: &Workers) -> Option<usize> {
        let mut beat = self.0.lock();
        let (index, since) = beat.current?;
        if since.elapsed() < timeout {
            return None;
        }
        beat.is_given_up = true;
        if beat.is_polled {
            beat.stuck = workers.replace_stuck();
            beat.hangs = beat.stuck.is_none();
        }
        Some(index)
    }

    fn hangs(&self) -> bool {
        self.0.lock().hangs
    }
}
