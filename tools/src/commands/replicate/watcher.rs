//! Tells the person or the program that watches a replicator what it does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quipu_replicator::{Committed, Observer, ReplicateError};

use crate::output::note;
use crate::progress::{Progress, Unit};
use crate::units;

/// Shows how far it is on a terminal, and says what goes wrong.
pub(crate) struct Watcher {
    state: Mutex<State>,
}

struct State {
    progress: Progress,
    /// Applied since it began, counted once for each batch they were in.
    events: u64,
    /// Said last, so that it is not said again and again.
    waiting_for: Option<String>,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        let progress = Progress::new(Some(0), Unit::Events);
        Self { state: Mutex::new(State { progress, events: 0, waiting_for: None }) }
    }

    /// Events that were applied.
    pub(crate) fn events(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).events
    }

    fn with(&self, work: impl FnOnce(&mut State)) {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Observer for Watcher {
    fn committed(&self, committed: &Committed<'_>) {
        self.with(|state| {
            if state.waiting_for.take().is_some() {
                state.progress.note("quipu: it goes on");
            }
            state.events += committed.events as u64;
            state.progress.total(committed.log_end.0);
            state.progress.done(committed.through.0);
        });
    }

    fn failed(&self, projection: &str, problem: &str) {
        self.with(|state| {
            state.progress.note(format_args!("quipu: {projection} has STOPPED at {problem}"));
        });
    }

    fn parked(&self, projection: &str, problem: &str) {
        self.with(|state| {
            state.progress.note(format_args!("quipu: {projection} has parked {problem}"));
        });
    }

    fn waiting(&self, problem: &ReplicateError, pause: Duration) {
        let text = problem.to_string();
        self.with(|state| {
            if state.waiting_for.as_ref() != Some(&text) {
                let pause = units::duration(pause);
                state.progress.note(format_args!("quipu: {text}; trying again in {pause} and on"));
                state.waiting_for = Some(text);
            }
        });
    }
}

/// Says which projections have stopped, where some have.
pub(crate) fn check_failed(failed: &[(String, String)]) -> Result<(), crate::failure::Failure> {
    if failed.is_empty() {
        return Ok(());
    }
    for (projection, problem) in failed {
        note(format_args!("quipu: {projection} stopped at {problem}"));
    }
    let names: Vec<&str> = failed.iter().map(|(projection, _)| projection.as_str()).collect();
    Err(crate::failure::Failure::No(format!("stopped: {}", names.join(", "))))
}
