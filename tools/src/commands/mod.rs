//! The commands, one file each.

mod append;
mod bench;
mod bus;
mod demo;
mod doctor;
mod export;
mod import;
mod read;
mod replay;
mod replicate;
mod segments;
mod serve;
mod status;
mod tail;
mod verify;

use clap::Subcommand;

use crate::failure::Failure;
use crate::output::Output;

/// What `quipu` can do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// A tour on a temporary log: append, read, follow, reopen, verify.
    Demo(demo::Args),
    /// Serve a log over TCP, with health and metrics over HTTP.
    Serve(serve::Args),
    /// Store one event, or all events of a file as one.
    Append(append::Args),
    /// Print events.
    Read(read::Args),
    /// Follow a log: print each event as it is stored.
    Tail(tail::Args),
    /// Store the events of a file that the log does not have yet.
    Import(import::Args),
    /// Write events as lines of JSON.
    Export(export::Args),
    /// Have a part of the past handled again, or print it.
    Replay(replay::Args),
    /// Look after event buses: their handlers, and what those could not handle.
    Bus(bus::Args),
    /// Show what a log holds and how it is.
    Status(status::Args),
    /// Keep read models in Postgres filled from a log.
    Replicate(Box<replicate::Args>),
    /// Look at a log's segments.
    Segments(segments::Args),
    /// Check everything a log holds.
    Verify(verify::Args),
    /// Look at the machine: how a log should be opened here.
    Doctor(doctor::Args),
    /// Measure the disk, or a log on it.
    Bench(bench::Args),
}

impl Command {
    /// Which of the libraries' events its user is told, where `RUST_LOG` says nothing.
    pub(crate) fn log_filter(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            // What became of a log its answer says; that a server is away nothing else would.
            _ => "quipu_client=info",
        }
    }

    /// Does it.
    pub(crate) fn run(&self, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Demo(args) => demo::run(args, out),
            Self::Serve(args) => serve::run(args, out),
            Self::Append(args) => append::run(args, out),
            Self::Read(args) => read::run(args, out),
            Self::Tail(args) => tail::run(args, out),
            Self::Import(args) => import::run(args, out),
            Self::Export(args) => export::run(args, out),
            Self::Replay(args) => replay::run(args, out),
            Self::Bus(args) => bus::run(args, out),
            Self::Status(args) => status::run(args, out),
            Self::Replicate(args) => replicate::run(args, out),
            Self::Segments(args) => segments::run(args, out),
            Self::Verify(args) => verify::run(args, out),
            Self::Doctor(args) => doctor::run(args, out),
            Self::Bench(args) => bench::run(args, out),
        }
    }
}
