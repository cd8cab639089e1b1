//! What waits for the sequencer: appends, bounded in bytes and count, and finished work.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quipu_types::AppendError;

use super::outcome::Reply;
use super::prepared::PreparedAppend;
use super::preparer::Prepared;
use crate::host::wake_all;
use crate::storage::CompletionSink;
use crate::sync::{Condvar, Mutex};

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

/// So many appends, or bytes, are held back no longer: holding back more would cost them time, and
/// spare the disk nothing.
const HELD_APPENDS_MAX: usize = 32;
const HELD_BYTES_MAX: usize = 128 << 10;

/// What waits for the sequencer.
///
/// Invariants:
/// 1. Appends leave in the order they were let in, and are let in first come, first served: once
///    one has to wait for room, later ones wait behind it.
/// 2. Bytes and count stay within the limits, but for one append of any size.
/// 3. Wakers, and replies, are a host's code and may come back into the log: none is cloned, woken
///    or dropped while the inbox is locked.
/// 4. What was submitted quietly is held back until [`Inbox::wake`], or an append is let in that
///    was not, or one has to wait for room, or there is too much of it, or the log closes or
///    refuses all; then all of it is to be taken.
pub struct Inbox {
    limits: QueueLimits,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Submission>,
    queued_bytes: usize,
    /// The last ones of the queue, which are not to be taken yet.
    held: Held,
    waiting: VecDeque<Waiter>,
    next_ticket: u64,
    /// Of those for whom room was kept, until [`Inbox::take_granted`].
    granted: Vec<Waker>,
    written: Vec<(u64, io::Result<()>)>,
    prepared: Option<Prepared>,
    closing: bool,
    closed: bool,
    /// Counts everything that arrives, so that no arrival is slept through.
    arrivals: u64,
}

#[derive(Default)]
struct Held {
    appends: usize,
    bytes: usize,
}

struct Waiter {
    ticket: u64,
    bytes: usize,
    /// Room has been kept for it; it may come in.
    granted: bool,
    /// Taken when it is woken: it leaves a new one when it looks again.
    waker: Option<Waker>,
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
        state.release();
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Lets an append in as soon as there is room.
    pub fn push(self: &Arc<Self>, submission: Submission) -> Admission {
        let (inbox, submission) = (Arc::clone(self), Some(submission));
        Admission { inbox, submission, ticket: None, is_quiet: false }
    }

    /// Holds nothing back any more, and wakes a committer thread for what was.
    pub fn wake(&self) {
        if self.state.lock().release() {
            self.arrived.notify_one();
        }
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
        self.state.lock().next().map(|submission| submission.append.frame_bytes())
    }

    /// Takes the oldest append that waits, if `fits` says that it may come. Whoever takes appends
    /// then wakes those of [`Self::take_granted`].
    pub fn pop_if(&self, fits: impl FnOnce(usize) -> bool) -> Option<Submission> {
        let mut state = self.state.lock();
        let bytes = state.next()?.append.frame_bytes();
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
        state.release();
        let all = state.queue.drain(..).collect();
        state.grant(self.limits);
        all
    }

    /// Those who may come in now that appends were taken, to be woken under no lock.
    #[must_use]
    pub fn take_granted(&self) -> Vec<Waker> {
        std::mem::take(&mut self.state.lock().granted)
    }

    /// Whether no append waits that may be taken.
    pub fn is_empty(&self) -> bool {
        self.state.lock().next().is_none()
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
        let refused = self.arrive(|state| {
            state.closing = true;
            state.release();
            std::mem::take(&mut state.waiting)
        });
        wake_all(refused.into_iter().filter_map(|waiter| waiter.waker));
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

    fn arrive<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let changed = change(&mut state);
        state.arrivals += 1;
        drop(state);
        self.arrived.notify_one();
        changed
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

impl Held {
    fn is_bearable(&self) -> bool {
        self.appends < HELD_APPENDS_MAX && self.bytes < HELD_BYTES_MAX
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

    /// The oldest append, if it may be taken.
    fn next(&self) -> Option<&Submission> {
        self.queue.front().filter(|_| self.queue.len() > self.held.appends)
    }

    /// Puts an append behind the others, held back.
    fn let_in(&mut self, submission: Submission, bytes: usize) {
        self.queue.push_back(submission);
        self.queued_bytes += bytes;
        self.held.appends += 1;
        self.held.bytes += bytes;
    }

    /// Holds nothing back any more; whether anything was. Only then something has arrived, or a
    /// log that has failed, and refuses all at each step, would never sleep.
    fn release(&mut self) -> bool {
        let Held { appends, .. } = std::mem::take(&mut self.held);
        self.arrivals += u64::from(appends > 0);
        appends > 0
    }

    /// Keeps room for those who wait, in their order, as far as there is room.
    fn grant(&mut self, limits: QueueLimits) {
        while let Some(index) = self.waiting.iter().position(|waiter| !waiter.granted) {
            if !self.has_room(self.waiting[index].bytes, limits) {
                return;
            }
            self.waiting[index].granted = true;
            self.granted.extend(self.waiting[index].waker.take());
        }
    }

    /// Granted ones enter in their order, so that a late poller does not overtake.
    fn may_enter(&self, ticket: Option<u64>, bytes: usize, limits: QueueLimits) -> bool {
        match ticket {
            None => self.waiting.is_empty() && self.has_room(bytes, limits),
            Some(ticket) => {
                self.waiting.front().is_some_and(|it| it.ticket == ticket && it.granted)
            }
        }
    }

    /// Whose turn it is, now that the one before has entered or gone.
    fn next_granted(&mut self) -> Option<Waker> {
        self.waiting.front_mut().filter(|waiter| waiter.granted)?.waker.take()
    }

    /// Joins the queue of those who wait, or stays in it with a new waker; gives back the old one.
    fn stay(&mut self, ticket: &mut Option<u64>, bytes: usize, waker: Waker) -> Option<Waker> {
        if let Some(ticket) = *ticket {
            let waiter = self.waiting.iter_mut().find(|it| it.ticket == ticket);
            return match waiter {
                Some(waiter) => waiter.waker.replace(waker),
                None => Some(waker),
            };
        }
        *ticket = Some(self.next_ticket);
        let waker = Some(waker);
        self.waiting.push_back(Waiter { ticket: self.next_ticket, bytes, granted: false, waker });
        self.next_ticket += 1;
        None
    }
}

/// Waits until the inbox lets an append in; resolves to an error if the log closes first.
pub struct Admission {
    inbox: Arc<Inbox>,
    submission: Option<Submission>,
    ticket: Option<u64>,
    is_quiet: bool,
}

impl Future for Admission {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.try_enter(None) {
            // Only who has to wait clones its waker, and not under the lock.
            Poll::Pending => self.try_enter(Some(context.waker().clone())),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

impl Admission {
    /// Holds the append back once it is let in, with those that follow. Whoever brings them then
    /// calls [`crate::EventLog::wake`], and must: an append that is held back may otherwise never
    /// be written. For many at a time: a committer thread that is woken for the first of them
    /// takes that one alone, and stops on its way the thread that brings the others.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    fn try_enter(&mut self, waker: Option<Waker>) -> Poll<Result<(), AppendError>> {
        let Some(submission) = self.submission.take() else { return Poll::Ready(Ok(())) };
        let inbox = &self.inbox;
        let bytes = submission.append.frame_bytes();
        let mut state = inbox.state.lock();
        if state.closing {
            return Poll::Ready(Err(AppendError::Closed));
        }
        if !state.may_enter(self.ticket, bytes, inbox.limits) {
            let replaced = waker.and_then(|waker| state.stay(&mut self.ticket, bytes, waker));
            // What is held back may be what there is no room beside.
            let was_holding = state.release();
            drop(state);
            drop(replaced);
            if was_holding {
                inbox.arrived.notify_one();
            }
            self.submission = Some(submission);
            return Poll::Pending;
        }
        let mut waited = None;
        let mut next = None;
        if self.ticket.take().is_some() {
            waited = state.waiting.pop_front();
            next = state.next_granted();
        }
        state.let_in(submission, bytes);
        let is_held = self.is_quiet && state.held.is_bearable();
        if !is_held {
            state.release();
        }
        drop(state);
        drop(waited);
        if !is_held {
            inbox.arrived.notify_one();
        }
        wake_all(next);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.inbox.state.lock();
        let index = state.waiting.iter().position(|waiter| waiter.ticket == ticket);
        let gone = index.and_then(|index| state.waiting.remove(index));
        let mut woken = Vec::from_iter(state.next_granted());
        state.grant(self.inbox.limits);
        woken.append(&mut state.granted);
        drop(state);
        drop(gone);
        wake_all(woken);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Wake;

    use quipu_types::record::EventBody;
    use quipu_types::{AggregateKey, Limits, NewEvent, Timestamp, Uuid};

    use super::*;
    use crate::commit::prepared::Origin;
    use crate::index::keys::KeyHasher;

    fn submission() -> Submission {
        let key = AggregateKey::new("Call", "1");
        let event = NewEvent::json(Uuid::from_u128(1), key, "Made", Timestamp::from_micros(1), "1");
        let (limits, hasher) = (Limits::default(), KeyHasher::new(Uuid::from_u128(1)));
        let events = [EventBody::from(&event)];
        let append = PreparedAppend::new(&events, &[], &limits, hasher, Origin::Client).unwrap();
        Submission { append, reply: Box::new(|_| {}) }
    }

    /// A host's waker that comes back into the log when it is woken and when it is dropped.
    struct Reentrant {
        inbox: Arc<Inbox>,
        woken: Arc<AtomicU64>,
    }

    impl Reentrant {
        fn come_back(&self) {
            assert!(!self.inbox.state.is_locked(), "a waker is called under the lock");
            self.inbox.try_push(submission()).ok();
        }
    }

    impl Wake for Reentrant {
        fn wake(self: Arc<Self>) {
            self.woken.fetch_add(1, Ordering::Relaxed);
            self.come_back();
        }
    }

    impl Drop for Reentrant {
        fn drop(&mut self) {
            self.come_back();
        }
    }

    /// A full inbox before which appends wait, each with a waker of its own.
    struct Crowd {
        inbox: Arc<Inbox>,
        woken: Arc<AtomicU64>,
        waiting: Vec<Admission>,
    }

    impl Crowd {
        fn new(appends: usize, waiting: usize) -> Self {
            let inbox = Arc::new(Inbox::new(QueueLimits { bytes: usize::MAX, appends }));
            (0..appends).for_each(|_| inbox.try_push(submission()).unwrap());
            let waiting = (0..waiting).map(|_| inbox.push(submission())).collect();
            let mut crowd = Self { inbox, woken: Arc::default(), waiting };
            (0..crowd.waiting.len()).for_each(|index| assert!(crowd.poll(index).is_pending()));
            crowd
        }

        fn poll(&mut self, index: usize) -> Poll<Result<(), AppendError>> {
            let (inbox, woken) = (Arc::clone(&self.inbox), Arc::clone(&self.woken));
            let waker = Waker::from(Arc::new(Reentrant { inbox, woken }));
            Pin::new(&mut self.waiting[index]).poll(&mut Context::from_waker(&waker))
        }

        fn take_all(&self) {
            self.inbox.drain();
            self.inbox.take_granted().into_iter().for_each(Waker::wake);
        }

        fn woken(&self) -> u64 {
            self.woken.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn who_has_room_is_woken_under_no_lock_and_enters_in_order() {
        let mut crowd = Crowd::new(2, 3);
        crowd.take_all();
        assert_eq!(crowd.woken(), 2);
        assert!(crowd.poll(1).is_pending(), "it does not overtake");
        assert!(crowd.poll(0).is_ready());
        assert_eq!(crowd.woken(), 3, "the next one is told that it is its turn");
        assert!(crowd.poll(1).is_ready());
        assert!(crowd.poll(2).is_pending());
    }

    #[test]
    fn who_is_closed_upon_is_woken_under_no_lock() {
        let mut crowd = Crowd::new(1, 2);
        crowd.inbox.close();
        assert_eq!(crowd.woken(), 2);
        assert!(matches!(crowd.poll(0), Poll::Ready(Err(AppendError::Closed))));
    }

    #[test]
    fn who_panics_when_it_is_woken_keeps_nobody_else_waiting() {
        struct Panicking;
        impl Wake for Panicking {
            fn wake(self: Arc<Self>) {
                panic!("as a host's waker may");
            }
        }
        let mut crowd = Crowd::new(1, 2);
        let waker = Waker::from(Arc::new(Panicking));
        let first = Pin::new(&mut crowd.waiting[0]).poll(&mut Context::from_waker(&waker));
        assert!(first.is_pending());
        crowd.inbox.close();
        assert_eq!(crowd.woken(), 1);
    }

    #[test]
    fn who_goes_away_wakes_the_next_under_no_lock() {
        let mut crowd = Crowd::new(1, 2);
        crowd.take_all();
        assert_eq!(crowd.woken(), 1);
        crowd.waiting.remove(0);
        assert_eq!(crowd.woken(), 2);
        assert!(crowd.poll(0).is_ready());
    }

    #[test]
    fn what_is_submitted_quietly_is_held_back_but_not_for_ever() {
        let limits = QueueLimits { bytes: usize::MAX, appends: usize::MAX };
        let inbox = Arc::new(Inbox::new(limits));
        let push_quietly = || {
            let mut admission = inbox.push(submission()).quiet();
            let let_in = Pin::new(&mut admission).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(let_in, Poll::Ready(Ok(()))));
        };
        push_quietly();
        assert!(inbox.is_empty() && inbox.next_bytes().is_none());
        assert!(inbox.pop_if(|_| true).is_none());
        let arrivals = inbox.take_finished().arrivals;
        inbox.wake();
        assert!(inbox.take_finished().arrivals > arrivals, "nobody sleeps through it");
        assert!(inbox.pop_if(|_| true).is_some());

        push_quietly();
        inbox.try_push(submission()).unwrap();
        assert_eq!([(); 3].map(|()| inbox.pop_if(|_| true).is_some()), [true, true, false]);

        for _ in 0..HELD_APPENDS_MAX {
            assert!(inbox.is_empty());
            push_quietly();
        }
        assert!(!inbox.is_empty(), "too many");
        push_quietly();
        assert_eq!(inbox.drain().len(), HELD_APPENDS_MAX + 1, "a log that failed refuses all");
        let arrivals = inbox.take_finished().arrivals;
        assert!(inbox.drain().is_empty());
        assert_eq!(inbox.take_finished().arrivals, arrivals, "and then sleeps");

        push_quietly();
        inbox.close();
        assert!(inbox.pop_if(|_| true).is_some(), "a log that closes writes all");
    }

    #[test]
    fn who_waits_for_room_beside_what_is_held_back_releases_it() {
        let inbox = Arc::new(Inbox::new(QueueLimits { bytes: usize::MAX, appends: 1 }));
        let mut context = Context::from_waker(Waker::noop());
        for held_back in [true, false] {
            let mut admission = inbox.push(submission()).quiet();
            assert_eq!(Pin::new(&mut admission).poll(&mut context).is_ready(), held_back);
            assert_eq!(inbox.is_empty(), held_back);
        }
    }

    #[test]
    fn who_looks_again_drops_its_old_waker_under_no_lock() {
        let mut crowd = Crowd::new(1, 1);
        assert!(crowd.poll(0).is_pending());
        crowd.take_all();
        assert_eq!(crowd.woken(), 1, "the newest waker is the one that counts");
    }
}
