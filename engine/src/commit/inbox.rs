//! What waits for the sequencer: appends, bounded in bytes and count, and finished work.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quipu_types::AppendError;

use super::outcome::Reply;
use super::prepared::PreparedAppend;
use super::preparer::Prepared;
use crate::storage::CompletionSink;

/// An append on its way in.
pub struct Submission {
    /// The append.
    pub append: PreparedAppend,
    /// Who is answered.
    pub reply: Reply,
}

/// Bounds of the queue of appends. One append is always let in, however large.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Bytes that may wait.
    pub bytes: usize,
    /// Appends that may wait.
    pub appends: usize,
}

/// What waits for the sequencer.
///
/// Invariants:
/// 1. Appends leave in the order they were let in, and are let in first come, first served: once
///    one has to wait for room, later ones wait behind it.
/// 2. Bytes and count stay within the limits, but for one append of any size.
pub struct Inbox {
    limits: QueueLimits,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Submission>,
    queued_bytes: usize,
    waiting: VecDeque<Waiter>,
    next_ticket: u64,
    written: Vec<(u64, io::Result<()>)>,
    prepared: Option<Prepared>,
    closing: bool,
    closed: bool,
    /// Counts everything that arrives, so that no arrival is slept through.
    arrivals: u64,
}

struct Waiter {
    ticket: u64,
    bytes: usize,
    /// Room has been kept for it; it may come in.
    granted: bool,
    waker: Waker,
}

/// Finished work that the sequencer takes in one go.
pub struct Finished {
    /// Writes that ended, by ticket.
    pub written: Vec<(u64, io::Result<()>)>,
    /// Space that was prepared.
    pub prepared: Option<Prepared>,
    /// The log is to close once everything queued is written.
    pub closing: bool,
    /// How many things have arrived so far; see [`Inbox::wait`].
    pub arrivals: u64,
}

impl Inbox {
    /// An empty inbox.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self { limits, state: Mutex::default(), arrived: Condvar::new() }
    }

    /// Lets an append in at once, or says that there is no room.
    ///
    /// # Errors
    /// `Overloaded` or `Closed`.
    pub fn try_push(&self, submission: Submission) -> Result<(), AppendError> {
        let mut state = self.state.lock();
        if state.closing {
            return Err(AppendError::Closed);
        }
        let bytes = submission.append.frame_bytes();
        if !state.waiting.is_empty() || !state.has_room(bytes, self.limits) {
            let (queued_bytes, queued_appends) = (state.queued_bytes, state.queue.len());
            return Err(AppendError::Overloaded { queued_bytes, queued_appends });
        }
        state.let_in(submission, bytes);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Lets an append in as soon as there is room.
    pub fn push(self: &Arc<Self>, submission: Submission) -> Admission {
        Admission { inbox: Arc::clone(self), submission: Some(submission), ticket: None }
    }

    /// Takes finished work.
    pub fn take_finished(&self) -> Finished {
        let mut state = self.state.lock();
        Finished {
            written: std::mem::take(&mut state.written),
            prepared: state.prepared.take(),
            closing: state.closing,
            arrivals: state.arrivals,
        }
    }

    /// Bytes of the oldest append that waits.
    pub fn next_bytes(&self) -> Option<usize> {
        self.state.lock().queue.front().map(|submission| submission.append.frame_bytes())
    }

    /// Takes the oldest append that waits, if `fits` says that it may come.
    pub fn pop_if(&self, fits: impl FnOnce(usize) -> bool) -> Option<Submission> {
        let mut state = self.state.lock();
        let bytes = state.queue.front()?.append.frame_bytes();
        if !fits(bytes) {
            return None;
        }
        let submission = state.queue.pop_front()?;
        state.queued_bytes -= bytes;
        state.grant(self.limits);
        Some(submission)
    }

    /// Takes every append that waits.
    pub fn drain(&self) -> Vec<Submission> {
        let mut state = self.state.lock();
        state.queued_bytes = 0;
        let all = state.queue.drain(..).collect();
        state.grant(self.limits);
        all
    }

    /// Whether no append waits.
    pub fn is_empty(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    /// Bytes and number of appends that wait.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.queued_bytes, state.queue.len())
    }

    /// Reports prepared space.
    pub fn prepared(&self, prepared: Prepared) {
        self.arrive(|state| state.prepared = Some(prepared));
    }

    /// Asks the sequencer to close the log; no append is let in any more.
    pub fn close(&self) {
        self.arrive(|state| {
            state.closing = true;
            for waiter in state.waiting.drain(..) {
                waiter.waker.wake();
            }
        });
    }

    /// The sequencer has nothing more to do, ever.
    pub fn set_closed(&self) {
        self.arrive(|state| state.closed = true);
        self.arrived.notify_all();
    }

    /// Whether the sequencer has nothing more to do, ever.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Blocks until something arrives beyond `arrivals`, or `timeout` is over.
    pub fn wait(&self, arrivals: u64, timeout: Option<Duration>) {
        let mut state = self.state.lock();
        if state.arrivals != arrivals || state.closed {
            return;
        }
        match timeout {
            Some(timeout) => {
                self.arrived.wait_for(&mut state, timeout);
            }
            None => self.arrived.wait(&mut state),
        }
    }

    /// Wakes one more committer thread: there is work for two.
    pub fn wake_another(&self) {
        self.arrived.notify_one();
    }

    fn arrive(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.arrivals += 1;
        drop(state);
        self.arrived.notify_one();
    }

    /// A write that completed before `submit` returned: the same thread takes it up, nobody else
    /// need wake.
    pub fn written_here(&self, ticket: u64, result: io::Result<()>) {
        let mut state = self.state.lock();
        state.written.push((ticket, result));
        state.arrivals += 1;
    }
}

impl CompletionSink for Inbox {
    fn completed(&self, ticket: u64, result: io::Result<()>) {
        self.arrive(|state| state.written.push((ticket, result)));
    }
}

impl State {
    fn has_room(&self, bytes: usize, limits: QueueLimits) -> bool {
        let kept: usize = self.granted().map(|waiter| waiter.bytes).sum();
        let appends = self.queue.len() + self.granted().count();
        appends == 0
            || (appends < limits.appends && self.queued_bytes + kept + bytes <= limits.bytes)
    }

    fn granted(&self) -> impl Iterator<Item = &Waiter> {
        self.waiting.iter().take_while(|waiter| waiter.granted)
    }

    fn let_in(&mut self, submission: Submission, bytes: usize) {
        self.queue.push_back(submission);
        self.queued_bytes += bytes;
        self.arrivals += 1;
    }

    /// Keeps room for those who wait, in their order, as far as there is room.
    fn grant(&mut self, limits: QueueLimits) {
        while let Some(index) = self.waiting.iter().position(|waiter| !waiter.granted) {
            if !self.has_room(self.waiting[index].bytes, limits) {
                return;
            }
            self.waiting[index].granted = true;
            self.waiting[index].waker.wake_by_ref();
        }
    }
}

/// Waits until the inbox lets an append in; resolves to an error if the log closes first.
pub struct Admission {
    inbox: Arc<Inbox>,
    submission: Option<Submission>,
    ticket: Option<u64>,
}

impl Future for Admission {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(submission) = this.submission.take() else { return Poll::Ready(Ok(())) };
        let inbox = &this.inbox;
        let bytes = submission.append.frame_bytes();
        let mut state = inbox.state.lock();
        if state.closing {
            return Poll::Ready(Err(AppendError::Closed));
        }
        let may_enter = match this.ticket {
            None => state.waiting.is_empty() && state.has_room(bytes, inbox.limits),
            // Granted ones enter in their order, so that a late poller does not overtake.
            Some(ticket) => {
                state.waiting.front().is_some_and(|it| it.ticket == ticket && it.granted)
            }
        };
        if may_enter {
            if this.ticket.take().is_some() {
                state.waiting.pop_front();
                if let Some(next) = state.waiting.front().filter(|it| it.granted) {
                    next.waker.wake_by_ref();
                }
            }
            state.let_in(submission, bytes);
            drop(state);
            inbox.arrived.notify_one();
            return Poll::Ready(Ok(()));
        }
        let waker = context.waker().clone();
        match this.ticket {
            None => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.waiting.push_back(Waiter { ticket, bytes, granted: false, waker });
                this.ticket = Some(ticket);
            }
            Some(ticket) => {
                if let Some(it) = state.waiting.iter_mut().find(|it| it.ticket == ticket) {
                    it.waker = waker;
                }
            }
        }
        drop(state);
        this.submission = Some(submission);
        Poll::Pending
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.inbox.state.lock();
        state.waiting.retain(|waiter| waiter.ticket != ticket);
        if let Some(next) = state.waiting.front().filter(|waiter| waiter.granted) {
            next.waker.wake_by_ref();
        }
        state.grant(self.inbox.limits);
    }
}
