//! What a stream or a question has been told and its consumer has not taken: bounded by the credit
//! it gave, and by leaving out marks that later ones have overtaken.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use quipu_protocol::{End, Mark};
use quipu_types::{ReadError, Version};

/// What a call is told, in the order it came.
#[derive(Debug)]
pub(super) enum Part {
    /// The body of a Records message, not looked at yet: its consumer's task checks it. And the
    /// connection that it came on.
    Records(Bytes, u64),
    Mark(Mark),
    End(End),
    Version(Version),
    Status(String),
    Failed(ReadError),
    /// The connection is lost: what comes next has to be asked for again.
    Lost,
}

/// Makes a queue.
pub(super) fn parts() -> (PartSender, PartReceiver) {
    let queue = Arc::new(Queue::default());
    (PartSender(Arc::clone(&queue)), PartReceiver(queue))
}

/// The connection's end. Its owner sends a last part; letting go of it says nothing.
#[derive(Clone)]
pub(super) struct PartSender(Arc<Queue>);

/// The consumer's end.
pub(super) struct PartReceiver(Arc<Queue>);

/// Parts that were not taken.
///
/// Invariants:
/// 1. Marks need no credit: between two other parts there are at most two.
/// 2. The consumer's waker is a host's code: it is woken and dropped under no lock.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct State {
    parts: VecDeque<Part>,
    /// The consumer has gone.
    is_closed: bool,
}

impl State {
    fn push(&mut self, part: Part) {
        if let Part::Mark(mark) = part {
            self.forget_before(mark);
        }
        self.parts.push_back(part);
    }

    /// A checkpoint says less than any mark behind it; of two that tell whether the stream is live,
    /// only the later is still true.
    fn forget_before(&mut self, mark: Mark) {
        if let Some(Part::Mark(Mark::Checkpoint(_))) = self.parts.back() {
            self.parts.pop_back();
        }
        let is_checkpoint = matches!(mark, Mark::Checkpoint(_));
        if !is_checkpoint && matches!(self.parts.back(), Some(Part::Mark(_))) {
            self.parts.pop_back();
        }
    }
}

impl PartSender {
    /// Tells the consumer, unless it has gone.
    pub(super) fn send(&self, part: Part) {
        {
            let mut state = self.0.state.lock();
            if state.is_closed {
                return;
            }
            state.push(part);
        }
        self.0.waker.wake();
    }
}

impl PartReceiver {
    /// The next part.
    pub(super) async fn next(&mut self) -> Part {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next part, if it is there.
    pub(super) fn try_next(&mut self) -> Option<Part> {
        self.0.state.lock().parts.pop_front()
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Part> {
        if let Some(part) = self.try_next() {
            return Poll::Ready(part);
        }
        self.0.waker.register(context.waker());
        // Looked at again: what came before the waker was there woke nobody.
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for PartReceiver {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        let parts = std::mem::take(&mut state.parts);
        drop(state);
        drop(parts);
        drop(self.0.waker.take());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use quipu_types::Position;

    use super::*;

    fn taken(receiver: &mut PartReceiver) -> Vec<Mark> {
        let marks = std::iter::from_fn(|| receiver.try_next());
        marks
            .filter_map(|part| if let Part::Mark(mark) = part { Some(mark) } else { None })
            .collect()
    }

    #[test]
    fn marks_of_a_consumer_that_takes_nothing_are_bounded_and_the_newest_is_kept() {
        let (sender, mut receiver) = parts();
        let at = Position;
        for position in 1..=1_000 {
            sender.send(Part::Mark(Mark::CaughtUp(at(3 * position))));
            sender.send(Part::Mark(Mark::Checkpoint(at(3 * position + 1))));
            sender.send(Part::Mark(Mark::FellBehind(at(3 * position + 2))));
        }
        sender.send(Part::Mark(Mark::Checkpoint(at(5_000))));
        sender.send(Part::Mark(Mark::Checkpoint(at(5_001))));
        let newest = [Mark::FellBehind(at(3_002)), Mark::Checkpoint(at(5_001))];
        assert_eq!(taken(&mut receiver), newest);
        sender.send(Part::Mark(Mark::CaughtUp(at(1))));
        sender.send(Part::Records(Bytes::new(), 1));
        sender.send(Part::Mark(Mark::CaughtUp(at(2))));
        assert_eq!(taken(&mut receiver).len(), 2, "records lie between");
    }

    #[test]
    fn a_consumer_is_woken_and_one_that_has_gone_keeps_nothing() {
        let (sender, mut receiver) = parts();
        let mut next = Box::pin(receiver.next());
        assert!((&mut next).now_or_never().is_none());
        sender.send(Part::Lost);
        assert!(matches!(next.now_or_never(), Some(Part::Lost)));
        drop(receiver);
        sender.send(Part::Lost);
        assert!(sender.0.state.lock().parts.is_empty());
    }
}
