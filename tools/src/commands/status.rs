//! `quipu status`: what a log holds and how it is.

use std::time::Duration;

use quipu_client::{Corruption, Embedded, Position, RecoveryReport, Status};
use quipu_engine::IndexStatus;
use quipu_server::status::{document_of, first_position, state};
use serde_json::Value;

use crate::failure::Failure;
use crate::log_args::status_of;
use crate::output::Output;
use crate::store_args::{Store, StoreArgs};
use crate::table::write_facts;
use crate::units;

/// Above this, that time runs ahead is worth a word.
const CLOCK_LAG_SHOWN_US: i64 = 1_000_000;

const EXAMPLES: &str = "Examples:
  quipu status --log ./log
  quipu status --server localhost:7440 --json";

/// Which log to look at.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

/// Looks at it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    match args.store.open_to_read()? {
        Store::Log(log) => of_log(&log, out),
        Store::Server(server) if out.is_json() => out.object(&server.status()?),
        Store::Server(server) => print_document(&server.status()?, out),
    }
}

fn of_log(log: &Embedded, out: &mut Output) -> Result<(), Failure> {
    let (status, report) = (status_of(log)?, log.recovery_report());
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
    let mut facts = vec![("log", status.log_id.to_string()), ("state", state(status))];
    if let Some(damage) = &status.found_damage {
        facts.push(("DAMAGED", damage.to_string()));
    }
    facts.extend([("closed", closed(report).to_owned()), ("events", units::count(events))]);
    if events > 0 {
        facts.push(("positions", format!("{first} to {}", status.last_position)));
    }
    facts.extend([
        ("segments", format!("{} ({indexed} indexed)", status.segments.len())),
        ("index", index(&status.index)),
        ("on disk", units::bytes(status.bytes_on_disk)),
        ("free", free(status.free_bytes, status.space_is_low)),
        ("storage", status.storage.clone()),
    ]);
    if report.unproven_bytes > 0 {
        let bytes = units::bytes(report.unproven_bytes);
        facts.push(("not shown", format!("{bytes} at the end, not proven durable")));
    }
    facts.extend(clock(status.clock_lag_us));
    write_facts(out, facts)
}

/// That events are recorded as of the time of the last one, until the clock has come so far.
fn clock(lag_us: i64) -> Option<(&'static str, String)> {
    (lag_us > CLOCK_LAG_SHOWN_US).then(|| {
        let lag = units::duration(Duration::from_micros(lag_us.unsigned_abs()));
        ("clock", format!("{lag} behind what was recorded last: `recorded_at` stands still"))
    })
}

/// What a server says of its log; a newer one may say it in other words.
fn print_document(status: &Value, out: &mut Output) -> Result<(), Failure> {
    let text = |name: &str| status[name].as_str().unwrap_or("unknown").to_owned();
    let number = |name: &str| status[name].as_u64().unwrap_or(0);
    let (first, last) = (number("first_position"), number("last_position"));
    let events = (last + 1).saturating_sub(first);
    let mut facts = vec![("log", text("log_id")), ("state", text("state"))];
    facts.extend(damage_of(&status["found_damage"]).map(|damage| ("DAMAGED", damage)));
    facts.push(("events", units::count(events)));
    if events > 0 {
        facts.push(("positions", format!("{first} to {last}")));
    }
    let space_is_low = status["space_is_low"] == Value::Bool(true);
    facts.extend([
        ("segments", number("segments").to_string()),
        ("index", index(&index_of(&status["index"]))),
        ("on disk", units::bytes(number("bytes_on_disk"))),
        ("free", free(number("free_bytes"), space_is_low)),
        ("storage", text("storage")),
    ]);
    facts.extend(clock(status["clock_lag_us"].as_i64().unwrap_or(0)));
    write_facts(out, facts)
}

/// Damage inside the log, as a server tells it; none if there is none.
fn damage_of(document: &Value) -> Option<String> {
    let position = |name: &str| document[name].as_u64().map(Position);
    let (first, last) = (position("first")?, position("last")?);
    let problem = document["problem"].as_str()?.to_owned();
    let segment = document["segment"].as_u64()?;
    Some(Corruption { segment, first, last, problem }.to_string())
}

/// The index of ids and versions.
fn index(index: &IndexStatus) -> String {
    let runs = units::plural(index.runs as u64, "run");
    let on_disk = format!("{runs} of {}", units::bytes(index.run_bytes));
    if index.memory_bytes == 0 {
        return on_disk;
    }
    let (memory, limit) = (units::bytes(index.memory_bytes), index.memory_limit_bytes);
    format!("{on_disk}, {memory} of {} in memory", units::bytes(limit))
}

fn index_of(document: &Value) -> IndexStatus {
    let number = |name: &str| document[name].as_u64().unwrap_or(0);
    let count = |name: &str| usize::try_from(number(name)).unwrap_or(usize::MAX);
    IndexStatus {
        runs: count("runs"),
        run_bytes: number("run_bytes"),
        memory_bytes: number("memory_bytes"),
        memory_limit_bytes: number("memory_limit_bytes"),
        waiting_segments: count("waiting_segments"),
        reads: number("reads"),
    }
}

fn closed(report: &RecoveryReport) -> &'static str {
    if report.clean { "in order" } else { "no: a program has it open, or ended without closing it" }
}

fn free(bytes: u64, space_is_low: bool) -> String {
    let free = units::bytes(bytes);
    if space_is_low { format!("{free}: LOW") } else { free }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn damage_that_a_server_tells_is_in_words() {
        let told =
            json!({ "segment": 3, "first": 7, "last": 9, "problem": "at offset 8192: gone" });
        let words = damage_of(&told).expect("there is damage");
        assert_eq!(words, "segment 3 is damaged (positions 7 to 9): at offset 8192: gone");
        assert_eq!(damage_of(&Value::Null), None);
    }
}
