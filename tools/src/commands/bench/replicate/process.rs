//! What a replicator takes of memory and processor time, alone in a process of its own.
//!
//! It is fed over TCP: a log in its own process would count mapped segments as its memory.

use std::process::{Command, Stdio};
use std::sync::Arc;

use quipu_replicator::Postgres;
use quipu_server::{Ports, Server, ServerOptions};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::{Args, SCHEMA, TemporaryLog, calls, drop_schema, round_rate};
use crate::commands::replicate::runtime;
use crate::failure::Failure;
use crate::output::{Output, whisper};
use crate::units;
use crate::wait::{now, since};

/// What the other process says at its end.
#[derive(Deserialize)]
struct Said {
    peak_rss_bytes: u64,
    cpu_seconds: f64,
}

/// One run.
#[derive(Clone, Serialize)]
struct Figures {
    what: &'static str,
    runs: u64,
    events: u64,
    seconds: f64,
    events_per_s: f64,
    /// The most of all runs.
    peak_rss_bytes: u64,
    cpu_seconds: f64,
}

/// Replicates, run by run, and prints the run in the middle.
pub(super) fn run(args: &Args, postgres: &Postgres, out: &mut Output) -> Result<(), Failure> {
    let place = TemporaryLog::filled(args.events, calls::fill)?;
    let runtime = runtime()?;
    let server = runtime.block_on(async {
        let ports = Ports::open("127.0.0.1:0", None, false).await;
        let log = Arc::clone(place.log.log());
        ports.map(|ports| Server::start(log, ports, ServerOptions::default()))
    });
    let server = server.map_err(|error| Failure::Unreachable(error.to_string()))?;
    let address = server.address().to_string();
    let mut runs = Vec::new();
    for run in 0..args.runs {
        whisper(format_args!("run {} of {}", run + 1, args.runs));
        runs.push(replicated(args, &address, &runtime, postgres)?);
    }
    runtime.block_on(async {
        server.stop().await;
        drop_schema(postgres).await
    })?;
    runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let peak_rss_bytes = runs.iter().map(|run| run.peak_rss_bytes).max().unwrap_or_default();
    let figures = Figures { runs: args.runs, peak_rss_bytes, ..runs[runs.len() / 2].clone() };
    if out.is_json() {
        return out.object(&figures);
    }
    let Figures { seconds, events_per_s, cpu_seconds, .. } = figures;
    out.line(format_args!(
        "process      {events_per_s:>10.0} events/s ({seconds:.2} s); peak memory {}, processor \
         {cpu_seconds:.2} s",
        units::bytes(peak_rss_bytes)
    ))
}

#[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
fn replicated(
    args: &Args,
    server: &str,
    runtime: &Runtime,
    postgres: &Postgres,
) -> Result<Figures, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Unreachable(format!("a replicator in a process of its own: {error}"))
    };
    runtime.block_on(drop_schema(postgres))?;
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command.args(["--json", "replicate", "--catch-up", "--server", server]);
    command.args(["--postgres", &args.postgres, "--schema", SCHEMA]);
    for projection in calls::projections() {
        command.args(["--projection", projection.name()]);
    }
    let started = now();
    let ended = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let seconds = since(started).as_secs_f64();
    let ended = ended.map_err(|error| failed(&error))?;
    if !ended.status.success() {
        return Err(failed(&ended.status));
    }
    let said: Said = serde_json::from_slice(&ended.stdout).map_err(|error| failed(&error))?;
    Ok(Figures {
        what: "process",
        runs: 1,
        events: args.events,
        seconds,
        events_per_s: round_rate(args.events as f64 / seconds),
        peak_rss_bytes: said.peak_rss_bytes,
        cpu_seconds: said.cpu_seconds,
    })
}
