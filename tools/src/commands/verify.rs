//! `quipu verify`: is everything there, and is it what was written?

use std::sync::Arc;

use quipu_engine::{Access, Backend, DiskStorage, Mapping, Storage, VerifyProgress, VerifyReport};
use serde_json::json;

use crate::failure::Failure;
use crate::log_args::LogArgs;
use crate::output::Output;
use crate::progress::{Progress, Unit};
use crate::units;

/// What to check.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  quipu verify --log ./log --deep")]
pub(crate) struct Args {
    #[command(flatten)]
    log: LogArgs,
    /// Also compare every index with the events, and check that versions and ids are in order: all
    /// ids and aggregates in memory, 30 to 60 bytes each.
    #[arg(long)]
    deep: bool,
}

/// Checks it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let report = check(&args.log, args.deep)?;
    print(&report, out)?;
    match report.damage.len() as u64 {
        0 => Ok(()),
        places => Err(Failure::No(format!("damage in {}", units::plural(places, "place")))),
    }
}

/// Checks a log in this folder, without opening it.
pub(crate) fn check(log: &LogArgs, deep: bool) -> Result<VerifyReport, Failure> {
    // Nothing is mapped: an unreadable sector of an index is to be named, not to end the process.
    let storage = DiskStorage::open(&log.log, Access::ReadOnly, Backend::Auto, Mapping::Read)
        .map_err(|error| log.cannot_open(error))?;
    let mut progress = None;
    let mut note_progress = |at: VerifyProgress| {
        progress
            .get_or_insert_with(|| Progress::new(Some(at.bytes_total), Unit::Bytes))
            .done(at.bytes_done);
    };
    let storage: Arc<dyn Storage> = Arc::new(storage);
    quipu_engine::verify(&storage, deep, &mut note_progress).map_err(|error| log.cannot_open(error))
}

fn print(report: &VerifyReport, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return print_json(report, out);
    }
    report.damage.iter().try_for_each(|damage| out.line(damage))?;
    for (segment, problem) in &report.indexes {
        out.line(format_args!(
            "the index of segment {segment} is built again when it is needed: {problem}"
        ))?;
    }
    for problem in &report.runs {
        out.line(format_args!("a run of the index is made again when it is needed: {problem}"))?;
    }
    if report.unproven_bytes > 0 {
        let bytes = units::bytes(report.unproven_bytes);
        out.line(format_args!(
            "{bytes} at the end were being written: by a program that has the log open, or by one \
             that ended without closing it"
        ))?;
    }
    let verdict = if report.damage.is_empty() { "all is well" } else { "DAMAGED" };
    out.line(format_args!(
        "{verdict}: {} in {}, {} read",
        units::plural(report.events, "event"),
        units::plural(report.segments, "segment"),
        units::bytes(report.bytes),
    ))
}

fn print_json(report: &VerifyReport, out: &mut Output) -> Result<(), Failure> {
    let damage = report.damage.iter().map(|damage| {
        json!({
            "segment": damage.segment,
            "first": damage.first,
            "last": damage.last,
            "problem": damage.problem,
        })
    });
    let indexes = report
        .indexes
        .iter()
        .map(|(segment, problem)| json!({ "segment": segment, "problem": problem }));
    out.object(&json!({
        "segments": report.segments,
        "events": report.events,
        "bytes": report.bytes,
        "damage": damage.collect::<Vec<_>>(),
        "indexes": indexes.collect::<Vec<_>>(),
        "runs": report.runs,
        "unproven_bytes": report.unproven_bytes,
    }))
}
