//! Reads of a log in this process, a page at a time. A read of everything has what comes next read
//! ahead, by two threads.

use std::sync::Arc;

use blocking::unblock;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use quipu_engine::EventLog;
use quipu_engine::read::cursor::{Cursor, PageLimits};
use quipu_types::{Direction, Filter, Position, ReadError, ReadRequest, Record};

/// Positions that are read in one go: some pages, so that handing them over costs little.
const SPAN: u64 = 2_048;
/// Spans that are read, by two threads, or wait for a consumer that has not taken them.
const SPANS_AHEAD: usize = 3;

type Pages = BoxStream<'static, Result<Vec<Record>, ReadError>>;

/// The pages of a read, which begins now.
pub(crate) fn pages(log: &Arc<EventLog>, request: ReadRequest) -> Pages {
    let (spans, last) = split(log, request);
    let ahead = stream::iter(spans)
        .map(|span| unblock(move || span.read()))
        .buffered(SPANS_AHEAD)
        .flat_map(|(pages, rest)| stream::iter(pages).chain(in_turn(rest)));
    let last = stream::unfold(Some(last), next_page);
    // A read ends with its first error, whatever was read ahead.
    let until_error = ahead.chain(last).scan(false, |is_over, page| {
        let page = (!*is_over).then_some(page);
        *is_over = page.as_ref().is_none_or(Result::is_err);
        std::future::ready(page)
    });
    until_error.fuse().boxed()
}

/// Positions that are read without regard to what precedes them.
struct Span {
    cursor: Cursor,
    last: Position,
}

/// Where everything is asked for, however much: spans of it, and a cursor for the rest. Of a read
/// with a limit nothing is read ahead, nor of one that passes records over.
fn split(
    log: &Arc<EventLog>,
    request: ReadRequest,
) -> (impl Iterator<Item = Span> + use<>, Cursor) {
    let first = Position(request.from.unwrap_or_default()).max(Position::FIRST);
    let end = log.shared().watermark.current();
    let whole = (end.0 + 1).saturating_sub(first.0) / SPAN;
    let count = if takes_everything(&request) { whole } else { 0 };
    // Not the log itself, which is closed with its last clone, whatever is still read from it.
    let (shared, filter) = (Arc::clone(log.shared()), request.filter.clone());
    let from = if count > 0 { Some(first.0 + count * SPAN) } else { request.from };
    let rest = log.read(ReadRequest { from, ..request });
    let spans = (0..count).map(move |number| {
        let first = first.0 + number * SPAN;
        let (from, filter) = (Some(first), filter.clone());
        let request = ReadRequest { from, filter, ..ReadRequest::default() };
        let cursor = Cursor::new(Arc::clone(&shared), request);
        Span { cursor, last: Position(first + SPAN - 1) }
    });
    (spans, rest)
}

fn takes_everything(request: &ReadRequest) -> bool {
    let include_system = request.filter.include_system;
    request.filter == Filter { include_system, ..Filter::default() }
        && request.direction == Direction::Forward
        && request.limit.is_none()
}

type Read = (Vec<Result<Vec<Record>, ReadError>>, Option<Span>);

impl Span {
    /// Pages that are as large as one may be, all together; and what is left then.
    fn read(mut self) -> Read {
        let mut pages = Vec::new();
        let mut limits = PageLimits::default();
        while self.cursor.looked_up_to() < self.last {
            if limits.bytes == 0 {
                return (pages, Some(self));
            }
            let left = self.last.0 - self.cursor.looked_up_to().0;
            limits.looked_at = usize::try_from(left).unwrap_or(usize::MAX);
            match self.cursor.next_page(limits) {
                Ok(page) if page.is_last => {
                    pages.push(Ok(page.records));
                    break;
                }
                Ok(page) => {
                    let bytes = page.records.iter().map(|record| record.as_bytes().len());
                    limits.bytes = limits.bytes.saturating_sub(bytes.sum());
                    pages.push(Ok(page.records));
                }
                Err(error) => {
                    pages.push(Err(error));
                    break;
                }
            }
        }
        (pages, None)
    }
}

/// What is left of a span whose records are large.
fn in_turn(rest: Option<Span>) -> impl Stream<Item = Result<Vec<Record>, ReadError>> {
    let reads = stream::unfold(rest, |rest| async move {
        let span = rest?;
        Some(unblock(move || span.read()).await)
    });
    reads.flat_map(stream::iter)
}

async fn next_page(
    cursor: Option<Cursor>,
) -> Option<(Result<Vec<Record>, ReadError>, Option<Cursor>)> {
    let mut cursor = cursor?;
    let (page, cursor) = if cursor.is_in_memory() {
        (cursor.next_page(PageLimits::default()), cursor)
    } else {
        unblock(move || (cursor.next_page(PageLimits::default()), cursor)).await
    };
    Some(match page {
        Ok(page) => (Ok(page.records), Some(cursor).filter(|_| !page.is_last)),
        Err(error) => (Err(error), None),
    })
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use futures::executor::block_on;
    use quipu_types::{AggregateKey, Append};
    use tempfile::TempDir;

    use super::*;
    use crate::{Embedded, EventStore, Options};

    const EVENTS: u64 = 2 * SPAN + 100;

    fn key() -> AggregateKey {
        AggregateKey::new("T", "1")
    }

    fn append(store: &Embedded, events: u64) {
        let payload = format!("\"{}\"", "x".repeat(2_500));
        let events = (0..events).map(|_| store.new_event(key(), "Made", payload.as_str()));
        block_on(store.append(Append::any(events.collect()))).unwrap();
    }

    /// Two spans, each of more than one read takes, and some.
    fn filled() -> (TempDir, Embedded) {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::default().with_segment_bytes(4 << 20);
        let store = Embedded::open(folder.path(), options).unwrap();
        for start in (0..EVENTS).step_by(250) {
            append(&store, (EVENTS - start).min(250));
        }
        (folder, store)
    }

    type Found = (Vec<u64>, Option<ReadError>);

    /// All positions, and how the read ended; it ends with its first error.
    fn all(pages: Pages) -> Found {
        let mut found = (Vec::new(), None);
        for page in block_on(pages.collect::<Vec<_>>()) {
            assert_eq!(found.1, None, "nothing comes behind an error");
            match page {
                Ok(page) => found.0.extend(page.iter().map(|it| it.position().0)),
                Err(error) => found.1 = Some(error),
            }
        }
        found
    }

    fn from(from: Option<u64>) -> ReadRequest {
        ReadRequest { from, ..ReadRequest::default() }
    }

    #[test]
    fn everything_comes_once_and_in_order_wherever_it_begins() {
        let (_folder, store) = filled();
        let starts = [None, Some(0), Some(1), Some(2), Some(SPAN), Some(EVENTS - SPAN)];
        let late = [Some(EVENTS), Some(EVENTS + 1), Some(u64::MAX)];
        for start in starts.into_iter().chain(late) {
            let expected: Vec<u64> = (start.unwrap_or(1).max(1)..=EVENTS).collect();
            assert_eq!(all(pages(store.log(), from(start))), (expected, None), "from {start:?}");
        }
        let read = pages(store.log(), from(None));
        append(&store, 10);
        assert_eq!(all(read).0.len() as u64, EVENTS, "what came later is not part of the read");
        let read = block_on(pages(store.log(), from(None)).try_collect::<Vec<_>>()).unwrap();
        assert!(read.iter().all(|page| page.len() <= PageLimits::default().records));
    }

    #[test]
    fn what_has_a_limit_or_passes_records_over_is_not_read_ahead() {
        let (_folder, store) = filled();
        let spans = |request| split(store.log(), request).0.count();
        assert_eq!(spans(from(None)), 2);
        assert_eq!(spans(from(Some(102))), 1);
        let of_type = Filter { event_types: vec!["Made".to_owned()], ..Filter::default() };
        for request in [
            ReadRequest { limit: Some(EVENTS), ..ReadRequest::default() },
            ReadRequest { direction: Direction::Backward, ..ReadRequest::default() },
            ReadRequest { filter: Filter::aggregate(key()), ..ReadRequest::default() },
            ReadRequest { filter: of_type, ..ReadRequest::default() },
        ] {
            assert_eq!(spans(request.clone()), 0);
            assert_eq!(all(pages(store.log(), request)).0.len() as u64, EVENTS);
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the log is damaged behind its back")]
    fn damage_is_told_after_what_precedes_it_and_a_dropped_read_keeps_nothing_open() {
        let (folder, store) = filled();
        let mut read = pages(store.log(), from(None));
        assert!(block_on(read.next()).unwrap().is_ok());
        drop(store);
        Embedded::open(folder.path(), Options::default()).expect("closed, though it is read from");
        drop(read);
        let segment = folder.path().join("00000000000000000002.seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[2 << 20] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let store = Embedded::open_read_only(folder.path(), Options::default()).unwrap();
        let (positions, error) = all(pages(store.log(), from(None)));
        let Some(ReadError::Corruption(damage)) = error else { panic!("{error:?}") };
        assert_eq!(positions, (1..damage.first.0).collect::<Vec<_>>());
        assert!((SPAN..EVENTS).contains(&damage.first.0), "{damage}");
    }
}
