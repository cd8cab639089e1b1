//! Appends that wait for their answers, in the order sent: the engine's replies may overtake each
//! other, what the client gets may not; and one that is never given is an answer too.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use quipu_engine::commit::outcome::Admitted;
use quipu_protocol::Fault;
use quipu_types::{AppendError, AppendOutcome};

use crate::budget::Charge;
use crate::session::Session;

/// The answer to one append, as far as it is known.
pub(crate) enum Answer {
    /// Not let in by the log yet: whoever lets it in says what becomes of it.
    Waiting,
    /// Not known to be let in, and yet the log has already lost it.
    Lost,
    /// Let in: the log owes its answer.
    LetIn,
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

impl From<Result<Admitted, AppendError>> for Answer {
    fn from(reply: Result<Admitted, AppendError>) -> Self {
        match reply {
            Ok(admitted) => Self::Admitted(admitted),
            Err(error) => Self::Settled(Err(error.into())),
        }
    }
}

impl Answer {
    fn is_known(&self) -> bool {
        matches!(self, Self::Admitted(_) | Self::Settled(_))
    }

    /// Nobody can say any more what became of the append.
    pub(crate) fn lost() -> Self {
        let problem = "the log dropped the append: this is a bug in Quipu".to_owned();
        Self::Settled(Err(AppendError::OutcomeUnknown(problem).into()))
    }
}

/// The appends of one connection that are not answered.
///
/// Invariants:
/// 1. They are in the order sent; the one at index `i` has the number `first + i`.
/// 2. Only from the front is anything taken, and only by the writer.
/// 3. What was let in is answered: if the log drops its reply, with "outcome unknown".
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
    fn change(&mut self, number: u64, now: impl FnOnce(&mut Answer) -> Answer) -> bool {
        let index = number.checked_sub(self.first).and_then(|it| usize::try_from(it).ok());
        let Some(index) = index else { return false };
        let Some(owed) = self.owed.get_mut(index) else { return false };
        owed.answer = now(&mut owed.answer);
        index == 0 && owed.answer.is_known()
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
        self.queue.lock().change(number, |_| answer)
    }

    /// The log has let it in; true if the writer should look, for the log has lost it already.
    #[must_use]
    pub(crate) fn let_in(&self, number: u64) -> bool {
        // The answer may have come before the log said that it has let the append in.
        let now = |answer: &mut Answer| match std::mem::replace(answer, Answer::LetIn) {
            Answer::Waiting | Answer::LetIn => Answer::LetIn,
            Answer::Lost => Answer::lost(),
            known => known,
        };
        self.queue.lock().change(number, now)
    }

    /// The log has dropped its reply; true if the writer should look.
    #[must_use]
    pub(crate) fn lose(&self, number: u64) -> bool {
        let now = |answer: &mut Answer| match std::mem::replace(answer, Answer::Lost) {
            Answer::Waiting | Answer::Lost => Answer::Lost,
            Answer::LetIn | Answer::Settling => Answer::lost(),
            known => known,
        };
        self.queue.lock().change(number, now)
    }

    /// Takes the first if its answer is known.
    pub(crate) fn take_first(&self) -> Option<Owed> {
        let mut queue = self.queue.lock();
        if !queue.owed.front()?.answer.is_known() {
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

/// The log's debt of one answer: dropped without one, it tells the client that nobody knows.
pub(crate) struct Pledge {
    session: Arc<Session>,
    /// None once the answer is given.
    number: Option<u64>,
}

impl Pledge {
    pub(crate) fn new(session: &Arc<Session>, number: u64) -> Self {
        Self { session: Arc::clone(session), number: Some(number) }
    }

    /// Gives the answer.
    pub(crate) fn keep(mut self, answer: Answer) {
        if let Some(number) = self.number.take()
            && self.session.answers.set(number, answer)
        {
            self.session.outbox.wake();
        }
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        if let Some(number) = self.number.take()
            && self.session.answers.lose(number)
        {
            tracing::error!(number, "an append was dropped without an answer");
            self.session.outbox.wake();
        }
    }
}
