//! Every interleaving of the inbox's and the watermark's callers, up to three preemptions each:
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p quipu-engine --release --test loom
//! ```
//!
//! Loom calls it a deadlock when all threads sleep: a wake-up that got lost is just that.
#![cfg(loom)]

use std::sync::{Arc, Mutex};

use loom::model::Builder;

mod support {
    use super::*;

    /// Runs `model` in every interleaving.
    pub(crate) fn explore(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    /// What happened, in order. Not modelled: it adds no interleaving of its own.
    #[derive(Clone, Default)]
    pub(crate) struct Journal(Arc<Mutex<Vec<u64>>>);

    impl Journal {
        pub(crate) fn add(&self, entry: u64) {
            self.0.lock().unwrap().push(entry);
        }

        pub(crate) fn entries(&self) -> Vec<u64> {
            self.0.lock().unwrap().clone()
        }
    }
}

mod watermark {
    use loom::future::block_on;
    use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use loom::thread::spawn;
    use quipu_engine::commit::watermark::CommitWatermark;
    use quipu_types::Position;

    use super::support::explore;
    use super::*;

    fn new() -> Arc<CommitWatermark> {
        Arc::new(CommitWatermark::new(Position(0)))
    }

    /// As a subscription waits: listen, look, sleep.
    fn wait_for(watermark: &CommitWatermark, is_there: impl Fn() -> bool) {
        block_on(async {
            loop {
                let advanced = watermark.listen();
                if is_there() {
                    return;
                }
                advanced.await;
            }
        });
    }

    #[test]
    fn an_advance_is_not_slept_through_and_what_was_published_before_is_seen() {
        explore(|| {
            let (watermark, published) = (new(), Arc::new(AtomicU64::new(0)));
            let writer = (Arc::clone(&watermark), Arc::clone(&published));
            let writer = spawn(move || {
                for position in 1..=2 {
                    writer.1.store(position, Ordering::Relaxed);
                    writer.0.advance(Position(position));
                    writer.0.wake();
                }
            });
            for position in 1..=2 {
                wait_for(&watermark, || watermark.current() >= Position(position));
                assert!(published.load(Ordering::Relaxed) >= position);
            }
            writer.join().unwrap();
        });
    }

    #[test]
    fn two_who_wait_are_both_told() {
        explore(|| {
            let watermark = new();
            let reader = Arc::clone(&watermark);
            let reader = spawn(move || wait_for(&reader, || reader.current() == Position(1)));
            let writer = Arc::clone(&watermark);
            let writer = spawn(move || {
                writer.advance(Position(1));
                writer.wake();
            });
            wait_for(&watermark, || watermark.current() == Position(1));
            reader.join().unwrap();
            writer.join().unwrap();
        });
    }

    #[test]
    fn it_never_goes_back() {
        explore(|| {
            let watermark = new();
            let writers = [1, 2].map(|position| {
                let watermark = Arc::clone(&watermark);
                spawn(move || watermark.advance(Position(position)))
            });
            let (first, second) = (watermark.current(), watermark.current());
            assert!(first <= second, "{first} then {second}");
            for writer in writers {
                writer.join().unwrap();
            }
            assert_eq!(watermark.current(), Position(2));
        });
    }

    #[test]
    fn a_close_is_not_slept_through() {
        explore(|| {
            let (watermark, closed) = (new(), Arc::new(AtomicBool::new(false)));
            let closer = (Arc::clone(&watermark), Arc::clone(&closed));
            let closer = spawn(move || {
                closer.1.store(true, Ordering::Release);
                closer.0.wake();
            });
            wait_for(&watermark, || closed.load(Ordering::Acquire));
            closer.join().unwrap();
        });
    }
}

mod inbox {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use loom::future::block_on;
    use loom::sync::Mutex as ModelledMutex;
    use loom::thread::spawn;
    use quipu_engine::Origin;
    use quipu_engine::commit::inbox::{Inbox, QueueLimits, Submission};
    use quipu_engine::commit::prepared::PreparedAppend;
    use quipu_engine::index::keys::KeyHasher;
    use quipu_types::record::EventBody;
    use quipu_types::{AggregateKey, AppendError, Limits, NewEvent, Timestamp, Uuid};

    use super::support::{Journal, explore};
    use super::*;

    fn new(appends: usize) -> Arc<Inbox> {
        Arc::new(Inbox::new(QueueLimits { bytes: usize::MAX, appends }))
    }

    /// An append whose answer is written down under its id.
    fn submission(id: u64, answered: &Journal) -> Submission {
        sized_submission(id, 1, answered)
    }

    fn sized_submission(id: u64, payload_bytes: usize, answered: &Journal) -> Submission {
        let key = AggregateKey::new("Call", "1");
        let time = Timestamp::from_micros(1);
        let event = NewEvent::json(
            Uuid::from_u128(id.into()),
            key,
            "Made",
            time,
            "1".repeat(payload_bytes),
        );
        let (limits, hasher) = (Limits::default(), KeyHasher::new(Uuid::from_u128(1)));
        let events = [EventBody::from(&event)];
        let append = PreparedAppend::new(&events, &[], &limits, hasher, Origin::Client);
        let answered = answered.clone();
        Submission { append: append.unwrap(), reply: Box::new(move |_| answered.add(id)) }
    }

    fn answer(submission: Submission) {
        (submission.reply)(Err(AppendError::Closed));
    }

    /// As the committer does: take, wake those who have room now, answer, sleep. Ends with
    /// `count` appends.
    fn serve(inbox: &Inbox, count: usize, limit: usize) {
        let mut served = 0;
        while served < count {
            let arrivals = inbox.take_finished().arrivals;
            assert!(inbox.depth().1 <= limit, "more in the queue than may be");
            let next = inbox.pop_if(|_| true);
            inbox.take_granted().into_iter().for_each(Waker::wake);
            match next {
                Some(next) => {
                    answer(next);
                    served += 1;
                }
                None => inbox.wait(arrivals, None),
            }
        }
    }

    #[test]
    fn no_arrival_is_slept_through() {
        explore(|| {
            let (inbox, answered) = (new(9), Journal::default());
            let pushers = [1, 2].map(|id| {
                let (inbox, submission) = (Arc::clone(&inbox), submission(id, &answered));
                spawn(move || inbox.try_push(submission).unwrap())
            });
            serve(&inbox, 2, 9);
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            let mut answers = answered.entries();
            answers.sort_unstable();
            assert_eq!(answers, [1, 2], "each is answered, once");
        });
    }

    #[test]
    fn what_was_held_back_is_not_slept_through() {
        explore(|| {
            let (inbox, answered) = (new(9), Journal::default());
            let pushers = [1, 2].map(|id| {
                let admission = inbox.push(submission(id, &answered)).quiet();
                let inbox = Arc::clone(&inbox);
                spawn(move || {
                    block_on(admission).unwrap();
                    inbox.wake();
                })
            });
            serve(&inbox, 2, 9);
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            let mut answers = answered.entries();
            answers.sort_unstable();
            assert_eq!(answers, [1, 2], "each is answered, once");
        });
    }

    #[test]
    fn who_waits_for_room_is_let_in_and_the_bound_holds() {
        explore(|| {
            let (inbox, answered) = (new(1), Journal::default());
            let pushers = [1, 2].map(|id| {
                let admission = inbox.push(submission(id, &answered));
                spawn(move || block_on(admission).unwrap())
            });
            serve(&inbox, 2, 1);
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            let mut answers = answered.entries();
            answers.sort_unstable();
            assert_eq!(answers, [1, 2], "each is answered, once");
        });
    }

    #[test]
    fn who_waits_is_not_overtaken() {
        explore(|| {
            let (inbox, answered) = (new(1), Journal::default());
            inbox.try_push(submission(1, &answered)).unwrap();
            let mut second = inbox.push(submission(2, &answered));
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut second).poll(&mut context).is_pending());
            let third = inbox.push(submission(3, &answered));
            let third = spawn(move || block_on(third).unwrap());
            let second = spawn(move || block_on(second).unwrap());
            serve(&inbox, 3, 1);
            second.join().unwrap();
            third.join().unwrap();
            assert_eq!(answered.entries(), [1, 2, 3], "first come, first served");
        });
    }

    #[test]
    fn two_who_have_room_at_once_are_both_let_in() {
        explore(|| {
            let (inbox, answered) = (new(2), Journal::default());
            for id in [1, 2] {
                inbox.try_push(submission(id, &answered)).unwrap();
            }
            let pushers = [3, 4].map(|id| {
                let admission = inbox.push(submission(id, &answered));
                spawn(move || block_on(admission).unwrap())
            });
            serve(&inbox, 4, 2);
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            let answers = answered.entries();
            assert_eq!(answers[..2], [1, 2], "first come, first served");
            assert!(answers[2..] == [3, 4] || answers[2..] == [4, 3], "{answers:?}");
        });
    }

    #[test]
    fn a_small_one_does_not_overtake_a_large_one() {
        explore(|| {
            let answered = Journal::default();
            let first = submission(1, &answered);
            let bytes = 2 * first.append.frame_bytes();
            let inbox = Arc::new(Inbox::new(QueueLimits { bytes, appends: 9 }));
            inbox.try_push(first).unwrap();
            let mut large = inbox.push(sized_submission(2, bytes, &answered));
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut large).poll(&mut context).is_pending());
            let small = inbox.push(submission(3, &answered));
            let small = spawn(move || block_on(small).unwrap());
            let large = spawn(move || block_on(large).unwrap());
            serve(&inbox, 3, 9);
            large.join().unwrap();
            small.join().unwrap();
            assert_eq!(answered.entries(), [1, 2, 3], "first come, first served");
        });
    }

    #[test]
    fn who_goes_away_keeps_no_room() {
        explore(|| {
            let (inbox, answered) = (new(1), Journal::default());
            inbox.try_push(submission(1, &answered)).unwrap();
            let mut gone = inbox.push(submission(2, &answered));
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut gone).poll(&mut context).is_pending());
            let third = inbox.push(submission(3, &answered));
            let third = spawn(move || block_on(third).unwrap());
            let gone = spawn(move || drop(gone));
            serve(&inbox, 2, 1);
            gone.join().unwrap();
            third.join().unwrap();
            assert_eq!(answered.entries(), [1, 3]);
        });
    }

    #[test]
    fn who_waits_when_the_log_closes_is_told() {
        explore(|| {
            let (inbox, answered) = (new(1), Journal::default());
            inbox.try_push(submission(1, &answered)).unwrap();
            let second = inbox.push(submission(2, &answered));
            let second = spawn(move || block_on(second));
            let server = Arc::clone(&inbox);
            let server = spawn(move || serve(&server, 1, 1));
            inbox.close();
            server.join().unwrap();
            let let_in = second.join().unwrap();
            assert_eq!(inbox.is_empty(), let_in == Err(AppendError::Closed));
        });
    }

    /// What [`committer`] shares with another one, as the log's threads share the sequencer.
    #[derive(Default)]
    struct Sequencer {
        submitted: Vec<(u64, Submission)>,
        tickets: u64,
    }

    enum Step {
        Write(u64, bool),
        Wait(u64),
        Closed,
    }

    impl Sequencer {
        /// Answers what is durable with all before it, takes the next append, in that order.
        fn step(&mut self, inbox: &Inbox) -> Step {
            let finished = inbox.take_finished();
            for (ticket, result) in finished.written {
                result.unwrap();
                let index = self.submitted.iter().position(|it| it.0 == ticket);
                answer(self.submitted.remove(index.expect("each write ends once")).1);
            }
            if let Some(submission) = inbox.pop_if(|_| true) {
                self.tickets += 1;
                self.submitted.push((self.tickets, submission));
                return Step::Write(self.tickets, !inbox.is_empty());
            }
            let is_over = finished.closing && self.submitted.is_empty();
            if is_over { Step::Closed } else { Step::Wait(finished.arrivals) }
        }
    }

    /// `commit_loop` with a disk that writes at once.
    fn committer(inbox: &Inbox, sequencer: &ModelledMutex<Sequencer>) {
        while !inbox.is_closed() {
            let step = sequencer.lock().unwrap().step(inbox);
            inbox.take_granted().into_iter().for_each(Waker::wake);
            match step {
                Step::Write(ticket, more) => {
                    if more {
                        inbox.wake_another();
                    }
                    inbox.written_here(ticket, Ok(()));
                }
                Step::Wait(arrivals) => inbox.wait(arrivals, None),
                Step::Closed => return inbox.set_closed(),
            }
        }
    }

    #[test]
    fn two_committers_answer_everything_and_both_end_when_the_log_closes() {
        explore(|| {
            let (inbox, answered) = (new(9), Journal::default());
            let sequencer = Arc::new(ModelledMutex::new(Sequencer::default()));
            let committers = [0, 1].map(|_| {
                let (inbox, sequencer) = (Arc::clone(&inbox), Arc::clone(&sequencer));
                spawn(move || committer(&inbox, &sequencer))
            });
            for id in [1, 2] {
                inbox.try_push(submission(id, &answered)).unwrap();
            }
            inbox.close();
            let refused = inbox.try_push(submission(3, &Journal::default()));
            assert_eq!(refused, Err(AppendError::Closed));
            committers.into_iter().for_each(|it| it.join().unwrap());
            let mut answers = answered.entries();
            answers.sort_unstable();
            assert_eq!(answers, [1, 2], "each is answered, once");
        });
    }
}
