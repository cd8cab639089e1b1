//! One handler at work: pulls events, hands them out in their lanes, and sees to those that fail.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use event_listener::EventListener;
use futures::future::{BoxFuture, poll_fn};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use futures_timer::Delay;
use quipu_types::Position;

use super::calls::{Attempted, Calls, Code, End, Failure};
use super::clock::now;
use super::handler::Unreadable;
use super::in_hand::InHand;
use super::lanes::{Cause, Lanes, Work};
use super::metrics::HandlerStatus;
use super::note::Note;
use super::shared::{AskedReplay, BusShared, HandlerShared};
use super::source::{Pulled, Source};
use super::step::{Step, loaded, noted};

/// Events handed out at once, at most.
const BATCH_MAX: usize = 256;
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// One handler at work.
///
/// Invariants:
/// 1. Everything up to the place that is reported is handled, parked or skipped, or is none of this
///    handler's events: the place stays before the first in hand of what came up.
/// 2. A lane that waits (for a call, a pause, a note) is busy, so what is behind waits too.
/// 3. What came up and a part of the past are never in hand at the same time.
pub(super) struct Driver {
    bus: Arc<BusShared>,
    handler: Arc<HandlerShared>,
    calls: Calls,
    /// How many calls there may be at once.
    slots: usize,
    /// Events handed out at once: as many as the last call could take without waiting, and more.
    reach: usize,
    source: Source,
    lanes: Lanes,
    steps: FuturesUnordered<BoxFuture<'static, Step>>,
    /// Calls under way, and notes under way: these are waited for when the handler stops.
    calling: usize,
    noting: usize,
    in_hand: InHand,
    /// Pulled up to here.
    seen: Position,
    has_handled: bool,
    replay: Option<ReplayProgress>,
    /// Parked events that are to be handled again, and are not read yet.
    asked: BTreeSet<Position>,
    is_loading: bool,
}

/// How far a replay is.
struct ReplayProgress {
    seen: Position,
    events: u64,
    is_over: bool,
    noted_at: Instant,
}

impl Driver {
    pub(super) fn new(
        bus: Arc<BusShared>,
        handler: Arc<HandlerShared>,
        calls: Calls,
        source: Source,
        seen: Position,
    ) -> Self {
        let is_async = matches!(calls.code, Code::Async(_));
        let slots = if is_async { handler.settings.concurrency } else { 1 };
        Self {
            bus,
            handler,
            calls,
            slots,
            reach: BATCH_MAX,
            source,
            lanes: Lanes::new(is_async),
            steps: FuturesUnordered::new(),
            calling: 0,
            noting: 0,
            in_hand: InHand::default(),
            seen,
            has_handled: false,
            replay: None,
            asked: BTreeSet::new(),
            is_loading: false,
        }
    }

    /// Works until the handler stops. What is being called then is finished, all else given back.
    pub(super) async fn run(mut self) {
        loop {
            // Looked at once a round: what ends the loop and what is waited for must not differ.
            let is_stopping = self.is_stopping();
            if is_stopping && self.calling + self.noting == 0 {
                break;
            }
            let asked = self.handler.asked.listen();
            self.load_asked();
            self.begin_replay();
            self.note_replay();
            self.start_calls();
            self.report();
            self.next(asked, is_stopping).await;
        }
        self.report();
    }

    fn is_stopping(&self) -> bool {
        self.handler.stop.is_set()
    }

    /// Waits until something happens, and takes it.
    async fn next(&mut self, mut asked: EventListener, is_stopping: bool) {
        let stop = Arc::clone(&self.handler.stop);
        let mut stopped = pin!(async {
            if is_stopping {
                // It is known already: what is left is waited for.
                std::future::pending::<()>().await;
            }
            stop.wait().await;
        });
        let step = poll_fn(|context| {
            if let Poll::Ready(Some(step)) = self.steps.poll_next_unpin(context) {
                return Poll::Ready(Some(step));
            }
            let wakes = self.poll_source(context)
                || Pin::new(&mut asked).poll(context).is_ready()
                || stopped.as_mut().poll(context).is_ready();
            if wakes { Poll::Ready(None) } else { Poll::Pending }
        });
        let mut next = step.await;
        while let Some(step) = next {
            self.take(step);
            next = self.steps.next().now_or_never().flatten();
        }
    }

    /// Pulls as much as there is room for; says whether anything came.
    fn poll_source(&mut self, context: &mut Context<'_>) -> bool {
        let mut came = false;
        while self.has_room() {
            let Poll::Ready(pulled) = self.source.poll_next(context) else { break };
            came = true;
            self.accept(pulled);
        }
        came
    }

    fn has_room(&self) -> bool {
        let waits_for_replay =
            self.replay.is_none() && !self.handler.notes.lock().replays.is_empty();
        let is_over = self.replay.as_ref().is_some_and(|replay| replay.is_over);
        !self.is_stopping() && !waits_for_replay && !is_over && !self.is_full()
    }

    fn is_full(&self) -> bool {
        let settings = &self.handler.settings;
        self.in_hand.events() + usize::from(self.is_loading) >= settings.window
            || self.in_hand.bytes() >= settings.window_bytes
    }

    fn accept(&mut self, pulled: Pulled) {
        if !matches!(pulled, Pulled::Waits(_) | Pulled::Failed(_)) {
            self.handler.set_status(HandlerStatus::Running);
        }
        match pulled {
            Pulled::Event(record) => {
                self.seen = record.position();
                // Parked, or dropped, before the place was saved: it came a second time.
                if !self.handler.notes.lock().parked.is_put_aside(self.seen) {
                    self.take_in_hand(Work::new(record, Cause::Live));
                }
            }
            Pulled::Passed(position) => self.seen = self.seen.max(position),
            Pulled::Replayed(record) => {
                if let Some(replay) = &mut self.replay {
                    replay.seen = record.position();
                }
                self.take_in_hand(Work::new(record, Cause::Replay));
            }
            Pulled::ReplayOver => {
                if let Some(replay) = &mut self.replay {
                    replay.is_over = true;
                }
            }
            Pulled::Waits(error) => {
                self.handler.set_status(HandlerStatus::Waiting(error.to_string()));
            }
            Pulled::Failed(error) => self.stop(format!("it cannot read the log: {error}")),
        }
    }

    fn take_in_hand(&mut self, work: Work) {
        self.in_hand.take(&work);
        self.lanes.push(work);
    }

    fn stop(&self, reason: String) {
        self.handler.stop_with(reason);
    }

    fn report(&mut self) {
        let before_first = self.in_hand.first_live().map(Position::previous);
        let handled = std::mem::take(&mut self.has_handled);
        self.handler.progressed(before_first.unwrap_or(self.seen), handled, &self.in_hand);
    }

    fn start_calls(&mut self) {
        while !self.is_stopping() && self.calling < self.slots {
            let works = self.gather();
            if works.is_empty() {
                return;
            }
            let is_parked = |work: &Work| self.handler.is_parked(work.record.position());
            let deliveries = works.iter().map(|work| work.delivery(is_parked(work)));
            let attempt = self.calls.clone().attempt(deliveries.collect());
            self.call(works, attempt);
        }
    }

    fn call(&mut self, works: Vec<Work>, call: impl Future<Output = Attempted> + Send + 'static) {
        self.calling += 1;
        self.steps.push(call.map(|attempted| Step::Attempted { works, attempted }).boxed());
    }

    /// What is handed out next, of as many lanes as are one thread's share.
    fn gather(&mut self) -> Vec<Work> {
        let mut lanes = self.lanes.ready().div_ceil(self.handler.settings.threads);
        let mut works = Vec::new();
        while works.is_empty() || (lanes > 0 && works.len() < self.reach) {
            let Some(lane) = self.lanes.take() else { break };
            lanes = lanes.saturating_sub(1);
            self.gather_from(lane, &mut works);
        }
        works
    }

    /// Takes what a lane has, up to what has to be seen to by itself.
    fn gather_from(&mut self, lane: u64, works: &mut Vec<Work>) {
        let settings = &self.handler.settings;
        let notes = self.handler.notes.lock();
        let ahead = |work: &Work| {
            let may_wait = settings.parks_behind && work.cause == Cause::Live;
            if !may_wait || notes.parked.len() == 0 {
                return None;
            }
            notes.parked.ahead_of(&work.record.aggregate(), work.record.position())
        };
        let room = self.reach.saturating_sub(works.len()).max(1);
        let taken = self.lanes.batch(lane, |batch, work| {
            // What is parked now is noted when it is handled: one at a time. What was parked may be
            // gone by now, and takes nothing along.
            let is_alone = |work: &Work| {
                matches!(work.cause, Cause::Parked { .. })
                    || notes.parked.get(work.record.position()).is_some()
            };
            let joins = |first: &Work| {
                first.failed + work.failed == 0 && !is_alone(first) && !is_alone(work)
            };
            batch.len() < room && batch.first().is_none_or(joins) && ahead(work).is_none()
        });
        let Some(first) = taken.first() else {
            let behind = self.lanes.batch(lane, |batch, _| batch.is_empty()).pop();
            let behind = behind.and_then(|work| Some((ahead(&work)?, work)));
            drop(notes);
            return match behind {
                Some((ahead, work)) => {
                    self.park(work, &format!("behind position {ahead}, which is parked"));
                }
                None => self.lanes.free(lane),
            };
        };
        drop(notes);
        if self.is_left(first) {
            self.settle(first);
            return self.lanes.free(lane);
        }
        works.extend(taken);
    }

    /// Whether somebody asked for the event in vain: it was dropped, or handled, since then, or is
    /// behind one that failed.
    fn is_left(&self, work: &Work) -> bool {
        let in_order = self.handler.settings.parks_behind;
        matches!(work.cause, Cause::Parked { .. })
            && !self.handler.notes.lock().parked.is_next(&work.record, in_order)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Attempted { works, attempted } => {
                self.calling -= 1;
                self.attempted(works, attempted);
            }
            Step::Due(work) => {
                let lane = work.lane;
                self.lanes.give_back(vec![work]);
                self.lanes.free(lane);
            }
            Step::Noted { work, stored } => {
                self.noting -= 1;
                match stored {
                    Ok(true) => {
                        self.settle(&work);
                        self.lanes.free(work.lane);
                    }
                    Ok(false) => {}
                    Err(error) => self.stop(format!("it cannot note what it did: {error}")),
                }
            }
            Step::ReplayNoted { is_end, stored } => {
                self.noting -= 1;
                if let Err(error) = stored {
                    self.stop(format!("it cannot note its replay: {error}"));
                } else if is_end {
                    self.replay = None;
                    self.source.end_replay();
                }
            }
            Step::Loaded(loaded) => {
                self.is_loading = false;
                match loaded {
                    Ok(work) => self.take_in_hand(work),
                    Err(error) => self.stop(format!("it cannot read what is parked: {error}")),
                }
            }
        }
    }

    fn attempted(&mut self, mut works: Vec<Work>, attempted: Attempted) {
        let Attempted { handled, end } = attempted;
        let mut left = works.split_off(handled.min(works.len()));
        let next = (!matches!(end, End::Over) && !left.is_empty()).then(|| left.remove(0));
        // What was handed out of a lane stands together.
        let mut lanes: Vec<u64> = left.iter().map(|work| work.lane).collect();
        let (stays, again) = (next.as_ref().map(|work| work.lane), lanes.first().copied());
        self.lanes.give_back(left);
        for work in works {
            self.count_retry(&work);
            let (lane, position) = (work.lane, work.record.position());
            if self.handler.is_parked(position) {
                self.note(work, Note::ParkedHandled { position });
            } else {
                self.settle(&work);
                lanes.extend(Some(lane).filter(|lane| Some(*lane) != again));
            }
        }
        lanes.dedup();
        let is_free = |lane: &u64| Some(*lane) != stays;
        lanes.into_iter().filter(is_free).for_each(|lane| self.lanes.free(lane));
        match (end, next) {
            (End::Failed(failure), Some(work)) => self.failed(work, &failure),
            (End::Waits(waiting), Some(work)) => {
                self.reach = 1;
                let call = self.calls.clone().go_on(waiting);
                self.call(vec![work], call);
            }
            _ => self.reach = (handled * 2).clamp(1, BATCH_MAX),
        }
    }

    fn count_retry(&self, work: &Work) {
        if work.failed > 0 {
            let event_type = work.record.event_type();
            self.handler.meter.count(event_type, |counts| counts.retries += 1);
        }
    }

    /// The event needs nothing more.
    fn settle(&mut self, work: &Work) {
        let was_there = self.in_hand.settle(work);
        match work.cause {
            Cause::Live => self.has_handled |= was_there,
            Cause::Parked { .. } => {}
            Cause::Replay => {
                if let Some(replay) = &mut self.replay {
                    replay.events += 1;
                }
            }
        }
    }

    fn failed(&mut self, mut work: Work, failure: &Failure) {
        self.count_retry(&work);
        let event_type = work.record.event_type().to_owned();
        self.handler.meter.count(&event_type, |counts| counts.errors += 1);
        work.failed += 1;
        let place =
            format!("event {} at position {}", work.record.event_id(), work.record.position());
        match (failure, self.handler.settings.unreadable) {
            (Failure::Hangs(_), _) => return self.stop(format!("{place}: {failure}")),
            (Failure::Unreadable(_), Unreadable::Stop) => {
                return self.stop(format!("it cannot read {place}: {failure}"));
            }
            (Failure::Unreadable(_), Unreadable::Skip) => {
                self.handler.meter.count(&event_type, |counts| counts.skipped += 1);
                self.settle(&work);
                return self.lanes.free(work.lane);
            }
            (Failure::Unreadable(_), Unreadable::Park) => {}
            _ if matches!(work.cause, Cause::Parked { .. }) => {}
            _ => {
                if let Some(pause) = self.handler.settings.backoff.pause_after(work.failed) {
                    let due = Delay::new(pause).map(move |()| Step::Due(work));
                    return self.steps.push(due.boxed());
                }
            }
        }
        self.park(work, &failure.to_string());
    }

    fn park(&mut self, work: Work, error: &str) {
        if self.is_left(&work) {
            self.settle(&work);
            return self.lanes.free(work.lane);
        }
        let parked = self.handler.notes.lock().parked.len();
        let limit = self.handler.settings.parked_max;
        if parked >= limit && !matches!(work.cause, Cause::Parked { .. }) {
            return self
                .stop(format!("it has parked {parked} events, the limit is {limit}: {error}"));
        }
        let event_type = work.record.event_type();
        self.handler.meter.count(event_type, |counts| counts.parked += 1);
        let note = Note::parked(&work.record, work.attempts(), error);
        self.note(work, note);
    }

    fn note(&mut self, work: Work, note: Note) {
        self.noting += 1;
        let noting = noted(Arc::clone(&self.bus), Arc::clone(&self.handler), note);
        self.steps.push(noting.map(move |stored| Step::Noted { work, stored }).boxed());
    }

    /// Parked events that somebody wants to be handled again are read, one after the other, as
    /// there is room. Not before they were pulled past: what comes a second time comes before them.
    fn load_asked(&mut self) {
        if self.is_loading || self.is_full() {
            return;
        }
        let in_order = self.handler.settings.parks_behind;
        let parked = &mut self.handler.notes.lock().parked;
        self.asked.append(&mut parked.take_asked(self.seen, in_order));
        let is_free = |position: &&Position| !self.in_hand.has_parked(**position);
        while let Some(position) = self.asked.iter().find(is_free).copied() {
            self.asked.remove(&position);
            if let Some(event) = parked.get(position) {
                self.is_loading = true;
                let load = loaded(Arc::clone(&self.bus), event.clone());
                return self.steps.push(load.map(Step::Loaded).boxed());
            }
        }
    }

    /// Begins the next replay that was asked for, once nothing else is in hand.
    fn begin_replay(&mut self) {
        if self.replay.is_some() || self.in_hand.first_live().is_some() || self.is_stopping() {
            return;
        }
        let Some(asked) = self.handler.notes.lock().replays.front().cloned() else { return };
        let (seen, events) = (asked.position, asked.events);
        let within = asked.request.clone().within(&self.handler.settings.subject);
        let is_over = within.is_none();
        self.replay = Some(ReplayProgress { seen, events, is_over, noted_at: now() });
        let request = within.unwrap_or_default();
        self.source.begin_replay(AskedReplay { request, ..asked });
    }

    /// Notes how far the replay is from time to time, and when it is over.
    fn note_replay(&mut self) {
        let (Some(replay), Some(asked)) = (&mut self.replay, self.source.replay()) else { return };
        let (replay_id, events) = (asked.replay_id, replay.events);
        let first = self.in_hand.first_replayed();
        let is_end = replay.is_over && first.is_none();
        if self.noting > 0 || !(is_end || replay.noted_at.elapsed() >= PROGRESS_EVERY) {
            return;
        }
        replay.noted_at = now();
        let position = first.map_or(replay.seen, Position::previous);
        let note = if is_end {
            Note::ReplayEnded { replay_id, events }
        } else {
            Note::ReplayProgressed { replay_id, position, events }
        };
        self.noting += 1;
        let noting = noted(Arc::clone(&self.bus), Arc::clone(&self.handler), note);
        self.steps.push(noting.map(move |stored| Step::ReplayNoted { is_end, stored }).boxed());
    }
}
