//! Several lives of one log under one seed, and what must hold between them.

use std::sync::Arc;

use fastrand::Rng;
use quipu_engine::{Environment, EventLog, LogOptions, LogState, OpenError};
use quipu_types::{Append, Position, Version};

use super::disk::{Fault, SimDisk};
use super::life::{Life, Stage, Testimony, check_records, read_from};
use super::model::Model;
use super::time::{SimClock, SimEntropy};

/// Openings of one log in one run.
const LIVES: usize = 6;

/// What a run is to do; the default is crashes only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    pub seed: u64,
    pub fault: Fault,
    /// Damage a block now and then, and fail operations: damage must be reported.
    pub faults: bool,
    /// Write no WITNESS: damage to the last group cannot be told from a torn tail then, and the
    /// check must notice.
    pub no_witness: bool,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub crashes: u64,
    /// Crashes in the middle of opening the log.
    pub crashes_in_recovery: u64,
    pub submitted: u64,
    pub acknowledged: u64,
    pub torn_tails: u64,
    pub finished_rolls: u64,
    pub rolls: u64,
    pub clean_closes: u64,
    pub damage_reported: u64,
    /// A figure that two runs of one seed must share.
    pub fingerprint: u64,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    pub seed: u64,
    pub problem: String,
    /// What happened, oldest first.
    pub history: Vec<String>,
}

struct Run {
    rng: Rng,
    disk: SimDisk,
    clock: SimClock,
    entropy: Arc<SimEntropy>,
    options: LogOptions,
    model: Model,
    past: Vec<Append>,
    next_id: u128,
    /// Length of the log that must be there at the next opening.
    seen: usize,
    history: Vec<String>,
    figures: Figures,
    faults: bool,
    /// A bit was flipped: reads may fail, and say so.
    rotten: bool,
    rot_was_judged: bool,
}

/// Runs one seed.
pub fn run(plan: Plan) -> Result<Figures, Box<Violation>> {
    let mut rng = Rng::with_seed(plan.seed);
    let disk = SimDisk::new(rng.u64(..));
    disk.set_fault(plan.fault);
    let mut run = Run {
        disk,
        clock: SimClock::default(),
        entropy: Arc::new(SimEntropy::new(rng.u64(..))),
        options: options(&mut rng, plan),
        model: Model::default(),
        past: Vec::new(),
        next_id: 0,
        seen: 0,
        history: Vec::new(),
        figures: Figures::default(),
        faults: plan.faults,
        rotten: false,
        rot_was_judged: false,
        rng,
    };
    run.clock.advance(1, 1_700_000_000_000_000);
    for life in 0..LIVES {
        run.history.push(format!("--- life {life}"));
        if let Err(problem) = run.life() {
            let history = run.history;
            return Err(Box::new(Violation { seed: plan.seed, problem, history }));
        }
        if run.rot_was_judged {
            break;
        }
    }
    run.figures.fingerprint ^= run.rng.u64(..) ^ run.disk.operations();
    Ok(run.figures)
}

fn options(rng: &mut Rng, plan: Plan) -> LogOptions {
    let mut options = LogOptions {
        segment_bytes: 4_096 * rng.u64(8..20),
        group_bytes: 4_096 * rng.usize(1..5),
        groups_in_flight: rng.usize(1..5),
        tail_bytes: rng.usize(0..40_000),
        witness_after_us: if plan.no_witness { u64::MAX } else { 2_000 },
        ..LogOptions::default()
    };
    options.limits.append_bytes_max = 8_192;
    options.limits.event_bytes_max = 4_096;
    options
}

impl Run {
    fn life(&mut self) -> Result<(), String> {
        let opened = self.open()?;
        self.rot_was_judged = self.rotten;
        let Some(log) = opened else { return Ok(()) };
        if self.rotten {
            return self.check_rotten(&log);
        }
        self.check_log(&log)?;
        // Rot in what no later group has covered yet looks like a torn tail; so it comes after a
        // quiet moment.
        let will_rot = self.faults && self.rng.u8(0..4) == 0;
        if !will_rot && self.rng.u8(0..3) > 0 {
            self.disk.set_fuse(Some(self.rng.u64(1..60)));
        }
        if self.faults && !will_rot && self.rng.u8(0..3) == 0 {
            let kinds = [std::io::ErrorKind::Other, std::io::ErrorKind::ReadOnlyFilesystem];
            let kind = kinds[self.rng.usize(0..kinds.len())];
            self.disk.fail_after(Some((self.rng.u64(0..40), kind)));
        }
        let turns = self.rng.usize(10..300);
        let stage = Stage {
            log: &log,
            disk: &self.disk,
            clock: &self.clock,
            rng: &mut self.rng,
            model: &mut self.model,
            next_id: &mut self.next_id,
            past: &mut self.past,
            history: &mut self.history,
        };
        let Testimony { seen, submitted, acknowledged } = Life::new(stage).live(turns, will_rot)?;
        self.seen = self.seen.max(seen);
        self.figures.submitted += submitted;
        self.figures.acknowledged += acknowledged;
        self.figures.rolls += log.segments().map_or(0, |it| it.len() as u64);
        self.history.push("crash".to_owned());
        self.figures.crashes += 1;
        self.disk.crash();
        drop(log);
        self.between_lives(will_rot);
        Ok(())
    }

    fn between_lives(&mut self, will_rot: bool) {
        self.disk.power_on();
        if self.rng.u8(0..10) == 0 {
            self.history.push("delete all indexes".to_owned());
            self.disk.delete_indexes();
        }
        if will_rot {
            self.rotten = true;
            let damage = self.disk.damage();
            self.history.push(format!("damage: {damage:?}"));
        }
    }

    fn environment(&self) -> Environment {
        Environment {
            storage: Arc::new(self.disk.clone()),
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::clone(&self.entropy) as Arc<dyn quipu_engine::Entropy>,
        }
    }

    /// Opens the log, with crashes in the middle of it; `None` if it could not be opened because
    /// of rot, which is said.
    fn open(&mut self) -> Result<Option<EventLog>, String> {
        loop {
            if self.rng.u8(0..3) == 0 {
                self.disk.set_fuse(Some(self.rng.u64(0..16)));
            }
            let (env, options) = (self.environment(), self.options.clone());
            let opened = EventLog::open_stepped(env, options, &mut |_, _| {});
            match opened {
                Ok(log) => {
                    self.disk.set_fuse(None);
                    if self.disk.is_powered() {
                        self.note_report(&log);
                        return Ok(Some(log));
                    }
                }
                Err(error) if self.disk.is_powered() => return self.judge_error(&error),
                Err(_) => {}
            }
            self.history.push("crash while opening".to_owned());
            self.figures.crashes += 1;
            self.figures.crashes_in_recovery += 1;
            self.disk.crash();
            self.disk.power_on();
        }
    }

    fn judge_error(&mut self, error: &OpenError) -> Result<Option<EventLog>, String> {
        if self.rotten {
            self.figures.damage_reported += 1;
            return Ok(None);
        }
        Err(format!("the log does not open: {error}"))
    }

    fn note_report(&mut self, log: &EventLog) {
        let report = log.recovery_report();
        self.history.push(report.to_string());
        self.figures.torn_tails += u64::from(report.torn.is_some());
        self.figures.finished_rolls += u64::from(report.finished_roll);
        self.figures.clean_closes += u64::from(report.clean);
        self.figures.damage_reported += u64::from(report.damage.is_some());
    }

    /// Everything that must hold after an opening without damage to the medium.
    fn check_log(&mut self, log: &EventLog) -> Result<(), String> {
        if log.shared().state() != LogState::Writable {
            return Err(format!("a false alarm: {}", log.shared().state()));
        }
        let records = read_from(log, Position::FIRST)?;
        let length = records.len();
        if length < self.seen {
            return Err(format!("{} records were seen, only {length} are there", self.seen));
        }
        check_records(&self.model, 1, &records)?;
        if length > 0 && !self.model.ends.contains(&length) {
            return Err(format!("the log ends at {length}, in the middle of an append"));
        }
        self.model.truncate(length);
        self.seen = length;
        self.check_indexes(log)
    }

    fn check_indexes(&self, log: &EventLog) -> Result<(), String> {
        for event in self.model.events.iter().rev().take(8) {
            let (found, expected) = (log.version(&event.key), self.model.version(&event.key));
            if found.as_ref().ok() != Some(&expected) {
                return Err(format!("{}: version {found:?}, expected {expected}", event.key));
            }
        }
        let (aggregates, ids) = log.known();
        let expected_ids = self.model.events.len() as u64;
        let firsts = self.model.events.iter().filter(|it| it.version == Version(1)).count() as u64;
        if (aggregates, ids) != (firsts, expected_ids) {
            return Err(format!(
                "known: {aggregates} aggregates and {ids} ids, expected {firsts} and {expected_ids}"
            ));
        }
        Ok(())
    }

    /// After a bit has flipped: what is served is right, and what is missing is said.
    fn check_rotten(&mut self, log: &EventLog) -> Result<(), String> {
        let mut records = Vec::new();
        let reported = match read_some(log, &mut records) {
            Ok(()) => log.recovery_report().damage.is_some(),
            Err(_) => true,
        };
        self.figures.damage_reported += u64::from(reported);
        check_records(&self.model, 1, &records)?;
        if records.len() < self.seen && !reported {
            let (seen, found) = (self.seen, records.len());
            return Err(format!(
                "damage was cut in silence: {seen} records were seen, {found} left"
            ));
        }
        Ok(())
    }
}

/// Reads until the end or the first error, keeping what came before it.
fn read_some(log: &EventLog, records: &mut Vec<quipu_types::Record>) -> Result<(), String> {
    use quipu_engine::read::cursor::PageLimits;
    use quipu_types::{Filter, ReadRequest};
    let filter = Filter { include_system: true, ..Filter::default() };
    let mut cursor = log.read(ReadRequest { filter, ..ReadRequest::default() });
    loop {
        let page = cursor.next_page(PageLimits::default()).map_err(|error| error.to_string())?;
        records.extend(page.records);
        if page.is_last {
            return Ok(());
        }
    }
}
