//! A progress bar on standard error for whatever takes longer than two seconds.

use std::fmt::Display;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::note;
use crate::wait::{now, since};

const PATIENCE: Duration = Duration::from_secs(2);

/// How far a command has come; shown only on a terminal, and only if it takes long.
pub(crate) struct Progress {
    total: Option<u64>,
    unit: Unit,
    started: Duration,
    bar: Option<ProgressBar>,
}

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Bytes.
    Bytes,
    /// Events.
    Events,
    /// Segments.
    Segments,
}

impl Progress {
    /// Progress towards `total`, where that is known.
    pub(crate) fn new(total: Option<u64>, unit: Unit) -> Self {
        Self { total, unit, started: now(), bar: None }
    }

    /// Says how much there is to do.
    pub(crate) fn total(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// Says how much is done.
    pub(crate) fn done(&mut self, done: u64) {
        if self.bar.is_none() && since(self.started) > PATIENCE {
            self.bar = Some(bar(self.total, self.unit));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// Says something on standard error, above the bar.
    pub(crate) fn note(&self, text: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>, unit: Unit) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = match (total, unit) {
        (Some(_), Unit::Bytes) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        (Some(_), Unit::Events | Unit::Segments) => {
            "{wide_bar} {human_pos}/{human_len} {per_sec} {eta}"
        }
        (None, Unit::Bytes) => "{spinner} {bytes} {bytes_per_sec} {elapsed}",
        (None, Unit::Events | Unit::Segments) => "{spinner} {human_pos} {per_sec} {elapsed}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
