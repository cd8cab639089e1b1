//! What a run, or many, did.

use std::collections::BTreeMap;

/// Counts of what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Losses of power and deaths of the process.
    pub crashes: u64,
    /// Those in the middle of opening the log.
    pub crashes_in_recovery: u64,
    pub submitted: u64,
    pub acknowledged: u64,
    pub torn_tails: u64,
    pub finished_rolls: u64,
    pub segments: u64,
    pub clean_closes: u64,
    pub damage_reported: u64,
    /// Operations of the disk, and those that change anything.
    pub operations: u64,
    pub changes: u64,
    /// Operations that were made to fail.
    pub faults_met: u64,
    /// What each crash interrupted.
    pub moments: BTreeMap<String, u64>,
    /// A figure that two runs of one seed must share.
    pub fingerprint: u64,
}

impl Figures {
    /// Counts a crash that interrupted `what` while the log was `doing` something.
    pub fn crash(&mut self, doing: &str, what: &str) {
        self.crashes += 1;
        *self.moments.entry(format!("{doing}: {what}")).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, run: &Self) {
        self.crashes += run.crashes;
        self.crashes_in_recovery += run.crashes_in_recovery;
        self.submitted += run.submitted;
        self.acknowledged += run.acknowledged;
        self.torn_tails += run.torn_tails;
        self.finished_rolls += run.finished_rolls;
        self.segments += run.segments;
        self.clean_closes += run.clean_closes;
        self.damage_reported += run.damage_reported;
        self.operations += run.operations;
        self.changes += run.changes;
        self.faults_met += run.faults_met;
        self.fingerprint ^= run.fingerprint;
        for (moment, count) in &run.moments {
            *self.moments.entry(moment.clone()).or_default() += count;
        }
    }
}
