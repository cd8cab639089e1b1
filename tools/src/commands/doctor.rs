//! `quipu doctor`: what this machine gives a log, and how a log should be opened here.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quipu_client::Embedded;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::bench::append::{Plan, measure};
use super::bench::events::Ids;
use super::bench::from_1_to;
use super::bench::measures::Measures;
use crate::failure::Failure;
use crate::log_args::status_of;
use crate::open_args::{OpenArgs, Path as Way};
use crate::output::{Output, whisper};
use crate::session::Target;
use crate::table::{Column, Table, write_facts};
use crate::temporary_log::TemporaryLog;
use crate::units;

/// A server's connections are descriptors.
const OPEN_FILES_ENOUGH: u64 = 4_096;
/// A difference that is not noise.
const BETTER: f64 = 1.1;

const EXAMPLES: &str = "Examples:
  quipu doctor --log ./log
  quipu doctor --log /var/lib --seconds 5 --json

It appends to temporary logs in that folder, one for each way to the disk, and removes them: alone
(one event at a time), busy (the same while every core is at work) and crowded (64 threads with an
event each). All are as durable; the fastest is not the same everywhere.";

/// Where to look, and how long.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A folder on the disk, which must exist; what is in it is not touched.
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// How long each of the runs takes, three for each way to the disk.
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = from_1_to(3_600))]
    seconds: u64,
}

#[derive(Serialize)]
struct Findings {
    cores: usize,
    open_files: Option<u64>,
    file_bytes: Option<u64>,
    realtime_priority: u64,
    free_bytes: u64,
    space_is_low: bool,
    backends: Vec<Tried>,
    recommended: &'static str,
}

/// One way to the disk.
#[derive(Serialize)]
struct Tried {
    backend: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(flatten)]
    found: Option<Found>,
}

#[derive(Serialize)]
struct Found {
    alone: Measures,
    busy: Measures,
    crowded: Measures,
}

/// Looks, and says what it found.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let ways = [Way::Direct, Way::Buffered, Way::IoUring];
    whisper(format_args!("{} runs of {} s each", ways.len() * 3, args.seconds));
    let folder = TemporaryLog::create(&args.log, "quipu-doctor-")?;
    let mut backends = Vec::new();
    let mut space = (0, false);
    for way in ways {
        let backend = name(way);
        let log = folder.path().join(backend);
        let (refused, found) = match try_out(&log, way, args.seconds, &mut space)? {
            Ok(found) => (None, Some(found)),
            Err(refused) => (Some(refused), None),
        };
        backends.push(Tried { backend, refused, found });
    }
    if let [Tried { refused: Some(refused), .. }, ..] = &backends[..]
        && backends.iter().all(|tried| tried.found.is_none())
    {
        return Err(Failure::Unreachable(format!("no log can be opened here: {refused}")));
    }
    folder.close()?;
    let limit = |resource| getrlimit(resource).current;
    let findings = Findings {
        cores: cores(),
        open_files: getrlimit(Resource::Nofile).maximum,
        file_bytes: limit(Resource::Fsize),
        // No limit is no bound on the priority.
        realtime_priority: limit(Resource::Rtprio).unwrap_or(99),
        free_bytes: space.0,
        space_is_low: space.1,
        recommended: recommend(&backends),
        backends,
    };
    if out.is_json() { out.object(&findings) } else { print(&findings, out) }
}

fn name(way: Way) -> &'static str {
    match way {
        Way::Auto => "auto",
        Way::Direct => "direct",
        Way::Buffered => "buffered",
        Way::IoUring => "io-uring",
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What a log that is opened so gives, or why it cannot be.
fn try_out(
    log: &Path,
    way: Way,
    seconds: u64,
    space: &mut (u64, bool),
) -> Result<Result<Found, String>, Failure> {
    let log = match Embedded::open(log, OpenArgs::by(way).options()) {
        Ok(log) => log,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let status = status_of(&log)?;
    *space = (status.free_bytes, status.space_is_low);
    let plan = |writers| Plan {
        writers,
        threads: 1,
        in_flight: 1,
        batch: 1,
        event_bytes: 1_024,
        aggregates: 1_000,
        ids: Ids::V7,
        unlinked: false,
        spread: false,
        events: None,
        seconds,
        rate: None,
    };
    let alone = measure(&plan(1), Target::Log(&log))?;
    let busy = beside_work(|| measure(&plan(1), Target::Log(&log)))?;
    let crowded = measure(&plan(64), Target::Log(&log))?;
    log.close();
    Ok(Ok(Found { alone, busy, crowded }))
}

/// Does something while every core has a thread that never waits.
fn beside_work<T>(work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        done
    })
}

/// The default, unless something else is better here and nowhere worse.
fn recommend(tried: &[Tried]) -> &'static str {
    let found = |backend| tried.iter().find(|it| it.backend == backend)?.found.as_ref();
    let (Some(direct), Some(ring)) = (found("direct"), found("io-uring")) else {
        return "auto";
    };
    let gain = |of: fn(&Found) -> &Measures| {
        let rate = |found| of(found).events_per_s.unwrap_or(0.0);
        rate(ring) / rate(direct).max(f64::MIN_POSITIVE)
    };
    let gains = [gain(|it| &it.alone), gain(|it| &it.busy), gain(|it| &it.crowded)];
    let is_nowhere_worse = gains.iter().all(|gain| gain * BETTER >= 1.0);
    let is_better = gains.iter().any(|gain| *gain >= BETTER);
    if is_nowhere_worse && is_better { "io-uring" } else { "auto" }
}

fn print(findings: &Findings, out: &mut Output) -> Result<(), Failure> {
    let or_unlimited = |limit: Option<u64>, text: fn(u64) -> String| {
        limit.map_or_else(|| "unlimited".to_owned(), text)
    };
    let mut open_files = or_unlimited(findings.open_files, units::count);
    if findings.open_files.is_some_and(|limit| limit < OPEN_FILES_ENOUGH) {
        open_files.push_str(": LOW for a server, each connection is one");
    }
    let mut file_bytes = or_unlimited(findings.file_bytes, units::bytes);
    if findings.file_bytes.is_some_and(|limit| limit < 1 << 30) {
        file_bytes.push_str(": LOW, segments may be as large as 1 GiB");
    }
    let realtime = match findings.realtime_priority {
        0 => "not permitted to this user by its limits".to_owned(),
        most => format!("permitted, up to priority {most}"),
    };
    let low = if findings.space_is_low { ": LOW" } else { "" };
    write_facts(
        out,
        [
            ("cores", findings.cores.to_string()),
            ("free", format!("{}{low}", units::bytes(findings.free_bytes))),
            ("open files", open_files),
            ("file size", file_bytes),
            ("real-time scheduling", realtime),
        ],
    )?;
    out.line("")?;
    let mut table = Table::new([
        Column::Text("BACKEND"),
        Column::Number("ALONE P50"),
        Column::Number("P99"),
        Column::Number("BUSY P50"),
        Column::Number("P99"),
        Column::Number("CROWDED/S"),
        Column::Text(""),
    ]);
    let rows: Vec<[String; 7]> = findings.backends.iter().map(row).collect();
    table.write(out, &rows)?;
    out.line("")?;
    let reason = match findings.recommended {
        "auto" => "the default is right here",
        _ => "better here, and nowhere worse",
    };
    out.line(format_args!("use --backend {}: {reason}", findings.recommended))
}

fn row(tried: &Tried) -> [String; 7] {
    let Some(Found { alone, busy, crowded }) = &tried.found else {
        let refused = tried.refused.clone().unwrap_or_default();
        let mut row: [String; 7] = std::array::from_fn(|_| String::new());
        (row[0], row[6]) = (tried.backend.to_owned(), refused);
        return row;
    };
    let latency = |of: &Measures| {
        let text = |micros| units::duration(Duration::from_micros(micros));
        of.latency_us.map_or_else(Default::default, |it| (text(it.p50), text(it.p99)))
    };
    let ((alone_p50, alone_p99), (busy_p50, busy_p99)) = (latency(alone), latency(busy));
    let rate = crowded.events_per_s.unwrap_or(0.0);
    let crowded = format!("{rate:.0}");
    let backend = tried.backend.to_owned();
    [backend, alone_p50, alone_p99, busy_p50, busy_p99, crowded, String::new()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(backend: &'static str, rates: [f64; 3]) -> Tried {
        let measures = |rate| Measures { events_per_s: Some(rate), ..Measures::default() };
        let [alone, busy, crowded] = rates.map(measures);
        Tried { backend, refused: None, found: Some(Found { alone, busy, crowded }) }
    }

    #[test]
    fn another_way_is_recommended_only_if_it_is_better_and_nowhere_worse() {
        let direct = || tried("direct", [100.0, 100.0, 100.0]);
        let with = |rates| recommend(&[direct(), tried("io-uring", rates)]);
        assert_eq!(with([100.0, 95.0, 130.0]), "io-uring");
        assert_eq!(with([100.0, 30.0, 130.0]), "auto");
        assert_eq!(with([105.0, 100.0, 105.0]), "auto");
        assert_eq!(recommend(&[direct()]), "auto");
    }
}
