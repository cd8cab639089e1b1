//! `--log DIR`: which log a command works on, and how it is opened.

use std::path::PathBuf;

use clap::Args;
use quipu_client::{Embedded, OpenError, Options, RecoveryReport, Status};

use crate::failure::Failure;
use crate::output::{note, whisper};
use crate::progress::{Progress, Unit};

/// The log a command works on.
#[derive(Args, Clone)]
pub(crate) struct LogArgs {
    /// Folder of the log.
    #[arg(long, value_name = "DIR")]
    pub(crate) log: PathBuf,
    /// How it is opened.
    #[arg(skip)]
    pub(crate) options: Options,
}

impl LogArgs {
    /// The log in this folder, opened as most are.
    pub(crate) fn at(log: PathBuf) -> Self {
        Self { log, options: Options::default() }
    }

    /// Opens the log to append to it; makes it where the folder is new or empty.
    pub(crate) fn open(&self) -> Result<Embedded, Failure> {
        let mut progress = Progress::new(None, Unit::Segments);
        let mut note_progress = |done: usize, total: usize| {
            progress.total(total as u64);
            progress.done(done as u64);
        };
        let options = self.options.clone();
        let log = Embedded::open_with_progress(&self.log, options, &mut note_progress);
        drop(progress);
        self.opened(log)
    }

    /// Opens the log to read from it, also beside a program that writes to it.
    pub(crate) fn open_to_read(&self) -> Result<Embedded, Failure> {
        self.opened(Embedded::open_read_only(&self.log, self.options.clone()))
    }

    /// Why this log cannot be opened.
    pub(crate) fn cannot_open(&self, error: impl std::fmt::Display) -> Failure {
        Failure::Unreachable(format!("{}: {error}", self.log.display()))
    }

    fn opened(&self, result: Result<Embedded, OpenError>) -> Result<Embedded, Failure> {
        let log = result.map_err(|error| self.cannot_open(error))?;
        let report = log.recovery_report();
        if is_remarkable(report) {
            note(report);
        } else if report.created {
            whisper(format_args!("made a new log in {}", self.log.display()));
        }
        Ok(log)
    }
}

/// Whether opening found more than an operator expects.
fn is_remarkable(report: &RecoveryReport) -> bool {
    report.torn.is_some()
        || report.damage.is_some()
        || report.finished_roll
        || !report.rebuilt_indexes.is_empty()
}

/// Says no if opening found damage: what was read is not all there was.
pub(crate) fn check_whole(log: &Embedded) -> Result<(), Failure> {
    let report = log.recovery_report();
    match &report.damage {
        Some(_) => {
            let last = report.last_position;
            Err(Failure::No(format!("the log is damaged: nothing after position {last} was read")))
        }
        None => Ok(()),
    }
}

/// The state of an open log.
pub(crate) fn status_of(log: &Embedded) -> Result<Status, Failure> {
    log.status().map_err(|error| Failure::Unreachable(format!("cannot look at the log: {error}")))
}
