//! Appends that wait to be sent or answered, in the order they were let in.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::channel::oneshot;
use quipu_types::{AppendError, AppendOutcome};
use tokio::time::Instant;

/// Where an append's caller waits.
pub(super) type Answer = oneshot::Sender<Result<AppendOutcome, AppendError>>;

/// An append that has not been answered.
pub(super) struct Pending {
    /// Its request id; later ones have higher ids.
    pub(super) id: u64,
    /// The whole message, kept to be sent again.
    pub(super) message: Bytes,
    /// When its caller gives up.
    pub(super) deadline: Instant,
    /// An earlier sending, on a lost connection or answered with "outcome unknown", may have been
    /// stored.
    pub(super) uncertain: bool,
    /// None: its caller has been told already; only the server's answer is waited for.
    pub(super) answer: Option<Answer>,
}

impl Pending {
    fn is_wanted(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_canceled())
    }
}

/// How much may be sent and not yet answered.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) appends: usize,
    pub(super) bytes: usize,
}

/// Appends that wait to be sent or answered.
///
/// Invariants:
/// 1. `queue` is in the order of admission, and so of ids; its first `sent` have been sent on this
///    connection, and `sent_bytes` are theirs.
/// 2. Nothing is sent before what an earlier connection left unanswered.
/// 3. What nobody waits for is not sent, and not sent again.
///
/// What waits beyond the window is bounded by its callers: each holds at most one append, which
/// leaves with it.
#[derive(Default)]
pub(super) struct Appends {
    queue: VecDeque<Pending>,
    sent: usize,
    sent_bytes: usize,
}

impl Appends {
    pub(super) fn push(&mut self, pending: Pending) {
        debug_assert!(self.queue.back().is_none_or(|last| last.id < pending.id));
        self.queue.push_back(pending);
    }

    /// The next message that an earlier connection left unanswered; counts it as sent.
    pub(super) fn next_again(&mut self) -> Option<Bytes> {
        let next = self.queue.get(self.sent).filter(|next| next.uncertain)?;
        let message = next.message.clone();
        self.count_sent(message.len());
        Some(message)
    }

    /// The next message that fits the window; counts it as sent.
    pub(super) fn next(&mut self, window: Window) -> Option<Bytes> {
        let next = self.queue.get(self.sent)?;
        let bytes = next.message.len();
        let fits = self.sent < window.appends && self.sent_bytes + bytes <= window.bytes;
        if !fits && self.sent > 0 {
            return None;
        }
        let message = next.message.clone();
        self.count_sent(bytes);
        Some(message)
    }

    fn count_sent(&mut self, bytes: usize) {
        self.sent += 1;
        self.sent_bytes += bytes;
    }

    /// Whether something waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.queue.len() > self.sent
    }

    /// Takes the append with this id that was sent, because it is answered.
    pub(super) fn take_sent(&mut self, id: u64) -> Option<Pending> {
        let index = self.index_of(id).filter(|index| *index < self.sent)?;
        let pending = self.queue.remove(index)?;
        self.sent -= 1;
        self.sent_bytes -= pending.message.len();
        Some(pending)
    }

    /// Whether the append with this id was sent and is not answered.
    pub(super) fn is_sent(&self, id: u64) -> bool {
        self.index_of(id).is_some_and(|index| index < self.sent)
    }

    /// Its caller has gone: it leaves if it was never sent.
    pub(super) fn withdraw(&mut self, id: u64) -> Option<Pending> {
        let index = self.index_of(id).filter(|index| *index >= self.sent)?;
        self.queue.remove(index)
    }

    /// The connection is lost: all is to be sent again that somebody waits for.
    pub(super) fn lose_connection(&mut self) {
        self.queue.range_mut(..self.sent).for_each(|pending| pending.uncertain = true);
        (self.sent, self.sent_bytes) = (0, 0);
        self.queue.retain(Pending::is_wanted);
    }

    /// The answers owed to those whose time is over, and whether each may have been stored.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Answer, bool)> {
        let mut late = Vec::new();
        for (index, pending) in self.queue.iter_mut().enumerate() {
            if pending.deadline <= now
                && let Some(answer) = pending.answer.take()
            {
                late.push((answer, pending.uncertain || index < self.sent));
            }
        }
        let mut index = 0;
        let sent = self.sent;
        self.queue.retain(|pending| {
            index += 1;
            index <= sent || pending.answer.is_some()
        });
        late
    }

    /// Takes those that are larger than this; nothing is sent on this connection yet.
    pub(super) fn take_larger(&mut self, limit: usize) -> VecDeque<Pending> {
        debug_assert_eq!(self.sent, 0);
        let all = std::mem::take(&mut self.queue);
        let (fit, larger) = all.into_iter().partition(|it| it.message.len() <= limit);
        self.queue = fit;
        larger
    }

    /// Everything, because nothing will be sent or answered any more.
    pub(super) fn drain(&mut self) -> Vec<Pending> {
        let sent = std::mem::take(&mut self.sent);
        self.sent_bytes = 0;
        let uncertain = |(index, pending): (usize, Pending)| Pending {
            uncertain: pending.uncertain || index < sent,
            ..pending
        };
        self.queue.drain(..).enumerate().map(uncertain).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn index_of(&self, id: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&id, |pending| pending.id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    type Receiver = oneshot::Receiver<Result<AppendOutcome, AppendError>>;

    const WINDOW: Window = Window { appends: 3, bytes: 100 };

    fn push(appends: &mut Appends, id: u64, bytes: usize) -> Receiver {
        let (answer, receiver) = oneshot::channel();
        let message = Bytes::from(vec![u8::try_from(id).unwrap(); bytes]);
        let deadline = Instant::now() + Duration::from_secs(id);
        let answer = Some(answer);
        appends.push(Pending { id, message, deadline, uncertain: false, answer });
        receiver
    }

    fn sendable(appends: &mut Appends) -> Vec<u8> {
        std::iter::from_fn(|| appends.next(WINDOW)).map(|message| message[0]).collect()
    }

    #[test]
    fn the_window_bounds_what_is_sent_but_one_append_of_any_size() {
        let mut appends = Appends::default();
        let _receivers = [(1, 400), (2, 60), (3, 60), (4, 1), (5, 1), (6, 1)]
            .map(|(id, bytes)| push(&mut appends, id, bytes));
        assert_eq!(sendable(&mut appends), [1]);
        appends.take_sent(1).unwrap();
        assert_eq!(sendable(&mut appends), [2]);
        appends.take_sent(2).unwrap();
        assert_eq!(sendable(&mut appends), [3, 4, 5]);
        assert!(appends.has_unsent() && appends.take_sent(6).is_none());
    }

    #[test]
    fn what_a_lost_connection_leaves_is_sent_again_in_order_unless_nobody_waits() {
        let mut appends = Appends::default();
        let mut receivers = (1..=5).map(|id| push(&mut appends, id, 10)).collect::<Vec<_>>();
        assert_eq!(sendable(&mut appends), [1, 2, 3]);
        drop(receivers.remove(1));
        appends.lose_connection();
        let again = std::iter::from_fn(|| appends.next_again());
        assert_eq!(again.map(|message| message[0]).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(sendable(&mut appends), [4]);
        assert!(appends.take_sent(3).unwrap().uncertain);
        assert!(!appends.take_sent(4).unwrap().uncertain);
    }

    #[test]
    fn what_is_late_is_told_whether_it_was_sent_and_is_not_sent_later() {
        let mut appends = Appends::default();
        let _receivers = (1..=5).map(|id| push(&mut appends, id, 10)).collect::<Vec<_>>();
        sendable(&mut appends);
        let late = appends.expire(Instant::now() + Duration::from_millis(4_500));
        assert_eq!(late.iter().map(|late| late.1).collect::<Vec<_>>(), [true, true, true, false]);
        assert!(appends.take_sent(1).unwrap().answer.is_none(), "a late answer finds nobody");
        appends.lose_connection();
        assert_eq!(sendable(&mut appends), [5]);
    }

    #[test]
    fn a_caller_that_leaves_takes_along_what_was_not_sent() {
        let mut appends = Appends::default();
        let _receivers = (1..=4).map(|id| push(&mut appends, id, 10)).collect::<Vec<_>>();
        sendable(&mut appends);
        assert!(appends.withdraw(4).is_some() && !appends.has_unsent());
        assert!(appends.withdraw(2).is_none() && appends.is_sent(2));
        assert_eq!(appends.drain().iter().filter(|pending| pending.uncertain).count(), 3);
    }
}
