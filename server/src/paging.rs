//! Pages of a stream, several in a row: whoever may block reads them, makes messages of them and
//! puts them in, as long as credit and room last. Handing each over would cost as much as a page.

use std::sync::Arc;

use quipu_engine::read::cursor::PageLimits;
use quipu_protocol::{Fault, Mark};
use quipu_types::{ReadError, Record};
use tokio::task::spawn_blocking;

use crate::budget::Charge;
use crate::stream::{Over, StreamTask};

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
}

impl Found {
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
}

/// A page that waits for more room than it was given.
type Unsent = Option<(Found, Charge)>;

/// Sends what there is, one page at least; the first has room. The source comes back.
pub(crate) async fn send<S: Source>(
    task: &Arc<StreamTask>,
    mut source: S,
    charge: Charge,
) -> Result<S, Over> {
    let (unsent, source) = if source.is_on_disk() {
        let task = Arc::clone(task);
        let work = move || Ok::<_, ReadError>((in_a_row(&task, &mut source, charge)?, source));
        spawn_blocking(work).await.map_err(|error| Fault::Server(error.to_string()))??
    } else {
        (in_a_row(task, &mut source, charge)?, source)
    };
    if let Some((found, charge)) = unsent {
        task.send(found, charge).await?;
    }
    Ok(source)
}

fn in_a_row(
    task: &StreamTask,
    source: &mut impl Source,
    mut charge: Charge,
) -> Result<Unsent, ReadError> {
    for _ in 0..PAGES_IN_A_ROW {
        let found = source.next(task.page_limits(&charge))?;
        if found.bytes() > charge.bytes() {
            return Ok(Some((found, charge)));
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

    use bytes::Bytes;
    use quipu_protocol::{Credit, Records, Response};
    use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
    use quipu_types::{AggregateKey, NewEvent, Position, Timestamp, Uuid, Version};
    use rkyv::ser::allocator::Arena;

    use super::*;
    use crate::options::ServerOptions;
    use crate::service::Service;
    use crate::session::Session;
    use crate::stream::Control;
    use crate::testing::{self, written};

    const ALL: Credit = Credit { events: u32::MAX, bytes: u32::MAX };

    fn record(position: u64) -> Record {
        let key = AggregateKey::new("T", "1");
        let at = Timestamp::from_micros(1);
        let event = NewEvent::json(Uuid::from_u128(1), key, "Made", at, "{}");
        let mut bytes = encode(RecordBuffer::new(), &EventBody::from(&event), &mut Arena::new());
        stamp(&mut bytes, Position(position), Version(position), at);
        Record::parse(Bytes::from_owner(bytes)).unwrap()
    }

    /// Pages that are on disk until the last, and what happens as each is found.
    struct Scripted {
        pages: Vec<Result<Found, ReadError>>,
        looked: Arc<AtomicUsize>,
        on_page: Box<dyn FnMut(usize) + Send>,
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
    }

    struct Bench {
        _folder: tempfile::TempDir,
        task: Arc<StreamTask>,
        control: Arc<Control>,
        looked: Arc<AtomicUsize>,
    }

    fn bench(credit: Credit, options: ServerOptions) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::new(Arc::new(testing::log(&folder)), options);
        let control = Arc::new(Control::new(credit));
        let session = Arc::new(Session::new(&service));
        let task = Arc::new(StreamTask::new(session, 1, Arc::clone(&control)));
        Bench { _folder: folder, task, control, looked: Arc::default() }
    }

    impl Bench {
        fn source(&self, pages: Vec<Result<Found, ReadError>>) -> Scripted {
            Scripted { pages, looked: Arc::clone(&self.looked), on_page: Box::new(|_| {}) }
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
        let first = Found { before: vec![behind], records: vec![record(1)], after: vec![] };
        let second = Found { before: vec![], records: vec![record(2)], after: vec![live] };
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
    async fn a_record_that_is_larger_than_its_room_is_sent_once_it_has_more() {
        let options = ServerOptions { page_bytes: 8, ..ServerOptions::default() };
        let bench = bench(ALL, options);
        let source = bench.send(bench.source(pages(3))).await.ok().unwrap();
        assert_eq!((bench.looked(), source.pages.len()), (1, 2));
        let expected = Response::Records(Records(vec![record(1)]));
        assert_eq!(written(&bench.task.session.outbox), [(1, expected)]);
    }
}
