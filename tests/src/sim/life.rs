//! One opening of a log: clients append, the disk completes in any order, readers read, until the
//! log crashes or closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;
use quipu_engine::commit::outcome::Admitted;
use quipu_engine::commit::preparer::PrepareJob;
use quipu_engine::index::indexer::{IndexWork, Indexer};
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::{EventLog, Origin};
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, ExpectedVersion, Filter, NewEvent, Position,
    ReadRequest, Record, Timestamp, Uuid, Version,
};

use super::disk::SimDisk;
use super::model::{Expected, Model, agrees, is_record_of, met};
use super::time::SimClock;

/// Answers that have arrived, by number of the append.
type Answers = Arc<Mutex<Vec<(usize, Result<Admitted, AppendError>)>>>;

/// What happened in a life, for the next one to hold the log to.
#[derive(Default)]
pub struct Testimony {
    /// Length of the log that was acknowledged or shown to a reader.
    pub seen: usize,
    /// Appends submitted, acknowledged.
    pub submitted: u64,
    pub acknowledged: u64,
}

/// One opening under way.
pub struct Life<'a> {
    stage: Stage<'a>,
    answers: Answers,
    expected: BTreeMap<usize, Expected>,
    submitted: usize,
    prepare: Option<PrepareJob>,
    indexer: Indexer,
    failed: bool,
    testimony: Testimony,
}

/// The seams and the state that a life works on.
pub struct Stage<'a> {
    pub log: &'a EventLog,
    pub disk: &'a SimDisk,
    pub clock: &'a SimClock,
    pub rng: &'a mut Rng,
    pub model: &'a mut Model,
    pub next_id: &'a mut u128,
    /// Earlier appends, to submit again.
    pub past: &'a mut Vec<Append>,
    pub history: &'a mut Vec<String>,
}

impl<'a> Life<'a> {
    pub fn new(stage: Stage<'a>) -> Self {
        Self {
            answers: Answers::default(),
            expected: BTreeMap::new(),
            submitted: 0,
            prepare: None,
            indexer: Indexer::new(Arc::clone(stage.log.shared())),
            failed: false,
            testimony: Testimony::default(),
            stage,
        }
    }

    /// Lives for some turns, and then comes to rest if asked; says what was seen, or what was
    /// wrong.
    pub fn live(mut self, turns: usize, rest: bool) -> Result<Testimony, String> {
        for _ in 0..turns {
            if !self.stage.disk.is_powered() {
                break;
            }
            self.turn()?;
            self.hear_answers()?;
        }
        if rest {
            self.rest()?;
        }
        Ok(self.testimony)
    }

    /// Everything submitted is written, and a quiet moment has passed.
    fn rest(&mut self) -> Result<(), String> {
        for _ in 0..200 {
            self.step();
            while self.stage.disk.in_flight() > 0 {
                self.complete();
            }
            self.run_prepare();
            self.run_index();
            self.hear_answers()?;
            self.stage.clock.advance(1_000, 0);
        }
        if self.expected.is_empty() {
            return Ok(());
        }
        Err(format!("{} appends were never answered", self.expected.len()))
    }

    fn turn(&mut self) -> Result<(), String> {
        match self.stage.rng.u8(0..20) {
            0..6 => self.append(),
            6..12 => self.step(),
            12..16 => self.complete(),
            16 => self.run_prepare(),
            17 => self.run_index(),
            18 => {
                let jump = if self.stage.rng.u8(0..8) == 0 {
                    self.stage.rng.i64(-10_000_000..10_000_000)
                } else {
                    0
                };
                self.stage.clock.advance(self.stage.rng.u64(0..5_000), jump);
            }
            _ => self.read()?,
        }
        Ok(())
    }

    fn append(&mut self) {
        let append = self.make_append();
        let Ok(prepared) = self.stage.log.prepare(&append, Origin::Client) else {
            return;
        };
        let number = self.submitted;
        let answers = Arc::clone(&self.answers);
        let reply = Box::new(move |result| answers.lock().push((number, result)));
        if self.stage.log.try_submit(prepared, reply).is_err() {
            return;
        }
        self.submitted += 1;
        self.testimony.submitted += 1;
        let expected = self.stage.model.admit(&append);
        self.stage
            .history
            .push(format!("append {number}: {} events -> {expected:?}", append.events.len()));
        self.expected.insert(number, expected);
        self.stage.past.push(append);
    }

    fn make_append(&mut self) -> Append {
        if !self.stage.past.is_empty() && self.stage.rng.u8(0..10) == 0 {
            return self.stage.past[self.stage.rng.usize(0..self.stage.past.len())].clone();
        }
        let count = if self.stage.rng.u8(0..6) == 0 { self.stage.rng.usize(2..8) } else { 1 };
        let events: Vec<NewEvent> = (0..count).map(|_| self.make_event()).collect();
        let key = events[0].aggregate.clone();
        let expected = match self.stage.rng.u8(0..6) {
            0 => ExpectedVersion::Any,
            1 => ExpectedVersion::Exact(Version(self.stage.rng.u64(0..6))),
            2 => ExpectedVersion::NoStream,
            _ => met(self.stage.model, &key),
        };
        Append { events, expectations: vec![(key, expected)] }
    }

    fn make_event(&mut self) -> NewEvent {
        *self.stage.next_id += 1;
        let id = *self.stage.next_id;
        let key = AggregateKey::new("T", self.stage.rng.u8(0..5).to_string());
        let size = if self.stage.rng.u8(0..8) == 0 { self.stage.rng.usize(0..3_000) } else { 10 };
        let payload = format!("{{\"n\":{id},\"x\":\"{}\"}}", "y".repeat(size));
        NewEvent::json(Uuid::from_u128(id), key, "E", Timestamp::from_micros(0), payload)
    }

    fn step(&mut self) {
        let Some(step) = self.stage.log.step() else { return };
        for answer in step.answers {
            answer.send();
        }
        if let Some(write) = step.write {
            self.stage.history.push(format!(
                "submit {} bytes at {}",
                write.bytes.len(),
                write.offset
            ));
            let inline = quipu_engine::Storage::submit(self.stage.disk, write);
            assert!(inline.is_none(), "the simulated disk completes later");
        }
        if step.prepare.is_some() {
            self.prepare = step.prepare;
        }
    }

    fn complete(&mut self) {
        let in_flight = self.stage.disk.in_flight();
        if in_flight > 0 {
            let index = self.stage.rng.usize(0..in_flight);
            self.stage.history.push(format!("complete {index} of {in_flight}"));
            self.stage.disk.complete(index);
        }
    }

    fn run_prepare(&mut self) {
        if let Some(job) = self.prepare.take() {
            self.stage.history.push("prepare space".to_owned());
            self.stage.log.shared().inbox.prepared(job.run(self.stage.disk));
        }
    }

    fn run_index(&mut self) {
        // Some groups are left out, as they are when the indexer falls behind.
        while let Some(work) = self.stage.log.shared().index_queue.try_pop() {
            match work {
                IndexWork::Group(..) if self.stage.rng.u8(0..40) == 0 => {}
                work => self.indexer.take(work),
            }
        }
    }

    /// A reader reads everything there is.
    fn read(&mut self) -> Result<(), String> {
        let end = self.stage.log.shared().watermark.current();
        let first = match end.0 {
            0 => 1,
            end => self.stage.rng.u64(1..=end),
        };
        let records = read_from(self.stage.log, Position(first))?;
        check_records(self.stage.model, usize::try_from(first).unwrap_or(1), &records)?;
        self.saw(usize::try_from(end.0).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn saw(&mut self, length: usize) {
        self.testimony.seen = self.testimony.seen.max(length);
    }

    fn hear_answers(&mut self) -> Result<(), String> {
        let answers = std::mem::take(&mut *self.answers.lock());
        for (number, answer) in answers {
            let expected = self
                .expected
                .remove(&number)
                .ok_or_else(|| format!("append {number} is answered twice"))?;
            let answer = answer.and_then(|admitted| self.stage.log.settle(admitted));
            self.stage.history.push(format!("answer {number}: {answer:?}"));
            match &answer {
                Err(AppendError::OutcomeUnknown(_) | AppendError::NotWritten(_)) => {
                    self.failed = true;
                }
                Err(AppendError::NoSpace(_)) if !self.failed => {
                    return Err(format!("append {number} found no space: {answer:?}"));
                }
                _ if !agrees(&expected, &answer) => {
                    return Err(format!("append {number}: expected {expected:?}, got {answer:?}"));
                }
                Ok(outcome) => self.acknowledged(outcome)?,
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, outcome: &AppendOutcome) -> Result<(), String> {
        self.testimony.acknowledged += 1;
        let last = outcome.positions.iter().max().copied().unwrap_or_default();
        if last > self.stage.log.shared().watermark.current() {
            return Err(format!("position {last} is acknowledged above the watermark"));
        }
        self.saw(usize::try_from(last.0).map_err(|error| error.to_string())?);
        Ok(())
    }
}

/// Every record from a position on.
pub fn read_from(log: &EventLog, first: Position) -> Result<Vec<Record>, String> {
    let filter = Filter { include_system: true, ..Filter::default() };
    let mut cursor =
        log.read(ReadRequest { filter, from: Some(first.0), ..ReadRequest::default() });
    let mut records = Vec::new();
    loop {
        let page = cursor.next_page(PageLimits::default()).map_err(|error| error.to_string())?;
        records.extend(page.records);
        if page.is_last {
            return Ok(records);
        }
    }
}

/// Whether records from position `first` on are those of the model.
pub fn check_records(model: &Model, first: usize, records: &[Record]) -> Result<(), String> {
    for (index, record) in records.iter().enumerate() {
        let position = first + index;
        match model.events.get(position - 1) {
            Some(event) if is_record_of(event, position, record) => {}
            Some(event) => {
                return Err(format!("position {position}: expected {event:?}, found {record:?}"));
            }
            None => return Err(format!("position {position}: never submitted: {record:?}")),
        }
    }
    Ok(())
}
