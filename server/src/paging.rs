//! Pages of a stream, several in a row: whoever may block reads them, makes messages of them and
//! puts them in, as long as credit and room last. Handing each over would cost as much as a page.

use std::ops::RangeInclusive;
use std::sync::Arc;

use quipu_engine::read::cursor::PageLimits;
use quipu_engine::segment::set::segment_of;
use quipu_protocol::Mark;
use quipu_types::{Position, ReadError, Record};

use crate::budget::Charge;
use crate::reader::panicked;
use crate::stream::{Over, StreamTask};
use crate::unsent::Unsent;

/// A filter that takes nothing is not given a thread for longer than this.
const PAGES_IN_A_ROW: usize = 16;

/// What a source has found at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Marks that precede the records.
    pub(crate) before: Vec<Mark>,
    pub(crate) records: Vec<Record>,
    /// Marks that follow them.
    pub(crate) after: Vec<Mark>,
    /// The log keeps the records' bytes, whoever else does.
    pub(crate) is_kept: bool,
}

impl Found {
    pub(crate) fn are_all_in(&self, positions: Option<&RangeInclusive<Position>>) -> bool {
        let ends = [self.records.first(), self.records.last()];
        positions.is_some_and(|positions| {
            ends.into_iter().flatten().all(|record| positions.contains(&record.position()))
        })
    }

    /// Bytes of the records.
    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.as_bytes().len()).sum()
    }
}

/// What a stream is made of.
pub(crate) trait Source: Send + 'static {
    /// What comes next. Where nothing is in memory it reads from disk.
    fn next(&mut self, limits: PageLimits) -> Result<Found, ReadError>;

    /// Whether there is more, and it is on disk.
    fn is_on_disk(&self) -> bool;

    /// What it has looked at, if it goes forward.
    fn after(&self) -> Position;

    /// Keeps its place and nothing else: it is about to wait.
    fn forget(&mut self);
}

/// Sends what there is, one page at least; the first has room. The source comes back.
pub(crate) async fn send<S: Source>(
    task: &Arc<StreamTask>,
    mut source: S,
    charge: Charge,
) -> Result<S, Over> {
    let (unsent, mut source) = if source.is_on_disk() {
        let on_thread = Arc::clone(task);
        let work = move || Ok::<_, ReadError>((in_a_row(&on_thread, &mut source, charge)?, source));
        task.session.service.readers.run(work).await.ok_or_else(panicked)??
    } else {
        (in_a_row(task, &mut source, charge)?, source)
    };
    if let Some(unsent) = unsent {
        source.forget();
        unsent.send(task).await?;
    }
    Ok(source)
}

/// Positions whose records are a sealed segment's, which keeps them mapped, or were read alone:
/// to hold such a record is to hold no more. One of the newest would hold its whole group.
pub(crate) fn kept_after(task: &StreamTask, after: Position) -> Option<RangeInclusive<Position>> {
    let segments = task.session.service.log.shared().segments.snapshot();
    let next = after.next();
    let segment = &segments[segment_of(&segments, next)?];
    // Asked before anything is read: what was read before the seal has a buffer of its own.
    segment.is_indexed().then(|| next..=segment.last_position())
}

fn in_a_row(
    task: &StreamTask,
    source: &mut impl Source,
    mut charge: Charge,
) -> Result<Option<Unsent>, ReadError> {
    for _ in 0..PAGES_IN_A_ROW {
        let kept = kept_after(task, source.after());
        let mut found = source.next(task.page_limits(&charge))?;
        found.is_kept = found.are_all_in(kept.as_ref());
        if found.bytes() > charge.bytes() {
            // Given back first: two that hold a page and want more would wait for each other.
            drop(charge);
            match task.try_room_for(found.bytes()) {
                Some(more) => charge = more,
                None => return Ok(Some(Unsent::of(found))),
            }
        }
        task.put(found, Some(charge));
        let goes_on = source.is_on_disk() && task.is_over().is_none() && task.has_credit();
        match task.try_room().filter(|_| goes_on) {
            Some(room) => charge = room,
            None => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use quipu_engine::{EventLog, LogOptions, Origin};
    use quipu_protocol::{Credit, Records, Response};
    use quipu_types::record::RecordBuffer;
    use quipu_types::{AggregateKey, Append, NewEvent, Timestamp, Uuid};
    use tokio::time::timeout;

    use super::*;
    use crate::options::ServerOptions;
    use crate::service::Service;
    use crate::session::Session;
    use crate::stream::Control;
    use crate::testing::{self, record, written};

    const ALL: Credit = Credit { events: u32::MAX, bytes: u32::MAX };

    /// Pages that are on disk until the last, and what happens as each is found.
    struct Scripted {
        pages: Vec<Result<Found, ReadError>>,
        looked: Arc<AtomicUsize>,
        on_page: Box<dyn FnMut(usize) + Send>,
        forgotten: usize,
    }

    impl Source for Scripted {
        fn next(&mut self, _: PageLimits) -> Result<Found, ReadError> {
            let number = self.looked.fetch_add(1, Ordering::Relaxed) + 1;
            (self.on_page)(number);
            self.pages.remove(0)
        }

        fn is_on_disk(&self) -> bool {
            !self.pages.is_empty()
        }

        fn after(&self) -> Position {
            Position::START
        }

        fn forget(&mut self) {
            self.forgotten += 1;
        }
    }

    struct Bench {
        _folder: tempfile::TempDir,
        task: Arc<StreamTask>,
        control: Arc<Control>,
        looked: Arc<AtomicUsize>,
    }

    fn bench(credit: Credit, options: ServerOptions) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let log = testing::log(&folder);
        bench_on(folder, log, credit, options)
    }

    fn bench_on(
        folder: tempfile::TempDir,
        log: EventLog,
        credit: Credit,
        options: ServerOptions,
    ) -> Bench {
        let service = Service::new(Arc::new(log), options);
        let control = Arc::new(Control::new(credit, 0));
        let session = Arc::new(Session::new(&service));
        let task = Arc::new(StreamTask::new(session, 1, Arc::clone(&control)));
        Bench { _folder: folder, task, control, looked: Arc::default() }
    }

    impl Bench {
        fn source(&self, pages: Vec<Result<Found, ReadError>>) -> Scripted {
            let (looked, on_page) = (Arc::clone(&self.looked), Box::new(|_| {}));
            Scripted { pages, looked, on_page, forgotten: 0 }
        }

        async fn send(&self, source: Scripted) -> Result<Scripted, Over> {
            let charge = self.task.room().await?;
            send(&self.task, source, charge).await
        }

        fn looked(&self) -> usize {
            self.looked.load(Ordering::Relaxed)
        }
    }

    fn pages(count: u64) -> Vec<Result<Found, ReadError>> {
        let page = |position| Found { records: vec![record(position)], ..Found::default() };
        (1..=count).map(|position| Ok(page(position))).collect()
    }

    #[tokio::test]
    async fn pages_and_marks_go_in_order_and_an_error_after_what_precedes_it() {
        let bench = bench(ALL, ServerOptions::default());
        let (behind, live) = (Mark::FellBehind(Position(0)), Mark::CaughtUp(Position(2)));
        let first = Found { before: vec![behind], records: vec![record(1)], ..Found::default() };
        let second = Found { records: vec![record(2)], after: vec![live], ..Found::default() };
        let pages = vec![Ok(first), Ok(Found::default()), Ok(second), Err(ReadError::Closed)];
        let over = bench.send(bench.source(pages)).await.err();
        assert!(matches!(over, Some(Over::Failed(_))));
        let records = |position| Response::Records(Records(vec![record(position)]));
        let expected = [Response::Mark(behind), records(1), records(2), Response::Mark(live)];
        assert_eq!(written(&bench.task.session.outbox), expected.map(|it| (1, it)));
    }

    #[tokio::test]
    async fn a_filter_that_takes_nothing_gives_the_thread_back() {
        let bench = bench(ALL, ServerOptions::default());
        let pages = (0..100).map(|_| Ok(Found::default())).collect();
        assert!(bench.send(bench.source(pages)).await.is_ok());
        assert_eq!(bench.looked(), PAGES_IN_A_ROW);
    }

    #[tokio::test]
    async fn no_page_is_read_without_credit_or_room_or_for_a_stream_that_is_over() {
        let credit = Credit { events: 3, ..ALL };
        let poor = bench(credit, ServerOptions::default());
        assert!(poor.send(poor.source(pages(100))).await.is_ok());
        assert_eq!(poor.looked(), 3);
        // Each page is given back what it did not need: there is room for one and a bit.
        let page_bytes = ServerOptions::default().page_bytes;
        let output = page_bytes + 2 * record(1).as_bytes().len();
        let options = ServerOptions { connection_output_bytes: output, ..ServerOptions::default() };
        let narrow = bench(ALL, options);
        assert!(narrow.send(narrow.source(pages(100))).await.is_ok());
        assert_eq!(narrow.looked(), 2);
        let cancelled = bench(ALL, ServerOptions::default());
        let mut source = cancelled.source(pages(100));
        let control = Arc::clone(&cancelled.control);
        source.on_page = Box::new(move |number| {
            if number == 5 {
                control.cancel();
            }
        });
        assert!(cancelled.send(source).await.is_ok());
        assert_eq!(cancelled.looked(), 5);
    }

    #[tokio::test]
    async fn records_that_are_larger_than_a_page_go_at_once_where_there_is_room() {
        let options = ServerOptions { page_bytes: 8, ..ServerOptions::default() };
        let bench = bench(ALL, options);
        let source = bench.send(bench.source(pages(3))).await.ok().unwrap();
        assert_eq!((bench.looked(), source.forgotten), (3, 0));
        let expected = |position| (1, Response::Records(Records(vec![record(position)])));
        assert_eq!(written(&bench.task.session.outbox), [1, 2, 3].map(expected));
    }

    #[tokio::test]
    async fn a_record_that_waits_for_room_is_not_kept_and_read_again_once_it_has_some() {
        let folder = tempfile::tempdir().unwrap();
        let log = testing::log(&folder);
        for id in 1..=2 {
            append(&log, id, "{}".to_owned()).await;
        }
        let stored = [1, 2].map(|position| log.record_at(Position(position)).unwrap());
        let all = 2 * stored[0].as_bytes().len();
        let options = ServerOptions {
            connection_output_bytes: all,
            page_bytes: 8,
            ..ServerOptions::default()
        };
        let bench = bench_on(folder, log, ALL, options);
        let kept = Arc::new(());
        let found = Found { records: vec![tracked(&stored[0], &kept)], ..Found::default() };
        let last = Found { records: vec![stored[1].clone()], ..Found::default() };
        let others = bench.task.session.output.charge(all - 8).await;
        let mut send = Box::pin(bench.send(bench.source(vec![Ok(found), Ok(last)])));
        assert!(timeout(Duration::from_millis(200), &mut send).await.is_err(), "there is no room");
        assert_eq!((bench.looked(), Arc::strong_count(&kept)), (1, 1), "it keeps the record");
        assert!(written(&bench.task.session.outbox).is_empty());
        drop(others);
        let source = send.await.ok().unwrap();
        assert_eq!((source.pages.len(), source.forgotten), (1, 1));
        let [first, _] = stored;
        let expected = Response::Records(Records(vec![first]));
        assert_eq!(written(&bench.task.session.outbox), [(1, expected)]);
    }

    /// A copy of a record that holds something else for as long as it is held.
    fn tracked(record: &Record, by: &Arc<()>) -> Record {
        struct Tracked(RecordBuffer, #[expect(dead_code, reason = "it is held")] Arc<()>);
        impl AsRef<[u8]> for Tracked {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let mut bytes = RecordBuffer::new();
        bytes.extend_from_slice(record.as_bytes());
        Record::parse(Bytes::from_owner(Tracked(bytes, Arc::clone(by)))).unwrap()
    }

    async fn append(log: &EventLog, id: u128, payload: String) {
        let (key, at) = (AggregateKey::new("T", "1"), Timestamp::from_micros(1));
        let event = NewEvent::json(Uuid::from_u128(id), key, "Made", at, payload);
        let append = log.prepare(&Append::any(vec![event]), Origin::Client).unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        log.submit(append, Box::new(move |it| drop(sender.send(it)))).unwrap().await.unwrap();
        receiver.await.unwrap().unwrap();
    }

    /// A log of small segments, two of them sealed.
    async fn of_three_segments(folder: &tempfile::TempDir) -> EventLog {
        let mut options = LogOptions { segment_bytes: 256 << 10, ..LogOptions::default() };
        options.limits.append_bytes_max = 64 << 10;
        options.limits.event_bytes_max = 64 << 10;
        let log = testing::log_with(folder, options);
        for id in 1.. {
            append(&log, id, format!("\"{}\"", "x".repeat(40_000))).await;
            if log.shared().segments.snapshot().iter().filter(|it| it.is_indexed()).count() == 2 {
                break;
            }
        }
        log
    }

    #[tokio::test]
    async fn records_of_one_sealed_segment_are_kept_by_the_log_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let log = of_three_segments(&folder).await;
        let segments = log.shared().segments.snapshot();
        let bench = bench_on(folder, log, ALL, ServerOptions::default());
        let found = |positions: [u64; 2]| Found {
            records: positions.map(record).to_vec(),
            ..Found::default()
        };
        let end = segments[0].last_position().0;
        let kept = kept_after(&bench.task, Position::START);
        assert_eq!(kept, Some(Position(1)..=Position(end)));
        assert!(found([1, end]).are_all_in(kept.as_ref()));
        assert!(!found([1, end + 1]).are_all_in(kept.as_ref()), "the next may not be sealed");
        assert_eq!(kept_after(&bench.task, Position(end)).map(|it| it.start().0), Some(end + 1));
        let newest = segments.last().unwrap().header().first_position;
        assert_eq!(kept_after(&bench.task, newest), None);
        let copied = bench.task.page(vec![record(1)], true, bench.task.room().await.ok().unwrap());
        assert_eq!(copied.parts().count(), 1, "small ones are copied");
    }
}
