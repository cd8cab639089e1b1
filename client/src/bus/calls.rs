//! Calls of a host's code, which may fail, panic, take too long, or never come back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
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

/// How long a call goes on with another event, at most: then others have their turn.
const TURN: Duration = Duration::from_millis(1);

type Handled = Result<(), HandlerError>;
/// What the code answered, or what it panicked with.
type Caught = Result<Handled, Panic>;
type Panic = Box<dyn std::any::Any + Send>;

/// A host's code.
#[derive(Clone)]
pub(super) enum Code {
    Sync(Arc<dyn Fn(&Delivery) -> Handled + Send + Sync>),
    Async(Arc<dyn Fn(Delivery) -> BoxFuture<'static, Handled> + Send + Sync>),
}

enum Called {
    Came(Caught),
    Waits(Calling),
}

impl Code {
    /// Calls it, as far as it comes without waiting.
    fn call(&self, delivery: &Delivery) -> Called {
        match self {
            Self::Sync(code) => Called::Came(catch_unwind(AssertUnwindSafe(|| code(delivery)))),
            Self::Async(code) => {
                let begun = catch_unwind(AssertUnwindSafe(|| code(delivery.clone())));
                let mut future = match begun {
                    Ok(future) => Calling(Some(future)),
                    Err(panic) => return Called::Came(Err(panic)),
                };
                match (&mut future).now_or_never() {
                    Some(caught) => Called::Came(caught),
                    None => Called::Waits(future),
                }
            }
        }
    }
}

/// A host's future, which may panic whenever its code runs: while it is dropped, too.
struct Calling(Option<BoxFuture<'static, Handled>>);

impl Calling {
    fn end(&mut self) -> Result<(), Panic> {
        catch_unwind(AssertUnwindSafe(|| drop(self.0.take())))
    }
}

impl Future for Calling {
    type Output = Caught;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Caught> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let caught = match catch_unwind(AssertUnwindSafe(|| future.poll_unpin(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(handled)) => Ok(handled),
            Err(panic) => Err(panic),
        };
        let ended = self.end();
        Poll::Ready(caught.and_then(|handled| ended.map(|()| handled)))
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        // Given up: nobody asks any more what came of it.
        self.end().ok();
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

/// What came of a batch: how many were handled, and why it ended there.
pub(super) struct Attempted {
    pub(super) handled: usize,
    pub(super) end: End,
}

/// Why a batch ended.
pub(super) enum End {
    /// All of it is handled, or it has had its turn, or the handler stops.
    Over,
    /// The next one failed.
    Failed(Failure),
    /// The next one waits for something; those behind it need not.
    Waits(Waiting),
}

/// A call that waits for something.
pub(super) struct Waiting {
    delivery: Delivery,
    future: Calling,
    since: Instant,
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
    /// Hands out a batch, one event after the other, up to the first that fails or has to wait.
    /// Each may take as long as the time-out; one that takes longer is given up, whether it comes
    /// back or not.
    pub(super) async fn attempt(self, batch: Vec<Delivery>) -> Attempted {
        let pulse = Arc::<Pulse>::default();
        let run = self.clone().hand_out(batch, Arc::clone(&pulse));
        self.watch(run, pulse).await
    }

    /// Goes on with what waits.
    pub(super) async fn go_on(self, waiting: Waiting) -> Attempted {
        let pulse = Arc::<Pulse>::default();
        pulse.0.lock().current = Some((0, waiting.since));
        let (calls, beat) = (self.clone(), Arc::clone(&pulse));
        let run = async move {
            let caught = waiting.future.await;
            match calls.took(&waiting.delivery, caught, &beat) {
                None => Attempted { handled: 1, end: End::Over },
                Some(failure) => Attempted { handled: 0, end: End::Failed(failure) },
            }
        };
        self.watch(run, pulse).await
    }

    /// Runs it on the handler's threads, and sees to the time-out.
    async fn watch(
        self,
        run: impl Future<Output = Attempted> + Send + 'static,
        pulse: Arc<Pulse>,
    ) -> Attempted {
        let Self { workers, timeout, stop, .. } = self;
        let mut task = workers.spawn(watched(run, Arc::clone(&pulse)));
        loop {
            let late = Delay::new(pulse.left(timeout));
            match select(&mut task, late).await {
                Either::Left((attempted, _)) => return attempted,
                Either::Right(_) => {
                    // Every thread may hang: none would ever begin it.
                    if stop.is_set() && pulse.give_back() {
                        return Attempted { handled: 0, end: End::Over };
                    }
                    if let Some(handled) = pulse.give_up(timeout, &workers) {
                        let hangs = pulse.hangs();
                        let failure = if hangs { Failure::Hangs } else { Failure::TimedOut };
                        return Attempted { handled, end: End::Failed(failure(timeout)) };
                    }
                }
            }
        }
    }

    async fn hand_out(self, batch: Vec<Delivery>, pulse: Arc<Pulse>) -> Attempted {
        let (began, events) = (now(), batch.len());
        for (handled, delivery) in batch.into_iter().enumerate() {
            let is_over = handled > 0 && began.elapsed() > TURN;
            if is_over || self.stop.is_set() || !pulse.begin(handled) {
                return Attempted { handled, end: End::Over };
            }
            let caught = match self.code.call(&delivery) {
                Called::Came(caught) => caught,
                Called::Waits(future) if handled + 1 == events => future.await,
                Called::Waits(future) => {
                    let waiting = Waiting { delivery, future, since: pulse.since() };
                    return Attempted { handled, end: End::Waits(waiting) };
                }
            };
            if let Some(failure) = self.took(&delivery, caught, &pulse) {
                return Attempted { handled, end: End::Failed(failure) };
            }
        }
        Attempted { handled: events, end: End::Over }
    }

    /// Counts what was handled; else says why it was not.
    fn took(&self, delivery: &Delivery, caught: Caught, pulse: &Pulse) -> Option<Failure> {
        match caught {
            Ok(Ok(())) => {
                self.meter.handled(delivery.record().event_type(), pulse.elapsed());
                None
            }
            Ok(Err(HandlerError::Failed(reason))) => Some(Failure::Failed(reason)),
            Ok(Err(HandlerError::Unreadable(error))) => {
                Some(Failure::Unreadable(error.to_string()))
            }
            Err(panic) => Some(Failure::Panicked(words_of(&*panic))),
        }
    }
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

    /// When the event under way began.
    fn since(&self) -> Instant {
        self.0.lock().current.map_or_else(now, |(_, since)| since)
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().current.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// What is left of the time that the event under way may take.
    fn left(&self, timeout: Duration) -> Duration {
        timeout.saturating_sub(self.elapsed())
    }

    /// Gives the batch up if nothing of it has begun.
    fn give_back(&self) -> bool {
        let mut beat = self.0.lock();
        beat.is_given_up |= beat.current.is_none();
        beat.is_given_up
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
