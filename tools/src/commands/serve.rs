//! `quipu serve`: one log for many hosts, over TCP.

use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::sync::Arc;

use quipu_client::Embedded;
use quipu_engine::LogOptions;
use quipu_engine::format::{BLOCK_BYTES, SEGMENT_BYTES_MAX};
use quipu_server::{ListenError, Ports, Server, ServerOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::bench::from_1_to;
use crate::failure::Failure;
use crate::log_args::LogArgs;
use crate::open_args::OpenArgs;
use crate::output::{Output, note, whisper};
use crate::signals::Signals;
use crate::units;

/// More would only be in each other's way.
const WORKERS_MAX: u64 = 1_024;
/// Files that the log, its index and the requests for health and metrics may have open.
const FILES_OF_THE_LOG: u64 = 256;
/// Threads for what may wait for the disk.
const BLOCKING_THREADS_MAX: usize = 64;

const SEGMENT_BYTES_LEAST: u64 = 64 << 10;
const ENDED_AT_ONCE: i32 = 3;

const EXAMPLES: &str = "Examples:
  quipu serve --log ./log
  quipu serve --log ./log --listen 127.0.0.1:0 --http none --json

It is ready when it has printed where it listens. SIGTERM or SIGINT stops it in order: it answers
what it has admitted, closes the log and exits with 0; a second one ends it at once.
A message must come at 64 KiB in 10 s or faster, 16 times as fast if it holds room others wait for.
RUST_LOG=quipu_server=debug shows every connection.";

/// What to serve, and where.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    how: OpenArgs,
    /// Where clients connect to; port 0 takes any that is free.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7440")]
    listen: String,
    /// Where health and metrics are, or `none`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7441")]
    http: String,
    /// Let other machines connect: plain TCP, without encryption or access control.
    #[arg(long)]
    allow_remote: bool,
    /// Connections at once.
    #[arg(long, value_name = "N", value_parser = at_least_one,
        default_value_t = ServerOptions::default().connections_max)]
    connections_max: usize,
    /// Threads that serve connections; default: one a core.
    #[arg(long, value_name = "N", value_parser = from_1_to(WORKERS_MAX))]
    workers: Option<u64>,
    /// Size of a segment, such as 64MiB, a multiple of 4096; below 32 MiB, an append may take a
    /// quarter of it.
    #[arg(long, value_name = "BYTES", value_parser = segment_bytes,
        default_value_t = LogOptions::default().segment_bytes)]
    segment_bytes: u64,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse::<NonZeroUsize>();
    number.map(NonZeroUsize::get).map_err(|_| "a number from 1 on is expected".to_owned())
}

/// Smaller ones have room for no append worth the name.
fn segment_bytes(text: &str) -> Result<u64, String> {
    let bytes = units::parse_bytes(text)?;
    let range = SEGMENT_BYTES_LEAST..=SEGMENT_BYTES_MAX;
    if range.contains(&bytes) && bytes.is_multiple_of(BLOCK_BYTES as u64) {
        return Ok(bytes);
    }
    let (least, most) = (units::bytes(SEGMENT_BYTES_LEAST), units::bytes(SEGMENT_BYTES_MAX));
    Err(format!("a multiple of {BLOCK_BYTES} from {least} to {most} is expected"))
}

/// Serves until it is told to stop.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let open_files = allow_many_connections();
    let runtime = runtime(args)?;
    let served = runtime.block_on(serve(args, open_files, out));
    runtime.shutdown_background();
    served
}

fn runtime(args: &Args) -> Result<Runtime, Failure> {
    let mut builder = Builder::new_multi_thread();
    if let Some(workers) = args.workers.and_then(|workers| usize::try_from(workers).ok()) {
        builder.worker_threads(workers);
    }
    builder
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("quipu-serve")
        .enable_all()
        .build()
        .map_err(|error| Failure::Unreachable(format!("cannot start threads: {error}")))
}

async fn serve(args: &Args, open_files: u64, out: &mut Output) -> Result<(), Failure> {
    // Before anything else, so that no signal is missed.
    let mut signals = Signals::new()?;
    let http = (args.http != "none").then_some(args.http.as_str());
    let ports = Ports::open(&args.listen, http, args.allow_remote).await;
    let ports = ports.map_err(|error| cannot_listen(&error, args))?;
    let options = args.how.options().with_segment_bytes(args.segment_bytes);
    let log = LogArgs { options, ..args.log.clone() };
    let log = open(log, &mut signals).await?;
    let connections_max = connections_max(args.connections_max, open_files);
    let options = ServerOptions { connections_max, ..ServerOptions::default() };
    let server = Server::start(Arc::clone(log.log()), ports, options);
    match say_ready(&server, out) {
        // Nobody wants to hear it; whoever asks for the log is served all the same.
        Ok(()) | Err(Failure::ReaderGone) => {}
        Err(failure) => {
            server.stop().await;
            return Err(failure);
        }
    }
    signals.next().await;
    whisper("stopping; once more ends it at once");
    tokio::select! {
        stopped = server.stop() => {
            if stopped.cut_off > 0 {
                let connections = stopped.cut_off;
                note(format_args!("{connections} connections did not end in time: cut off"));
            }
            Ok(())
        }
        () = signals.another() => end_at_once("the log was not closed in order"),
    }
}

/// Opening may take long; a signal ends it, as a crash would.
async fn open(log: LogArgs, signals: &mut Signals) -> Result<Embedded, Failure> {
    let args = log.clone();
    let opened = tokio::task::spawn_blocking(move || args.open());
    tokio::select! {
        opened = opened => opened.map_err(|error| log.cannot_open(error))?,
        () = signals.next() => end_at_once("the log was being opened"),
    }
}

/// A connection is a descriptor: as many as the system lets this process have. Says how many.
fn allow_many_connections() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        note(format_args!("quipu: the limit on open files stays as it is: {error}"));
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// So many connections that the log still gets the files it needs, or as few as are wanted.
fn connections_max(wanted: usize, open_files: u64) -> usize {
    let most = open_files.saturating_sub(FILES_OF_THE_LOG).max(open_files / 4);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if wanted > most {
        note(format_args!(
            "quipu: {most} connections at most, not {wanted}: this process may have {open_files} \
             open files"
        ));
    }
    wanted.min(most)
}

fn end_at_once(meanwhile: &str) -> ! {
    note(format_args!("quipu: ended at once: {meanwhile}"));
    std::process::exit(ENDED_AT_ONCE)
}

fn say_ready(server: &Server, out: &mut Output) -> Result<(), Failure> {
    let listen = server.address();
    let http = server.http_address();
    if out.is_json() {
        let http = http.map(|it| it.to_string());
        out.object(&json!({ "listen": listen.to_string(), "http": http }))?;
    } else {
        let http = http.map_or_else(|| "none".to_owned(), |http| format!("http://{http}"));
        out.line(format_args!("listening on quipu://{listen}, health and metrics on {http}"))?;
    }
    out.flush()
}

fn cannot_listen(error: &ListenError, args: &Args) -> Failure {
    match error {
        ListenError::Refused { address, error: cause } => {
            let option = if *address == args.listen { "--listen" } else { "--http" };
            let text = format!("{error} ({option})");
            match cause.kind() {
                ErrorKind::InvalidInput => Failure::Usage(text),
                _ => Failure::Unreachable(text),
            }
        }
        error => Failure::Usage(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_log_the_files_it_needs() {
        for (wanted, open_files, expected) in [
            (2_000, u64::MAX, 2_000),
            (2_000, 20_000, 2_000),
            (2_000, 1_024, 768),
            (500, 1_024, 500),
            (2_000, 60, 15),
        ] {
            assert_eq!(connections_max(wanted, open_files), expected, "{open_files}");
        }
    }
}
