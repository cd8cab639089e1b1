//! `quipu status`: what a log holds and how it is.

use std::time::Duration;

use quipu_client::{RecoveryReport, Status};
use quipu_server::status::{document_of, first_position, state};

use crate::failure::Failure;
use crate::log_args::{LogArgs, status_of};
use crate::output::Output;
use crate::table::write_facts;
use crate::units;

/// Above this, that time runs ahead is worth a word.
const CLOCK_LAG_SHOWN_US: i64 = 1_000_000;

/// Which log to look at.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  quipu status --log ./log")]
pub(crate) struct Args {
    #[command(flatten)]
    log: LogArgs,
}

/// Looks at it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let log = args.log.open_to_read()?;
    let (status, report) = (status_of(&log)?, log.recovery_report());
    if out.is_json() {
        out.object(&document_of(&status, report))
    } else {
        print(&status, report, out)
    }
}

fn print(status: &Status, report: &RecoveryReport, out: &mut Output) -> Result<(), Failure> {
    let first = first_position(status);
    let events = (status.last_position.0 + 1).saturating_sub(first);
    let indexed = status.segments.iter().filter(|segment| segment.indexed).count();
    let mut facts = vec![
        ("log", status.log_id.to_string()),
        ("state", state(status)),
        ("closed", closed(report).to_owned()),
        ("events", units::count(events)),
    ];
    if events > 0 {
        facts.push(("positions", format!("{first} to {}", status.last_position)));
    }
    facts.extend([
        ("segments", format!("{} ({indexed} indexed)", status.segments.len())),
        ("on disk", units::bytes(status.bytes_on_disk)),
        ("free", free(status)),
        ("storage", status.storage.clone()),
    ]);
    if report.unproven_bytes > 0 {
        let bytes = units::bytes(report.unproven_bytes);
        facts.push(("not shown", format!("{bytes} at the end, not proven durable")));
    }
    if status.clock_lag_us > CLOCK_LAG_SHOWN_US {
        let ahead = units::duration(Duration::from_micros(status.clock_lag_us.unsigned_abs()));
        facts.push(("clock", format!("{ahead} behind what was recorded last")));
    }
    write_facts(out, facts)
}

fn closed(report: &RecoveryReport) -> &'static str {
    if report.clean { "in order" } else { "no: a program has it open, or ended without closing it" }
}

fn free(status: &Status) -> String {
    let free = units::bytes(status.free_bytes);
    if status.space_is_low { format!("{free}: LOW") } else { free }
}
