//! Appends that wait for their answers, in the order sent: the engine's replies may overtake each
//! other, what the client gets may not.

use std::collections::VecDeque;

use parking_lot::Mutex;
use quipu_engine::commit::outcome::Admitted;
use quipu_protocol::Fault;
use quipu_types::{AppendError, AppendOutcome};

use crate::budget::Charge;

/// The answer to one append, as far as it is known.
pub(crate) enum Answer {
    Waiting,
    Admitted(Admitted),
    /// Being compared with what is on disk.
    Settling,
    Settled(Result<AppendOutcome, Fault>),
}

/// One append and its answer.
pub(crate) struct Owed {
    pub(crate) request_id: u64,
    pub(crate) answer: Answer,
    /// Held until the answer is written.
    pub(crate) charge: Charge,
}

/// The appends of one connection that are not answered.
///
/// Invariants:
/// 1. They are in the order sent; the one at index `i` has the number `first + i`.
/// 2. Only from the front is anything taken, and only by the writer.
#[derive(Default)]
pub(crate) struct Answers {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    first: u64,
    owed: VecDeque<Owed>,
}

impl Queue {
    /// Whether an answer is now first, and known: the writer has something to do.
    fn set(&mut self, number: u64, answer: Answer) -> bool {
        let index = number.checked_sub(self.first).and_then(|it| usize::try_from(it).ok());
        let Some(index) = index else { return false };
        if let Some(owed) = self.owed.get_mut(index) {
            owed.answer = answer;
        }
        index == 0
    }
}

impl Answers {
    /// Owes an answer, and gives its number.
    pub(crate) fn owe(&self, request_id: u64, charge: Charge) -> u64 {
        let mut queue = self.queue.lock();
        queue.owed.push_back(Owed { request_id, answer: Answer::Waiting, charge });
        queue.first + queue.owed.len() as u64 - 1
    }

    /// Says what the answer is; true if the writer should look.
    #[must_use]
    pub(crate) fn set(&self, number: u64, answer: Answer) -> bool {
        self.queue.lock().set(number, answer)
    }

    /// What the engine replied; true if the writer should look.
    #[must_use]
    pub(crate) fn reply(&self, number: u64, reply: Result<Admitted, AppendError>) -> bool {
        self.set(
            number,
            match reply {
                Ok(admitted) => Answer::Admitted(admitted),
                Err(error) => Answer::Settled(Err(error.into())),
            },
        )
    }

    /// Takes the first if its answer is known.
    pub(crate) fn take_first(&self) -> Option<Owed> {
        let mut queue = self.queue.lock();
        if matches!(queue.owed.front()?.answer, Answer::Waiting | Answer::Settling) {
            return None;
        }
        queue.first += 1;
        queue.owed.pop_front()
    }

    /// Puts back what was taken first, while it is compared; gives its number.
    pub(crate) fn put_back(&self, request_id: u64, charge: Charge) -> u64 {
        let mut queue = self.queue.lock();
        queue.first -= 1;
        queue.owed.push_front(Owed { request_id, answer: Answer::Settling, charge });
        queue.first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().owed.is_empty()
    }
}
