//! What is to be written to a connection, beside the answers to its appends: finished messages in
//! order, and which requests are open.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use quipu_protocol::{Fault, Mark, Message};
use tokio::sync::Notify;

use crate::chunk::Chunk;

/// More small messages than this wait for the socket: the connection is not read from.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// How a connection ends, once everything owed is written.
#[derive(Clone, Debug)]
pub(crate) struct Farewell(pub(crate) Option<Fault>);

/// What is to be written to one connection.
///
/// Invariants:
/// 1. Messages are written in the order put in, but the last marks of a stream let others pass.
/// 2. A request is no longer open when its closing message can reach the client.
/// 3. Of successive marks of a stream at most two are written, the last among them: a client that
///    does not read lets no more gather than these for each stream, and for each page of its own.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// There is something to write, or to stop for.
    work: Notify,
    written: Notify,
    all_closed: Notify,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// Small messages behind the chunks, gathered.
    small: BytesMut,
    small_bytes: usize,
    /// The last marks of streams, behind everything else of theirs.
    marks: HashMap<u64, Marks, RandomState>,
    open: HashSet<u64, RandomState>,
    farewell: Option<Farewell>,
}

/// The last marks of a stream.
struct Marks {
    before: Option<Mark>,
    last: Mark,
}

impl Marks {
    fn encode(self, request_id: u64, out: &mut BytesMut) {
        for mark in self.before.into_iter().chain([self.last]) {
            mark.encode(request_id, out);
        }
    }
}

impl State {
    fn put(&mut self, request_id: u64, message: &impl Message) {
        let before = self.small.len();
        message.encode(request_id, &mut self.small);
        self.small_bytes += self.small.len() - before;
    }

    fn mark(&mut self, request_id: u64, mark: Mark) {
        match self.marks.entry(request_id) {
            Entry::Vacant(none) => {
                none.insert(Marks { before: None, last: mark });
            }
            Entry::Occupied(marks) => {
                let Marks { before, last } = marks.into_mut();
                let last = std::mem::replace(last, mark);
                // What a checkpoint says is said by the mark that follows it.
                if !matches!(last, Mark::Checkpoint(_)) {
                    *before = Some(last);
                }
            }
        }
    }

    /// Something else of the stream follows its marks.
    fn put_marks(&mut self, request_id: u64) {
        if let Some(marks) = self.marks.remove(&request_id) {
            marks.encode(request_id, &mut self.small);
        }
    }

    fn gather(&mut self) {
        if !self.small.is_empty() {
            let bytes = self.small.split().freeze();
            self.chunks.push_back(Chunk::whole(bytes, None));
        }
    }
}

impl Outbox {
    /// Opens a request; false if its id is that of an open one.
    pub(crate) fn open(&self, request_id: u64) -> bool {
        self.state.lock().open.insert(request_id)
    }

    pub(crate) fn is_open(&self, request_id: u64) -> bool {
        self.state.lock().open.contains(&request_id)
    }

    /// Puts in a message that closes no request.
    pub(crate) fn put(&self, request_id: u64, message: &impl Message) {
        self.state.lock().put(request_id, message);
        self.wake();
    }

    /// Puts in a mark of a stream.
    pub(crate) fn mark(&self, request_id: u64, mark: Mark) {
        self.state.lock().mark(request_id, mark);
        self.wake();
    }

    /// Puts in the message that closes a request.
    pub(crate) fn close(&self, request_id: u64, message: &impl Message) {
        let mut state = self.state.lock();
        state.put_marks(request_id);
        state.put(request_id, message);
        state.open.remove(&request_id);
        self.tell_if_all_closed(&state);
        drop(state);
        self.wake();
    }

    /// Puts in a message of a stream for which room was kept.
    pub(crate) fn put_page(&self, request_id: u64, page: Chunk) {
        let mut state = self.state.lock();
        state.put_marks(request_id);
        state.gather();
        state.chunks.push_back(page);
        drop(state);
        self.wake();
    }

    /// Closes requests whose answers the writer is about to write.
    pub(crate) fn closed(&self, request_ids: &[u64]) {
        let mut state = self.state.lock();
        for id in request_ids {
            state.open.remove(id);
        }
        self.tell_if_all_closed(&state);
    }

    fn tell_if_all_closed(&self, state: &State) {
        if state.open.is_empty() {
            self.all_closed.notify_one();
        }
    }

    /// Waits until no request is open.
    pub(crate) async fn all_closed(&self) {
        while !self.state.lock().open.is_empty() {
            self.all_closed.notified().await;
        }
    }

    /// Waits until few enough small messages wait for the socket.
    pub(crate) async fn has_room(&self) {
        while self.state.lock().small_bytes > SMALL_BYTES_MAX {
            self.written.notified().await;
        }
    }

    /// Ends the connection once everything owed is written.
    pub(crate) fn finish(&self, farewell: Farewell) {
        self.state.lock().farewell = Some(farewell);
        self.wake();
    }

    pub(crate) fn farewell(&self) -> Option<Farewell> {
        self.state.lock().farewell.clone()
    }

    /// Takes everything that is to be written.
    pub(crate) fn take(&self, chunks: &mut VecDeque<Chunk>) {
        let mut state = self.state.lock();
        let State { marks, small, .. } = &mut *state;
        for (request_id, marks) in marks.drain() {
            marks.encode(request_id, small);
        }
        state.gather();
        state.small_bytes = 0;
        chunks.append(&mut state.chunks);
    }

    /// What was taken last is written.
    pub(crate) fn wrote(&self) {
        self.written.notify_one();
    }

    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// Waits for [`Self::wake`].
    pub(crate) async fn work(&self) {
        self.work.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use quipu_protocol::{End, Response};
    use quipu_types::Position;

    use super::*;
    use crate::budget::{Budget, Purse};
    use crate::testing::written;

    /// What would be written next, by request.
    fn by_request(outbox: &Outbox) -> Vec<(u64, Response)> {
        let mut written = written(outbox);
        written.sort_by_key(|(id, _)| *id);
        written
    }

    async fn page(outbox: &Outbox, request_id: u64) {
        let purse = Purse::new(1, &std::sync::Arc::new(Budget::new(1)));
        let page = BytesMut::new().freeze();
        outbox.put_page(request_id, Chunk::whole(page, Some(purse.charge(1).await)));
    }

    #[test]
    fn of_any_marks_that_follow_each_other_the_last_two_are_written() {
        let outbox = Outbox::default();
        let (live, behind) =
            (|at| Mark::CaughtUp(Position(at)), |at| Mark::FellBehind(Position(at)));
        for position in 1..=10 {
            outbox.mark(1, live(position));
            outbox.mark(2, Mark::Checkpoint(Position(position)));
            outbox.mark(1, Mark::Checkpoint(Position(position)));
            outbox.mark(1, behind(position));
            outbox.mark(2, live(position));
        }
        let expected = [(1, live(10)), (1, behind(10)), (2, live(9)), (2, live(10))];
        assert_eq!(by_request(&outbox), expected.map(|(id, mark)| (id, Response::Mark(mark))));
    }

    #[tokio::test]
    async fn of_checkpoints_that_follow_each_other_the_last_is_written() {
        let outbox = Outbox::default();
        let checkpoint = |position| Mark::Checkpoint(Position(position));
        let live = Mark::CaughtUp(Position(9));
        for position in 1..=1_000 {
            outbox.mark(1, checkpoint(position));
            outbox.mark(2, checkpoint(2 * position));
        }
        outbox.mark(1, live);
        outbox.mark(1, checkpoint(1_001));
        let expected = [(1, live), (1, checkpoint(1_001)), (2, checkpoint(2_000))];
        assert_eq!(by_request(&outbox), expected.map(|(id, mark)| (id, Response::Mark(mark))));
        outbox.mark(1, checkpoint(1_002));
        page(&outbox, 1).await;
        outbox.mark(1, checkpoint(1_003));
        let expected = [1_002, 1_003].map(|at| (1, Response::Mark(checkpoint(at))));
        assert_eq!(written(&outbox), expected, "what lies before a page stays there");
    }

    #[tokio::test]
    async fn marks_do_not_grow_with_the_pages_of_other_streams() {
        let outbox = Outbox::default();
        for position in 1..=1_000 {
            outbox.mark(1, Mark::CaughtUp(Position(position)));
            outbox.mark(2, Mark::Checkpoint(Position(position)));
            page(&outbox, 1).await;
        }
        let written = written(&outbox);
        let last = (2, Response::Mark(Mark::Checkpoint(Position(1_000))));
        assert_eq!((written.len(), written.last()), (1_001, Some(&last)));
    }

    #[test]
    fn the_marks_of_a_stream_precede_its_end() {
        let outbox = Outbox::default();
        let (mark, end) = (Mark::CaughtUp(Position(1)), End::Complete);
        outbox.mark(1, mark);
        outbox.close(1, &end);
        let expected = [Response::Mark(mark), Response::End(end)];
        assert_eq!(written(&outbox), expected.map(|it| (1, it)));
    }
}
