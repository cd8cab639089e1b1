//! What callers and the connection share: one lock around what waits and what is in flight.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::channel::oneshot;
use parking_lot::Mutex;
use quipu_protocol::{Cancel, Credit, Fault, Message, Ping, Pong, Welcome};
use quipu_types::{AppendError, AppendOutcome, ReadError, Uuid};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::address::Address;
use super::appends::{Answer, Appends, Pending, Window};
use super::calls::{Calls, Forgotten, Patience};
use super::error::{Ending, append_error, read_error};
use super::options::RemoteOptions;
use super::parts::{Part, PartReceiver, PartSender, parts};
use super::terms::Terms;

/// A time-out for ever.
const FAR_AWAY: Duration = Duration::from_hours(24 * 365);

/// Where a message has its request id.
const REQUEST_ID: std::ops::Range<usize> = 8..16;

/// A message that belongs to no request that is open here: the server breaks the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotOpen(pub(super) u64);

/// What callers and the connection share.
///
/// Invariants:
/// 1. Callers' wakers are a host's code: nobody is told anything while the state is locked.
/// 2. Messages leave in this order: what an earlier connection left unanswered, then what opens
///    or feeds streams, then new appends.
pub(super) struct Shared {
    pub(super) address: Address,
    pub(super) options: RemoteOptions,
    pub(super) log_id: Uuid,
    state: Mutex<State>,
    /// There may be something to send.
    pub(super) outgoing: Notify,
    /// A consumer found that the server breaks the protocol; see [`Self::broken`].
    broken: Notify,
}

struct State {
    link: Link,
    /// The number of the connection, and whether the server broke the protocol on it.
    connection: u64,
    is_broken: bool,
    terms: Terms,
    appends: Appends,
    calls: Calls,
    /// Messages other than appends, with their request ids.
    others: VecDeque<(u64, Bytes)>,
    ping_due: bool,
    pong_due: Option<u64>,
    last_id: u64,
}

enum Link {
    Up,
    /// The server has said that it stops: nothing but signs of life is sent to it.
    Stopping,
    Down(String),
    Ended(Ending),
}

impl Shared {
    /// With a connection that has been welcomed.
    pub(super) fn new(address: Address, options: RemoteOptions, welcome: &Welcome) -> Self {
        let state = State {
            link: Link::Up,
            connection: 0,
            is_broken: false,
            terms: Terms::of(welcome),
            appends: Appends::default(),
            calls: Calls::default(),
            others: VecDeque::new(),
            ping_due: false,
            pong_due: None,
            last_id: 0,
        };
        let (state, outgoing, broken) = (Mutex::new(state), Notify::new(), Notify::new());
        Self { address, options, log_id: welcome.log_id, state, outgoing, broken }
    }

    /// What the server takes.
    pub(super) fn terms(&self) -> Terms {
        self.state.lock().terms
    }

    /// When a request that begins now is over.
    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.options.timeout).unwrap_or(now + FAR_AWAY)
    }

    /// Lets an append in, at the end of the queue; gives it its request id.
    pub(super) fn admit(
        &self,
        mut message: BytesMut,
        deadline: Instant,
        uncertain: bool,
    ) -> Admitted<'_> {
        let (answer, outcome) = oneshot::channel();
        let mut state = self.state.lock();
        if let Link::Ended(ending) = &state.link {
            let error = ending.append_error(uncertain);
            drop(state);
            // The receiver is right here.
            drop(answer.send(Err(error)));
            return Admitted { shared: self, id: 0, message: message.freeze(), outcome };
        }
        if let Err(too_large) = state.terms.check_append(message.len(), uncertain) {
            drop(state);
            drop(answer.send(Err(too_large)));
            return Admitted { shared: self, id: 0, message: message.freeze(), outcome };
        }
        let id = state.next_id();
        message[REQUEST_ID].copy_from_slice(&id.to_le_bytes());
        let message = message.freeze();
        let answer = Some(answer);
        let pending = Pending { id, message: message.clone(), deadline, uncertain, answer };
        state.appends.push(pending);
        drop(state);
        self.outgoing.notify_one();
        Admitted { shared: self, id, message, outcome }
    }

    /// Opens a stream or asks a question; its parts come through the receiver.
    pub(super) fn call(&self, message: &impl Message, patience: Patience) -> (u64, PartReceiver) {
        let (sender, parts) = parts();
        let mut message = encoded(0, message);
        let mut state = self.state.lock();
        if let Link::Ended(ending) = &state.link {
            let error = ending.read_error();
            drop(state);
            sender.send(Part::Failed(error));
            return (0, parts);
        }
        if let Err(too_large) = state.terms.check_request(message.len()) {
            drop(state);
            sender.send(Part::Failed(too_large));
            return (0, parts);
        }
        let id = state.next_id();
        state.calls.open(id, sender, patience);
        message[REQUEST_ID].copy_from_slice(&id.to_le_bytes());
        state.others.push_back((id, message.freeze()));
        drop(state);
        self.outgoing.notify_one();
        (id, parts)
    }

    /// Gives credit to a stream.
    pub(super) fn give_credit(&self, id: u64, credit: Credit) {
        let mut state = self.state.lock();
        if state.calls.listener(id).is_some() {
            state.push(id, &credit);
            drop(state);
            self.outgoing.notify_one();
        }
    }

    /// Whoever opened the stream has gone.
    pub(super) fn cancel(&self, id: u64) {
        let mut state = self.state.lock();
        let forgotten = state.calls.forget(id);
        match &forgotten {
            Forgotten::Sent => state.push(id, &Cancel),
            Forgotten::Unsent(_) => state.others.retain(|(other, _)| *other != id),
            Forgotten::Closed => return,
        }
        drop(state);
        if let Forgotten::Unsent(listener) = forgotten {
            drop(listener);
        }
        self.outgoing.notify_one();
    }

    pub(super) fn ping(&self) {
        self.state.lock().ping_due = true;
        self.outgoing.notify_one();
    }

    pub(super) fn pong(&self, id: u64) {
        self.state.lock().pong_due = Some(id);
        self.outgoing.notify_one();
    }

    /// Takes everything that may be sent now.
    pub(super) fn take_outgoing(&self, batch: &mut VecDeque<Bytes>) {
        let RemoteOptions { in_flight_appends, in_flight_bytes, .. } = self.options;
        let window = Window { appends: in_flight_appends, bytes: in_flight_bytes };
        let state = &mut *self.state.lock();
        batch.extend(state.signs_of_life());
        if !matches!(state.link, Link::Up) {
            return;
        }
        batch.extend(std::iter::from_fn(|| state.appends.next_again()));
        for (id, message) in state.others.drain(..) {
            state.calls.set_sent(id);
            batch.push_back(message);
        }
        batch.extend(std::iter::from_fn(|| state.appends.next(window)));
    }

    /// An append is stored.
    pub(super) fn appended(&self, id: u64, outcome: AppendOutcome) -> Result<(), NotOpen> {
        self.answer(id, |_| Ok(outcome))
    }

    fn answer(
        &self,
        id: u64,
        result: impl FnOnce(bool) -> Result<AppendOutcome, AppendError>,
    ) -> Result<(), NotOpen> {
        let mut state = self.state.lock();
        let pending = state.appends.take_sent(id).ok_or(NotOpen(id))?;
        let more = state.appends.has_unsent();
        drop(state);
        if more {
            self.outgoing.notify_one();
        }
        if let Some(answer) = pending.answer {
            tell(answer, result(pending.uncertain));
        }
        Ok(())
    }

    /// A stream goes on.
    pub(super) fn deliver(&self, id: u64, part: Part) -> Result<(), NotOpen> {
        let listener = self.state.lock().calls.listener(id).ok_or(NotOpen(id))?;
        listener.send(part);
        Ok(())
    }

    /// A stream or a question is over.
    pub(super) fn close(&self, id: u64, part: Part) -> Result<(), NotOpen> {
        let listener = self.state.lock().calls.close(id).ok_or(NotOpen(id))?;
        listener.send(part);
        Ok(())
    }

    /// A request failed.
    pub(super) fn fail(&self, id: u64, fault: Fault) -> Result<(), NotOpen> {
        let is_append = self.state.lock().appends.is_sent(id);
        match fault {
            Fault::Stopping if is_append => {
                // It is sent again, with all behind it, to the server that comes next.
                self.set_stopping();
                Ok(())
            }
            Fault::Stopping => self.stop_stream(id),
            fault if is_append => self.answer(id, |uncertain| Err(append_error(fault, uncertain))),
            fault => self.close(id, Part::Failed(read_error(fault))),
        }
    }

    /// The server stops, and a stream with it: it goes on with the server that comes next.
    pub(super) fn stop_stream(&self, id: u64) -> Result<(), NotOpen> {
        self.set_stopping();
        self.close(id, Part::Lost)
    }

    /// The server takes nothing more.
    fn set_stopping(&self) {
        let mut state = self.state.lock();
        if matches!(state.link, Link::Up) {
            state.link = Link::Stopping;
        }
    }

    /// A connection is there; gives its number. What waits and is too large for this server fails:
    /// sent all the same, it would end this connection, and every one after it.
    pub(super) fn connected(&self, welcome: &Welcome) -> u64 {
        let mut state = self.state.lock();
        state.terms = Terms::of(welcome);
        state.link = Link::Up;
        state.connection += 1;
        state.is_broken = false;
        let (terms, connection) = (state.terms, state.connection);
        let appends = state.appends.take_larger(terms.message_bytes_max);
        let calls = state.take_larger();
        drop(state);
        for Pending { answer, message, uncertain, .. } in appends {
            let too_large = terms.check_append(message.len(), uncertain);
            if let (Some(answer), Err(too_large)) = (answer, too_large) {
                tell(answer, Err(too_large));
            }
        }
        for (call, bytes) in calls {
            if let Err(too_large) = terms.check_request(bytes) {
                call.send(Part::Failed(too_large));
            }
        }
        connection
    }

    /// A consumer found that the server broke the protocol on this connection.
    pub(super) fn break_off(&self, connection: u64) {
        let mut state = self.state.lock();
        state.is_broken |= state.connection == connection;
        drop(state);
        self.broken.notify_one();
    }

    /// Resolves when the server has broken the protocol on the connection that is there now.
    pub(super) async fn broken(&self) {
        while !self.state.lock().is_broken {
            self.broken.notified().await;
        }
    }

    /// The connection is lost: streams ask again from where they are, appends are sent again.
    pub(super) fn lost(&self, problem: String) {
        let mut state = self.state.lock();
        state.link = Link::Down(problem);
        (state.ping_due, state.pong_due) = (false, None);
        state.appends.lose_connection();
        let calls = state.calls.lose_connection();
        state.keep_opening();
        drop(state);
        for call in calls {
            call.send(Part::Lost);
        }
    }

    /// Why there is no connection, for whoever waits in vain.
    pub(super) fn set_problem(&self, problem: String) {
        let mut state = self.state.lock();
        if matches!(state.link, Link::Down(_)) {
            state.link = Link::Down(problem);
        }
    }

    /// There will be no connection any more.
    pub(super) fn end(&self, ending: &Ending) {
        let mut state = self.state.lock();
        if matches!(state.link, Link::Ended(_)) {
            return;
        }
        state.link = Link::Ended(ending.clone());
        state.others.clear();
        let (appends, calls) = (state.appends.drain(), state.calls.drain());
        drop(state);
        for Pending { answer, uncertain, .. } in appends {
            if let Some(answer) = answer {
                tell(answer, Err(ending.append_error(uncertain)));
            }
        }
        for call in calls {
            call.send(Part::Failed(ending.read_error()));
        }
    }

    /// Tells those whose time is over.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.state.lock();
        let (appends, calls) = (state.appends.expire(now), state.calls.expire(now));
        if appends.is_empty() && calls.is_empty() {
            return;
        }
        state.others.retain(|(id, _)| calls.iter().all(|(late, _)| late != id));
        let problem = format!("{} for {:?}: {}", self.address, self.options.timeout, state.link);
        drop(state);
        for (answer, uncertain) in appends {
            let error =
                if uncertain { AppendError::OutcomeUnknown } else { AppendError::NotWritten };
            tell(answer, Err(error(problem.clone())));
        }
        for (_, listener) in calls {
            listener.send(Part::Failed(ReadError::Unavailable(problem.clone())));
        }
    }

    /// Appends and other requests that are not closed.
    pub(super) fn open_requests(&self) -> usize {
        let state = self.state.lock();
        state.appends.len() + state.calls.len()
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn push(&mut self, id: u64, message: &impl Message) {
        self.others.push_back((id, encoded(id, message).freeze()));
    }

    /// Takes the calls that wait and are too large, with their sizes.
    fn take_larger(&mut self) -> Vec<(PartSender, usize)> {
        let limit = self.terms.message_bytes_max;
        let all = std::mem::take(&mut self.others);
        let larger: VecDeque<_>;
        (self.others, larger) = all.into_iter().partition(|(_, message)| message.len() <= limit);
        let call = |(id, message): (u64, Bytes)| Some((self.calls.close(id)?, message.len()));
        larger.into_iter().filter_map(call).collect()
    }

    /// Credit and cancellations are for streams that the server knows.
    fn keep_opening(&mut self) {
        let Self { others, calls, .. } = self;
        others.retain(|(id, _)| calls.listener(*id).is_some());
    }

    fn signs_of_life(&mut self) -> impl Iterator<Item = Bytes> {
        let ping = std::mem::take(&mut self.ping_due).then(|| encoded(0, &Ping).freeze());
        let pong = self.pong_due.take().map(|id| encoded(id, &Pong).freeze());
        ping.into_iter().chain(pong)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("connected, but it has not answered"),
            Self::Stopping => f.write_str("it is stopping"),
            Self::Down(problem) => write!(f, "no connection ({problem})"),
            Self::Ended(_) => f.write_str("the connection has ended"),
        }
    }
}

/// An append that was let in. Dropping it takes the append back if it was never sent.
pub(super) struct Admitted<'a> {
    shared: &'a Shared,
    id: u64,
    message: Bytes,
    outcome: oneshot::Receiver<Result<AppendOutcome, AppendError>>,
}

impl Admitted<'_> {
    /// Waits for the answer; gives the message back with an error.
    pub(super) async fn outcome(mut self) -> Result<AppendOutcome, (AppendError, Bytes)> {
        let outcome = (&mut self.outcome).await;
        self.id = 0;
        let closed = |oneshot::Canceled| Err(AppendError::Closed);
        outcome.unwrap_or_else(closed).map_err(|error| (error, std::mem::take(&mut self.message)))
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.id != 0 {
            // Bound, so that it is dropped when the lock is free again.
            let withdrawn = self.shared.state.lock().appends.withdraw(self.id);
            drop(withdrawn);
        }
    }
}

fn encoded(id: u64, message: &impl Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    message.encode(id, &mut bytes);
    bytes
}

fn tell(answer: Answer, result: Result<AppendOutcome, AppendError>) {
    // A caller that has gone does not want it.
    drop(answer.send(result));
}
