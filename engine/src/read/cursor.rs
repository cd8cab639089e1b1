//! Walks the records that a request asks for, a page at a time, over all segments.

use std::sync::Arc;

use quipu_types::{
    Corruption, Direction, Filter, Position, ReadError, ReadRequest, Record, Version,
};

use super::holders::Holders;
use crate::format::group::Group;
use crate::index::live::Postings;
use crate::segment::Segment;
use crate::segment::segment::Candidates;
use crate::segment::set::segment_of;
use crate::shared::Shared;

/// Bounds of one page. It always holds at least one record, however large, and beyond that no more
/// than these.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Records.
    pub records: usize,
    /// Bytes of records.
    pub bytes: usize,
    /// Records looked at, whether the filter takes them or not.
    pub looked_at: usize,
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { records: 512, bytes: 4 << 20, looked_at: 10_000 }
    }
}

/// Records, and how far the cursor has come.
#[derive(Debug, Default)]
pub struct Page {
    /// The records that the filter takes.
    pub records: Vec<Record>,
    /// There is nothing more.
    pub is_last: bool,
}

/// A read under way. It sees the log as it was when the read began, never more.
pub struct Cursor {
    log: Arc<Shared>,
    filter: Filter,
    direction: Direction,
    /// What is left of the positions asked for; empty once `first > last`.
    first: Position,
    last: Position,
    /// With an aggregate: the version to begin at.
    from_version: Option<Version>,
    holders: Option<Holders>,
    remaining: u64,
    plan: Option<Plan>,
    /// Read but not delivered: it did not fit the page.
    held: Option<Record>,
    group: Option<(u64, Arc<Group>)>,
    /// Where the log is damaged: what lies beyond cannot be read.
    damage: Option<Corruption>,
}

/// What to read of one segment.
struct Plan {
    segment: Arc<Segment>,
    first: Position,
    last: Position,
    /// Only these positions, in the order of reading, the next one last.
    listed: Option<Vec<Position>>,
}

impl Cursor {
    /// Begins a read of what is durable now.
    #[must_use]
    pub fn new(log: Arc<Shared>, request: ReadRequest) -> Self {
        // A forward read that would run into damage must say so, not end quietly before it. Looked
        // at before the watermark: what is in front of the damage is shown when the damage is told.
        let damage = log.damage().filter(|_| request.direction == Direction::Forward);
        let end = log.watermark.current();
        let (mut first, mut last) = (Position::FIRST, end);
        let mut from_version = None;
        match (request.from, request.filter.aggregate.is_some(), request.direction) {
            (None, ..) => {}
            (Some(from), true, _) => from_version = Some(Version(from)),
            (Some(from), false, Direction::Forward) => first = Position(from).max(Position::FIRST),
            (Some(from), false, Direction::Backward) => last = Position(from).min(end),
        }
        let remaining = request.limit.unwrap_or(u64::MAX);
        let (filter, direction) = (request.filter, request.direction);
        let holders = filter.aggregate.as_ref().map(|key| Holders::new(&log, key));
        let (plan, held, group) = (None, None, None);
        Self {
            log,
            filter,
            direction,
            first,
            last,
            from_version,
            holders,
            remaining,
            plan,
            held,
            group,
            damage,
        }
    }

    /// A read of the positions after `after`, forward.
    #[must_use]
    pub fn after(log: Arc<Shared>, filter: Filter, after: Position) -> Self {
        // Subscriptions give positions even where the filter names an aggregate.
        let mut cursor = Self::new(log, ReadRequest { filter, ..ReadRequest::default() });
        cursor.first = after.next();
        cursor
    }

    /// The position up to which a forward read has looked at everything.
    #[must_use]
    pub fn looked_up_to(&self) -> Position {
        match (&self.held, &self.plan) {
            (Some(held), _) => held.position().previous(),
            (None, Some(plan)) => plan.first.previous(),
            (None, None) => self.first.previous(),
        }
    }

    /// Whether nothing is left, as far as that can be told without reading.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let nothing_planned = self.held.is_none() && self.peek_position().is_none();
        let no_segment = self.first > self.last || self.last == Position::START;
        self.remaining == 0 || (nothing_planned && no_segment && self.damage.is_none())
    }

    /// Whether the next page can be had without the disk: a forward read that has come to the
    /// newest groups, which are in memory with all that follow them.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        let next = self.next_position().unwrap_or(self.first);
        let segments = self.log.segments.snapshot();
        self.direction == Direction::Forward
            && segment_of(&segments, next).is_some_and(|it| segments[it].is_in_tail(next))
    }

    /// Keeps its place and nothing else, for as long as it waits: no group, no record, no list of
    /// positions. The next page looks them up again.
    pub fn forget(&mut self) {
        let next = self.next_position();
        (self.plan, self.held, self.group) = (None, None, None);
        match (next, self.direction) {
            (None, _) => {}
            (Some(next), Direction::Forward) => self.first = next,
            (Some(next), Direction::Backward) => self.last = next,
        }
    }

    /// The position to be looked at next, if it is known.
    fn next_position(&self) -> Option<Position> {
        self.held.as_ref().map(Record::position).or_else(|| self.peek_position())
    }

    /// The next page.
    ///
    /// # Errors
    /// Damage or a disk error at the next record; what came before was delivered.
    pub fn next_page(&mut self, limits: PageLimits) -> Result<Page, ReadError> {
        let mut page = Page::default();
        let (mut bytes, mut looked_at) = (0, 0);
        while self.remaining > 0 && page.records.len() < limits.records && bytes < limits.bytes {
            if looked_at >= limits.looked_at {
                return Ok(page);
            }
            match self.next_record() {
                Ok(Some(record)) => {
                    looked_at += 1;
                    if !self.filter.matches(&record) {
                        continue;
                    }
                    let more = record.as_bytes().len();
                    if !page.records.is_empty() && bytes + more > limits.bytes {
                        self.held = Some(record);
                        return Ok(page);
                    }
                    bytes += more;
                    self.remaining -= 1;
                    page.records.push(record);
                }
                Ok(None) => {
                    page.is_last = true;
                    break;
                }
                // Deliver what there is; the next call meets the error again.
                Err(_) if !page.records.is_empty() => return Ok(page),
                Err(error) => return Err(error),
            }
        }
        page.is_last |= self.remaining == 0;
        Ok(page)
    }

    /// The next record that the index does not rule out.
    fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        loop {
            if self.plan.is_none() && !self.plan_next_segment()? {
                return Ok(None);
            }
            let Some(position) = self.peek_position() else {
                self.plan = None;
                continue;
            };
            let record = self.record_at(position)?;
            self.took(position);
            return Ok(Some(record));
        }
    }

    fn peek_position(&self) -> Option<Position> {
        let plan = self.plan.as_ref()?;
        match &plan.listed {
            Some(listed) => listed.last().copied(),
            None if plan.first > plan.last => None,
            None if self.direction == Direction::Forward => Some(plan.first),
            None => Some(plan.last),
        }
    }

    fn took(&mut self, position: Position) {
        let Some(plan) = &mut self.plan else { return };
        if let Some(listed) = &mut plan.listed {
            listed.pop();
        }
        match self.direction {
            Direction::Forward => plan.first = position.next(),
            Direction::Backward => plan.last = position.previous(),
        }
    }

    /// Plans the next segment; false if there is none left.
    fn plan_next_segment(&mut self) -> Result<bool, ReadError> {
        let segments = self.log.segments.snapshot();
        while self.first <= self.last && self.last > Position::START {
            let at = match self.direction {
                Direction::Forward => segment_of(&segments, self.first),
                Direction::Backward => segment_of(&segments, self.last),
            };
            let Some(segment) = at.and_then(|at| segments.get(at)) else { break };
            let first = self.first.max(segment.header().first_position);
            let last = self.last.min(segment.last_position());
            if first > last {
                break;
            }
            // Where this fails nothing has moved: the next call meets the error again.
            let number = segment.header().number;
            let holders = self.holders.as_mut();
            let candidates = if holders.is_none_or(|it| it.may_have(&self.log, number)) {
                self.noted(segment.candidates(self.log.hasher, &self.filter, last))?
            } else {
                Candidates::None
            };
            match self.direction {
                Direction::Forward => self.first = last.next(),
                Direction::Backward => self.last = first.previous(),
            }
            let listed = match candidates {
                Candidates::None => continue,
                Candidates::All => None,
                Candidates::Stream(postings) => {
                    Some(self.in_order(self.versions_asked_for(postings), first, last))
                }
                Candidates::Listed(listed) => Some(self.in_order(listed, first, last)),
            };
            if listed.as_ref().is_none_or(|listed| !listed.is_empty()) {
                self.plan = Some(Plan { segment: Arc::clone(segment), first, last, listed });
                return Ok(true);
            }
        }
        // Kept: a page that holds records is delivered first, and the next one meets the damage.
        match &self.damage {
            Some(damage) => Err(damage.clone().into()),
            None => Ok(false),
        }
    }

    /// Of an aggregate's records, those from the version asked for.
    fn versions_asked_for(&self, postings: Postings) -> Vec<Position> {
        let Postings { first_version, positions: mut listed } = postings;
        if let Some(from) = self.from_version {
            let before = from.0.saturating_sub(first_version.0);
            let before = usize::try_from(before).unwrap_or(usize::MAX);
            match self.direction {
                Direction::Forward => drop(listed.drain(..before.min(listed.len()))),
                Direction::Backward if from < first_version => listed.clear(),
                Direction::Backward => listed.truncate(before.saturating_add(1)),
            }
        }
        listed
    }

    /// Of the candidates, those asked for, the next one last.
    fn in_order(
        &self,
        mut listed: Vec<Position>,
        first: Position,
        last: Position,
    ) -> Vec<Position> {
        listed.retain(|position| (first..=last).contains(position));
        if self.direction == Direction::Forward {
            listed.reverse();
        }
        listed
    }

    fn record_at(&mut self, position: Position) -> Result<Record, ReadError> {
        let found = self.checked_record_at(position);
        self.noted(found)
    }

    /// Damage that was met is for health to tell, too.
    fn noted<T>(&self, found: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(ReadError::Corruption(damage)) = &found {
            self.log.note_damage(damage);
        }
        found
    }

    fn checked_record_at(&mut self, position: Position) -> Result<Record, ReadError> {
        let Some(plan) = &self.plan else { return Err(ReadError::Closed) };
        let number = plan.segment.header().number;
        let in_group = (self.group.as_ref())
            .is_some_and(|(segment, group)| *segment == number && group.contains(position));
        if !in_group {
            let storage = &*self.log.env.storage;
            // Of a few records that are far apart a group each would be read and checked.
            if plan.listed.is_some()
                && let Some(record) = plan.segment.record(&self.log.open_files, position)?
            {
                return Ok(record);
            }
            self.group = Some((number, plan.segment.group(storage, position)?));
        }
        let Some((_, group)) = &self.group else { return Err(ReadError::Closed) };
        let record = group
            .record(position)
            .map_err(|fault| plan.segment.damage(position, &fault.to_string()))?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use quipu_types::{AggregateKey, Append, NewEvent, Timestamp, Uuid};

    use super::*;
    use crate::clock::System;
    use crate::log::EventLog;
    use crate::options::LogOptions;
    use crate::shared::Environment;
    use crate::storage::{Access, Backend, DiskStorage, Mapping};

    const EVENTS: u64 = 60;

    fn event(id: u64) -> NewEvent {
        let key = AggregateKey::new("Call", (id % 3).to_string());
        let id = Uuid::from_u128(id.into());
        let mut event = NewEvent::json(id, key, "Made", Timestamp::from_micros(1), "{}");
        event.metadata.correlation_id = (id.as_u128() % 2).to_string();
        event
    }

    /// A log of several segments, all but the last of them indexed.
    fn log(folder: &tempfile::TempDir) -> EventLog {
        let mut options = LogOptions { segment_bytes: 64 * 1024, ..LogOptions::default() };
        options.limits.append_bytes_max = 16 * 1024;
        let storage =
            DiskStorage::open(folder.path(), Access::ReadWrite, Backend::Auto, Mapping::Mapped);
        let env = Environment {
            storage: Arc::new(storage.unwrap()),
            clock: Arc::new(System),
            entropy: Arc::new(System),
        };
        let log = EventLog::open(env, options).unwrap();
        for first in (1..=EVENTS).step_by(2) {
            log.append(&Append::any(vec![event(first), event(first + 1)])).unwrap();
        }
        while log.shared().segments.snapshot().iter().filter(|it| !it.is_indexed()).count() > 1 {
            std::thread::yield_now();
        }
        log
    }

    fn requests() -> Vec<ReadRequest> {
        let correlated = Filter { correlation_id: Some("1".to_owned()), ..Filter::default() };
        let filters =
            [Filter::default(), Filter::aggregate(AggregateKey::new("Call", "1")), correlated];
        let mut requests = Vec::new();
        for filter in filters {
            for direction in [Direction::Forward, Direction::Backward] {
                for (from, limit) in [(None, None), (Some(15), None), (None, Some(9))] {
                    requests.push(ReadRequest { filter: filter.clone(), from, direction, limit });
                }
            }
        }
        requests
    }

    /// All that a read finds, in pages; after each one the cursor waits if it is told to.
    fn read(mut cursor: Cursor, limits: PageLimits, waits: bool) -> Vec<Position> {
        let mut found = Vec::new();
        loop {
            let page = cursor.next_page(limits).unwrap();
            found.extend(page.records.iter().map(Record::position));
            if page.is_last {
                assert!(cursor.is_done());
                return found;
            }
            if waits {
                let before = (cursor.is_done(), cursor.is_in_memory());
                let looked_up_to = cursor.looked_up_to();
                cursor.forget();
                assert!(cursor.plan.is_none() && cursor.held.is_none() && cursor.group.is_none());
                assert_eq!((cursor.is_done(), cursor.is_in_memory()), before);
                let is_backward = cursor.direction == Direction::Backward;
                assert!(is_backward || cursor.looked_up_to() >= looked_up_to);
            }
        }
    }

    #[test]
    fn a_cursor_that_waits_holds_its_place_alone_and_goes_on_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder);
        assert!(log.shared().segments.snapshot().len() > 2);
        let record = log.record_at(Position(1)).unwrap().as_bytes().len();
        for request in requests() {
            let begin = || Cursor::new(Arc::clone(log.shared()), request.clone());
            let expected = read(begin(), PageLimits::default(), false);
            assert!(expected.len() > 4, "{request:?}");
            for (records, bytes) in [(1, usize::MAX), (3, usize::MAX), (9, record * 5 / 2)] {
                let limits = PageLimits { records, bytes, ..PageLimits::default() };
                assert_eq!(read(begin(), limits, true), expected, "{request:?} {limits:?}");
            }
            let limits = PageLimits { looked_at: 1, ..PageLimits::default() };
            assert_eq!(read(begin(), limits, true), expected, "{request:?}, one at a time");
        }
    }
}
