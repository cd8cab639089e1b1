//! What outlives one opening of the log: the disk, the clock, what clients know.

use std::sync::Arc;

use fastrand::Rng;
use quipu_engine::{Entropy, Environment, LogOptions};
use quipu_types::Position;

use super::defect::Defect;
use super::disk::SimDisk;
use super::figures::Figures;
use super::model::Model;
use super::time::{SimClock, SimEntropy};
use super::workload::Workload;

/// The world around a log.
pub struct World {
    pub rng: Rng,
    pub disk: SimDisk,
    pub clock: SimClock,
    pub options: LogOptions,
    pub workload: Workload,
    /// What the log must hold.
    pub model: Model,
    /// Length of the log that was acknowledged or shown to somebody.
    pub seen: usize,
    /// A subscriber's saved place.
    pub delivered: Position,
    pub figures: Figures,
    entropy: Arc<dyn Entropy>,
    /// What happened, oldest first; kept only when it will be shown.
    history: Option<Vec<String>>,
}

impl World {
    /// The world of a seed. History costs time: it is kept when a run is repeated to be shown.
    pub fn new(seed: u64, defect: Option<Defect>, keep_history: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let disk = SimDisk::new(rng.u64(..), defect.and_then(Defect::of_disk));
        let entropy = SimEntropy::new(rng.u64(..), defect == Some(Defect::NoSalt));
        let clock = SimClock::default();
        clock.advance(1, 1_700_000_000_000_000);
        Self {
            disk,
            clock,
            options: options(&mut rng, defect),
            workload: Workload::default(),
            model: Model::default(),
            seen: 0,
            delivered: Position::START,
            figures: Figures::default(),
            entropy: Arc::new(entropy),
            history: keep_history.then(Vec::new),
            rng,
        }
    }

    /// The seams that a log is opened on.
    pub fn environment(&self) -> Environment {
        Environment {
            storage: Arc::new(self.disk.clone()),
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::clone(&self.entropy),
        }
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(what());
        }
    }

    pub fn into_history(self) -> Vec<String> {
        self.history.unwrap_or_default()
    }

    /// Somebody was told that the log is so long.
    pub fn saw(&mut self, position: Position) {
        self.seen = self.seen.max(usize::try_from(position.0).expect("a simulated log is short"));
    }

    /// The disk fails an operation soon, in any way.
    pub fn plan_fault(&mut self, within: u64) {
        let faults = super::disk::IoFault::ALL;
        let fault = faults[self.rng.usize(0..faults.len())];
        self.disk.set_fault(Some((self.rng.u64(0..within), fault)));
    }

    pub fn plan_power_cut(&mut self, within: u64) {
        self.disk.set_fuse(Some(self.rng.u64(0..within)));
    }
}

/// Small segments, so that rolls are common.
fn options(rng: &mut Rng, defect: Option<Defect>) -> LogOptions {
    let mut options = LogOptions {
        segment_bytes: 4_096 * rng.u64(8..20),
        group_bytes: 4_096 * rng.usize(1..5),
        groups_in_flight: rng.usize(1..5),
        tail_bytes: rng.usize(0..40_000),
        index_fan_in: rng.usize(2..5),
        // Some filters have no memory.
        index_memory: rng.u64(0..4) * 40_000,
        witness_after_us: if defect == Some(Defect::NoWitness) { u64::MAX } else { 2_000 },
        ..LogOptions::default()
    };
    options.limits.append_bytes_max = 8_192;
    options.limits.event_bytes_max = 4_096;
    options
}
