//! One start of a log in a process of its own: what is measured, and how the process ends.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use clap::ValueEnum;
use futures::executor::block_on;
use quipu_client::{Embedded, EventStore, Filter, ReadRequest, Record};
use serde::{Deserialize, Serialize};

use super::Args;
use crate::commands::bench::append::{self, Plan};
use crate::failure::Failure;
use crate::files::{cpu_seconds, peak_rss_bytes, rss_bytes};
use crate::log_args::status_of;
use crate::output::Output;
use crate::random::Random;
use crate::session::Target;
use crate::wait::{now, since};

/// How long a process that is to be killed appends, if nobody kills it.
const SECONDS_MAX: u64 = 10;

/// How a start ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum End {
    /// The log is closed in order.
    Close,
    /// The process appends until it is killed.
    Kill,
}

/// What one start has shown.
#[derive(Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) open_us: u64,
    /// The log was closed in order before.
    pub(super) clean: bool,
    pub(super) events: u64,
    /// Of them in the active segment, which was scanned.
    pub(super) active_events: u64,
    pub(super) aggregates: u64,
    pub(super) segments: u64,
    pub(super) bytes_on_disk: u64,
    pub(super) index_bytes: u64,
    pub(super) rss_bytes: u64,
    pub(super) peak_rss_bytes: u64,
    pub(super) cpu_seconds: f64,
    pub(super) aggregate: Option<AggregateRead>,
}

/// One aggregate, read twice.
#[derive(Serialize, Deserialize)]
pub(super) struct AggregateRead {
    pub(super) events: u64,
    pub(super) first_us: u64,
    pub(super) again_us: u64,
}

/// Starts the log in this process and says how that went.
pub(super) fn run(args: &Args, end: End, out: &mut Output) -> Result<(), Failure> {
    let cpu_before = cpu_seconds();
    let started = now();
    let log = args.log().open()?;
    let open_us = micros_since(started);
    let (cpu_seconds, rss, peak_rss) = (cpu_seconds() - cpu_before, rss_bytes(), peak_rss_bytes());
    let status = status_of(&log)?;
    let reads = args.read_aggregate && end == End::Close && status.last_position.0 > 0;
    let active = status.segments.last().map_or(1, |segment| segment.first_position.0);
    let start = Start {
        open_us,
        clean: log.recovery_report().clean,
        events: status.last_position.0,
        active_events: (status.last_position.0 + 1).saturating_sub(active),
        aggregates: status.aggregates,
        segments: status.segments.len() as u64,
        bytes_on_disk: status.bytes_on_disk,
        index_bytes: status.index.memory_bytes,
        rss_bytes: rss,
        peak_rss_bytes: peak_rss,
        cpu_seconds,
        aggregate: reads.then(|| read_aggregate(&log, status.last_position.0)).transpose()?,
    };
    let say = |out: &mut Output| out.object(&start).and_then(|()| out.flush());
    match end {
        End::Close => say(out)?,
        End::Kill => {
            let one = Plan { events: Some(100), ..args.plan() };
            append::measure(&one, Target::Log(&log))?;
            say(out)?;
            let more = Plan { batch: 1, seconds: SECONDS_MAX, ..args.plan() };
            append::measure(&more, Target::Log(&log))?;
        }
    }
    log.close();
    Ok(())
}

/// Reads the aggregate of an event somewhere in the log.
fn read_aggregate(log: &Embedded, last: u64) -> Result<AggregateRead, Failure> {
    let filter = Filter { include_system: true, ..Filter::default() };
    let from = Some(Random::from_entropy().below(last) + 1);
    let one = ReadRequest { filter, from, limit: Some(1), ..ReadRequest::default() };
    let found = read(log, one)?;
    let Some(record) = found.first() else {
        return Err(Failure::No(format!("there is no event at position {from:?}")));
    };
    let of_it = ReadRequest { filter: Filter::aggregate(record.aggregate()), ..Default::default() };
    let started = now();
    let records = read(log, of_it.clone())?;
    let first_us = micros_since(started);
    let started = now();
    read(log, of_it)?;
    let again_us = micros_since(started);
    Ok(AggregateRead { events: records.len() as u64, first_us, again_us })
}

fn read(log: &Embedded, request: ReadRequest) -> Result<Vec<Record>, Failure> {
    let mut stream = log.read(request);
    let mut records = Vec::new();
    loop {
        let batch = block_on(stream.next_batch())?;
        if batch.is_empty() {
            return Ok(records);
        }
        records.extend(batch);
    }
}

fn micros_since(started: std::time::Duration) -> u64 {
    u64::try_from(since(started).as_micros()).unwrap_or(u64::MAX)
}

/// Starts the log in a process of its own, as this one was called, and waits for its end.
pub(super) fn in_a_process(end: End) -> Result<Start, Failure> {
    let failed = |error: std::io::Error| {
        Failure::Unreachable(format!("cannot run this program again: {error}"))
    };
    let program = std::env::current_exe().map_err(failed)?;
    let how = if end == End::Kill { "kill" } else { "close" };
    let mut process = Command::new(program)
        .args(std::env::args_os().skip(1))
        .args(["--start", how])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let line = first_line(&mut process);
    if end == End::Kill && !line.is_empty() {
        process.kill().map_err(failed)?;
    }
    let output = process.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_as_told = output.status.success() || end == End::Kill;
    serde_json::from_str(&line).ok().filter(|_| is_as_told).ok_or_else(|| {
        Failure::Unreachable(format!("a start failed ({}): {}", output.status, said.trim()))
    })
}

fn first_line(process: &mut Child) -> String {
    let mut line = String::new();
    if let Some(stdout) = &mut process.stdout {
        // What cannot be read is no start: the exit code and standard error say why.
        let _ = BufReader::new(stdout.by_ref()).read_line(&mut line);
    }
    line
}
