//! One opening of a log: clients append, the disk completes in any order, readers read, until the
//! log crashes or closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quipu_engine::commit::outcome::Admitted;
use quipu_engine::commit::preparer::PrepareJob;
use quipu_engine::index::indexer::{IndexWork, Indexer};
use quipu_engine::{EventLog, Origin, Storage};
use quipu_types::{Append, AppendError, AppendOutcome, Position};

use super::model::{Expected, agrees};
use super::reader::Readers;
use super::world::World;

/// Answers that have arrived, by number of the append.
type Answers = Arc<Mutex<Vec<(usize, Result<Admitted, AppendError>)>>>;

/// Turns after which everything must have come to rest.
const REST_TURNS: usize = 400;

/// One opening under way.
pub struct Life<'a> {
    log: &'a EventLog,
    world: &'a mut World,
    readers: Readers<'a>,
    answers: Answers,
    waiting: BTreeMap<usize, Waiting>,
    submitted: usize,
    prepare: Option<PrepareJob>,
    indexer: Indexer,
    /// An append was not written, or nobody knows: nothing more is.
    failed: bool,
    /// There was no space at some time, or the disk said so.
    short_of_space: bool,
    may_rot: bool,
    faults_before: u64,
}

/// An append that is not answered yet.
struct Waiting {
    expected: Expected,
    /// Length of the model before it.
    length: usize,
}

impl<'a> Life<'a> {
    /// `may_rot`: what is derived, at any moment.
    pub fn new(log: &'a EventLog, world: &'a mut World, may_rot: bool) -> Self {
        Self {
            readers: Readers::new(log),
            answers: Answers::default(),
            waiting: BTreeMap::new(),
            submitted: 0,
            prepare: None,
            indexer: Indexer::new(Arc::clone(log.shared())),
            failed: false,
            short_of_space: false,
            may_rot,
            faults_before: world.disk.faults_met(),
            log,
            world,
        }
    }

    /// Lives for some turns, or until the power goes off.
    pub fn live(&mut self, turns: usize, may_fill: bool) -> Result<(), String> {
        for _ in 0..turns {
            if !self.world.disk.is_powered() {
                break;
            }
            if may_fill && self.world.rng.u8(0..40) == 0 {
                self.fill_or_free();
            }
            self.turn()?;
            self.hear_answers()?;
        }
        Ok(())
    }

    /// Everything submitted is answered, and a quiet moment has passed.
    pub fn rest(&mut self) -> Result<(), String> {
        self.world.disk.set_full(false);
        for _ in 0..REST_TURNS {
            self.work()?;
        }
        match self.waiting.len() {
            0 => Ok(()),
            _ if !self.world.disk.is_powered() => Ok(()),
            count => Err(format!("{count} appends were never answered")),
        }
    }

    /// Nothing is wrong any more, so a fresh append must be stored, unless the log has failed.
    pub fn serve(&mut self) -> Result<(), String> {
        self.rest()?;
        let append = self.world.workload.plain(&mut self.world.rng);
        let acknowledged = self.world.figures.acknowledged;
        self.submit(&append);
        self.rest()?;
        if self.world.figures.acknowledged == acknowledged {
            return Err(format!("no append is stored although nothing is wrong: {append:?}"));
        }
        Ok(())
    }

    /// Closes in order; whether that was done to the end.
    pub fn close(&mut self) -> Result<bool, String> {
        self.world.note(|| "close".to_owned());
        self.log.shared().inbox.close();
        for _ in 0..REST_TURNS {
            if self.work()? {
                return Ok(!self.disk_has_failed() && !self.short_of_space);
            }
            if !self.world.disk.is_powered() {
                return Ok(false);
            }
        }
        Err("the log does not close".to_owned())
    }

    /// Does all that there is to do; whether the log is closed.
    fn work(&mut self) -> Result<bool, String> {
        let closed = self.step();
        while self.world.disk.in_flight() > 0 {
            self.complete();
        }
        self.run_prepare();
        self.run_index();
        self.hear_answers()?;
        self.world.clock.advance(1_000, 0);
        Ok(closed)
    }

    fn turn(&mut self) -> Result<(), String> {
        // What is derived may rot under whoever has it open.
        if self.may_rot && self.world.rng.u8(0..100) == 0 {
            let damage = self.world.disk.damage_index();
            self.world.note(|| format!("damage: {damage:?}"));
        }
        match self.world.rng.u8(0..20) {
            0..6 => {
                let World { workload, model, rng, .. } = &mut *self.world;
                let append = workload.next(model, rng);
                self.submit(&append);
            }
            6..12 => {
                self.step();
            }
            12..16 => self.complete(),
            16 => self.run_prepare(),
            17 => self.run_index(),
            18 => self.pass_time(),
            _ => self.readers.read(self.world)?,
        }
        Ok(())
    }

    /// Time stands still between turns; the wall clock jumps either way.
    fn pass_time(&mut self) {
        let rng = &mut self.world.rng;
        let (micros, jump) = match rng.u8(0..16) {
            0 => (rng.u64(0..3_600_000_000), 0),
            1 => (rng.u64(0..5_000), rng.i64(-10_000_000..10_000_000)),
            _ => (rng.u64(0..5_000), 0),
        };
        self.world.clock.advance(micros, jump);
    }

    fn fill_or_free(&mut self) {
        let full = !self.world.disk.is_full();
        self.world.note(|| format!("the disk is full: {full}"));
        self.world.disk.set_full(full);
        self.short_of_space = true;
    }

    fn submit(&mut self, append: &Append) {
        let Ok(prepared) = self.log.prepare(append, Origin::Client) else { return };
        let number = self.submitted;
        let answers = Arc::clone(&self.answers);
        let reply = Box::new(move |result| answers.lock().push((number, result)));
        if self.log.try_submit(prepared, reply).is_err() {
            return;
        }
        self.submitted += 1;
        self.world.figures.submitted += 1;
        let length = self.world.model.events.len();
        let expected = self.world.model.admit(append);
        let events = append.events.len();
        self.world.note(|| format!("append {number}: {events} events -> {expected:?}"));
        self.waiting.insert(number, Waiting { expected, length });
    }

    /// Whether the log is closed.
    fn step(&mut self) -> bool {
        let Some(step) = self.log.step() else { return true };
        for answer in step.answers {
            answer.send();
        }
        if let Some(write) = step.write {
            let (bytes, offset, ticket) = (write.bytes.len(), write.offset, write.done.ticket());
            self.world.note(|| format!("submit {bytes} bytes at {offset}"));
            if let Some(result) = self.world.disk.submit(write) {
                self.log.shared().inbox.written_here(ticket, result);
            }
        }
        if step.prepare.is_some() {
            self.prepare = step.prepare;
        }
        step.closed
    }

    fn complete(&mut self) {
        let in_flight = self.world.disk.in_flight();
        if in_flight > 0 {
            let index = self.world.rng.usize(0..in_flight);
            self.world.note(|| format!("complete {index} of {in_flight}"));
            self.world.disk.complete(index);
        }
    }

    fn run_prepare(&mut self) {
        if let Some(job) = self.prepare.take() {
            self.world.note(|| "prepare space".to_owned());
            self.log.shared().inbox.prepared(job.run(&self.world.disk));
        }
    }

    fn run_index(&mut self) {
        // Some groups are left out, and some work waits, as when the indexer falls behind.
        while self.world.rng.u8(0..20) > 0
            && let Some(work) = self.log.shared().index_queue.try_pop()
        {
            match work {
                IndexWork::Group(..) if self.world.rng.u8(0..40) == 0 => {}
                work => self.indexer.take(work),
            }
        }
        // A merge is seldom done when the next thing happens.
        self.indexer.merge_some(self.world.rng.usize(0..200));
    }

    fn hear_answers(&mut self) -> Result<(), String> {
        let answers = std::mem::take(&mut *self.answers.lock());
        let mut refused = None;
        for (number, answer) in answers {
            let Some(waiting) = self.waiting.remove(&number) else {
                return Err(format!("append {number} is answered twice"));
            };
            if matches!(answer, Err(AppendError::NoSpace(_))) {
                refused = Some(refused.unwrap_or(number).min(number));
            }
            self.hear(number, &waiting, answer)?;
        }
        match (refused, self.waiting.last_key_value()) {
            (Some(refused), Some((last, _))) if *last > refused => {
                Err(format!("append {refused} was refused, and {last} behind it was not"))
            }
            _ => Ok(()),
        }
    }

    fn hear(
        &mut self,
        number: usize,
        waiting: &Waiting,
        answer: Result<Admitted, AppendError>,
    ) -> Result<(), String> {
        let answer = answer.and_then(|admitted| self.log.settle(admitted));
        self.world.note(|| format!("answer {number}: {answer:?}"));
        match &answer {
            Err(AppendError::OutcomeUnknown(_) | AppendError::NotWritten(_))
                if self.disk_has_failed() =>
            {
                self.failed = true;
                Ok(())
            }
            Err(AppendError::NoSpace(_)) if self.short_of_space || self.disk_has_failed() => {
                self.world.model.truncate(waiting.length);
                Ok(())
            }
            Err(AppendError::Read(_)) if self.disk_has_failed() => Ok(()),
            _ if !agrees(&waiting.expected, &answer) => {
                let expected = &waiting.expected;
                Err(format!("append {number}: expected {expected:?}, got {answer:?}"))
            }
            Ok(outcome) => self.acknowledged(outcome),
            Err(error) => self.refused(error),
        }
    }

    fn disk_has_failed(&self) -> bool {
        !self.world.disk.is_powered() || self.world.disk.faults_met() > self.faults_before
    }

    fn acknowledged(&mut self, outcome: &AppendOutcome) -> Result<(), String> {
        self.world.figures.acknowledged += 1;
        outcome.positions.iter().try_for_each(|position| self.rests_on(*position))
    }

    /// A refusal tells of what is stored: that must last, too.
    fn refused(&mut self, error: &AppendError) -> Result<(), String> {
        match error {
            AppendError::IdConflict { position, .. } => self.rests_on(*position),
            AppendError::Conflict(conflicts) => conflicts.iter().try_for_each(|conflict| {
                let position = self.world.model.position_of(&conflict.key, conflict.actual);
                position.map_or(Ok(()), |position| self.rests_on(position))
            }),
            _ => Ok(()),
        }
    }

    fn rests_on(&mut self, position: Position) -> Result<(), String> {
        if position > self.log.shared().watermark.current() {
            return Err(format!("an answer tells of position {position}, above the watermark"));
        }
        self.world.saw(position);
        Ok(())
    }
}
