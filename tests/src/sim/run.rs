//! Several lives of one log under one seed, and what must hold between them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quipu_engine::{EventLog, LogState, OpenError, bug};
use quipu_types::Position;

use super::defect::Defect;
use super::disk::{IoFault, UNREADABLE};
use super::figures::Figures;
use super::life::Life;
use super::reader::{check_each, check_indexes, check_records, read_from, read_some};
use super::world::World;

/// Openings of one log in one run; fewer where every operation has its turn.
const LIVES: usize = 6;
const LIVES_SWEPT: usize = 3;

/// What a run is to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    pub seed: u64,
    pub mishaps: Mishaps,
    /// A rule that is broken: the check must notice.
    pub defect: Option<Defect>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mishaps {
    /// The power, and the process.
    #[default]
    Crashes,
    /// Also the medium and the disk: operations fail, the disk is full, blocks rot.
    CrashesAndFaults,
    /// The n-th operation fails, and nothing else goes wrong.
    OneFault(u64, IoFault),
    /// The power goes off in the middle of the n-th operation, and nothing else goes wrong.
    OnePowerCut(u64),
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    pub seed: u64,
    pub problem: String,
    /// What happened, oldest first.
    pub history: Vec<String>,
}

/// Runs one plan.
pub fn run(plan: Plan) -> Result<Figures, Box<Violation>> {
    let mut first = Run::new(plan, false);
    match first.run() {
        Ok(()) => Ok(first.world.figures),
        Err(problem) => {
            let mut again = Run::new(plan, true);
            let repeated = again.run();
            debug_assert_eq!(repeated, Err(problem.clone()), "one seed is one run");
            let history = again.world.into_history();
            Err(Box::new(Violation { seed: plan.seed, problem, history }))
        }
    }
}

struct Run {
    plan: Plan,
    world: World,
    /// The medium was damaged: reads may fail, and say so.
    rotten: bool,
    /// The last life closed in order.
    closed: bool,
}

/// A block that could not be read, or space that was not there, while the log was opened.
fn is_due_to_fault(state: &LogState) -> bool {
    match state {
        LogState::NoSpace(_) => true,
        LogState::Damaged(damage) => damage.problem.contains(UNREADABLE),
        _ => false,
    }
}

impl Run {
    fn new(plan: Plan, keep_history: bool) -> Self {
        let world = World::new(plan.seed, plan.defect, keep_history);
        match plan.mishaps {
            Mishaps::OneFault(n, fault) => world.disk.set_fault(Some((n, fault))),
            Mishaps::OnePowerCut(n) => world.disk.set_fuse(Some(n)),
            Mishaps::Crashes | Mishaps::CrashesAndFaults => {}
        }
        Self { plan, world, rotten: false, closed: false }
    }

    fn run(&mut self) -> Result<(), String> {
        bug::seed(self.plan.defect.and_then(Defect::of_engine));
        let outcome = catch_unwind(AssertUnwindSafe(|| self.live_and_die()))
            .unwrap_or_else(|_| Err("a panic".to_owned()));
        bug::seed(None);
        let World { rng, disk, figures, .. } = &mut self.world;
        figures.faults_met = disk.faults_met();
        (figures.operations, figures.changes) = disk.operations();
        figures.fingerprint = rng.u64(..);
        outcome
    }

    fn live_and_die(&mut self) -> Result<(), String> {
        let lives = if self.is_random() { LIVES } else { LIVES_SWEPT };
        for life in 1..=lives {
            self.world.note(|| format!("--- life {life}"));
            let last = life == lives;
            if last {
                self.world.disk.calm();
            }
            self.life(last)?;
            if self.rotten {
                return self.open_rotten();
            }
        }
        Ok(())
    }

    fn is_random(&self) -> bool {
        matches!(self.plan.mishaps, Mishaps::Crashes | Mishaps::CrashesAndFaults)
    }

    fn has_faults(&self) -> bool {
        self.plan.mishaps == Mishaps::CrashesAndFaults
    }

    fn life(&mut self, last: bool) -> Result<(), String> {
        let log = self.open(last)?;
        self.check_log(&log)?;
        // Rot in what no later group has covered yet looks like a torn tail; so it comes after a
        // quiet moment.
        let will_rot = self.has_faults() && !last && self.world.rng.u8(0..4) == 0;
        let will_close = !last && !will_rot && self.world.rng.u8(0..8) == 0;
        if !last && !will_rot {
            self.plan_mishaps();
        }
        // Also right after opening: what was found there must be covered by then.
        let at_once = will_rot && self.world.rng.bool();
        let turns = if at_once { 0 } else { self.world.rng.usize(10..200) };
        let may_fill = self.has_faults() && !last && self.world.rng.u8(0..6) == 0;
        let may_rot = self.is_random();
        let mut life = Life::new(&log, &mut self.world, may_rot);
        life.live(turns, may_fill)?;
        self.closed = false;
        if last {
            life.serve()?;
        } else if will_rot {
            life.rest()?;
        } else if will_close {
            self.closed = life.close()?;
        }
        self.world.figures.segments += log.segments().map_or(0, |it| it.len() as u64);
        self.end(will_rot);
        Ok(())
    }

    fn plan_mishaps(&mut self) {
        if self.is_random() && self.world.rng.u8(0..3) > 0 {
            self.world.plan_power_cut(60);
        }
        if self.has_faults() && self.world.rng.u8(0..3) == 0 {
            self.world.plan_fault(60);
        }
    }

    /// The process dies, or the power goes off.
    fn end(&mut self, will_rot: bool) {
        let is_random = self.is_random();
        let World { disk, figures, rng, .. } = &mut self.world;
        let doing = if self.closed { "closed" } else { "running" };
        let moment = disk.moment();
        figures.crash(doing, moment);
        let is_kill = !will_rot && disk.is_powered() && rng.u8(0..4) == 0;
        if is_kill {
            disk.kill();
        } else {
            disk.crash();
        }
        disk.power_on();
        if is_random {
            disk.calm();
        }
        let end = if is_kill { "killed" } else { "power lost" };
        self.world.note(|| format!("{end} while {doing}: {moment}"));
        if self.world.rng.u8(0..10) == 0 {
            self.world.note(|| "delete all indexes".to_owned());
            self.world.disk.delete_indexes();
        }
        if is_random && self.world.rng.u8(0..5) == 0 {
            let damage = self.world.disk.damage_index();
            self.world.note(|| format!("damage: {damage:?}"));
        }
        if will_rot {
            self.rotten = true;
            let damage = self.world.disk.damage();
            self.world.note(|| format!("damage: {damage:?}"));
        }
    }

    /// Opens the log, with crashes and faults in the middle of it, until it is open.
    fn open(&mut self, calmly: bool) -> Result<EventLog, String> {
        loop {
            match self.try_open(calmly)? {
                Ok(log) => return Ok(log),
                Err(Some(error)) => return Err(format!("the log does not open: {error}")),
                Err(None) => {}
            }
        }
    }

    /// The log; or an error for which there is no excuse, or none.
    fn try_open(&mut self, calmly: bool) -> Result<Result<EventLog, Option<OpenError>>, String> {
        if !calmly && self.is_random() && self.world.rng.u8(0..3) == 0 {
            self.world.plan_power_cut(16);
        }
        if !calmly && self.has_faults() && self.world.rng.u8(0..4) == 0 {
            self.world.plan_fault(60);
        }
        let is_random = self.is_random();
        let faults_before = self.world.disk.faults_met();
        let (env, options) = (self.world.environment(), self.world.options.clone());
        let opened = EventLog::open_stepped(env, options, &mut |_, _| {});
        let World { disk, figures, .. } = &mut self.world;
        let fault_met = disk.faults_met() > faults_before;
        if !disk.is_powered() {
            figures.crashes_in_recovery += 1;
            let moment = disk.moment();
            figures.crash("opening", moment);
            disk.crash();
            disk.power_on();
            self.closed = false;
            if is_random {
                disk.calm();
            }
            self.world.note(|| format!("power lost while opening: {moment}"));
            return Ok(Err(None));
        }
        if is_random {
            disk.calm();
        }
        self.closed &= !fault_met;
        match opened {
            Ok(log) if fault_met && is_due_to_fault(&log.shared().state()) => Ok(Err(None)),
            Ok(log) => {
                self.note_report(&log)?;
                Ok(Ok(log))
            }
            Err(error) if fault_met => {
                self.world.note(|| format!("opening failed: {error}"));
                Ok(Err(None))
            }
            Err(error) => Ok(Err(Some(error))),
        }
    }

    fn note_report(&mut self, log: &EventLog) -> Result<(), String> {
        let report = log.recovery_report();
        self.world.note(|| report.to_string());
        let figures = &mut self.world.figures;
        figures.torn_tails += u64::from(report.torn.is_some());
        figures.finished_rolls += u64::from(report.finished_roll);
        figures.clean_closes += u64::from(report.clean);
        figures.damage_reported += u64::from(report.damage.is_some());
        if self.closed && !report.clean {
            return Err("it was closed in order, and opens as if it was not".to_owned());
        }
        Ok(())
    }

    /// Everything that must hold after an opening without damage to the medium. A read that the
    /// disk fails says so, and is made again.
    fn check_log(&mut self, log: &EventLog) -> Result<(), String> {
        let faults_before = self.world.disk.faults_met();
        let judgement = self.judge_log(log);
        if judgement.is_err() && self.world.disk.faults_met() > faults_before {
            return self.judge_log(log);
        }
        judgement
    }

    fn judge_log(&mut self, log: &EventLog) -> Result<(), String> {
        if log.shared().state() != LogState::Writable {
            return Err(format!("a false alarm: {}", log.shared().state()));
        }
        let records = read_from(log, Position::FIRST).map_err(|error| error.to_string())?;
        let (length, seen) = (records.len(), self.world.seen);
        if length < seen {
            return Err(format!("{seen} records were seen, only {length} are there"));
        }
        check_records(&self.world.model, Position::FIRST, &records)?;
        if !self.world.model.may_end_at(length) {
            return Err(format!("the log ends at {length}, in the middle of an append"));
        }
        self.world.model.truncate(length);
        self.world.seen = length;
        check_indexes(log, &self.world)
    }

    /// After damage: what is served is right, and what is missing is said.
    fn open_rotten(&mut self) -> Result<(), String> {
        let (env, options) = (self.world.environment(), self.world.options.clone());
        let opened = EventLog::open_stepped(env, options, &mut |_, _| {});
        let Ok(log) = opened else {
            self.world.figures.damage_reported += 1;
            return Ok(());
        };
        let (records, error) = read_some(&log);
        let reported = error.is_some() || log.recovery_report().damage.is_some();
        self.world.figures.damage_reported += u64::from(reported);
        check_records(&self.world.model, Position::FIRST, &records)?;
        check_each(&log, &self.world.model)?;
        let (seen, found) = (self.world.seen, records.len());
        if found < seen && !reported {
            return Err(format!(
                "damage was cut in silence: {seen} records were seen, {found} left"
            ));
        }
        Ok(())
    }
}
