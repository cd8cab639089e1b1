//! The one binary, `quipu`: everything an operator does with a log, one file a command.
//!
//! Exit codes: 0 done; 1 the answer is no (a conflict, refused lines, damage); 2 wrong usage;
//! 3 cannot reach or open.

mod allocator;
mod commands;
mod failure;
mod files;
mod log_args;
mod open_args;
mod output;
mod progress;
mod random;
mod record_printer;
mod session;
mod signals;
mod store_args;
mod table;
mod temporary_log;
mod units;
mod wait;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::commands::Command;
use crate::output::Output;

/// Quipu: an append-only event log. Every event is kept, in one order, for good.
#[derive(Parser)]
#[command(name = "quipu", version, propagate_version = true)]
#[command(after_help = "Example:\n  quipu demo        a tour on a temporary log")]
struct Cli {
    /// Print one JSON object a line, for machines.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    allocator::keep_free_memory();
    let cli = Cli::parse();
    start_logging(cli.command.log_filter());
    let mut out = Output::new(cli.json);
    match cli.command.run(&mut out).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Events of the libraries go to standard error.
fn start_logging(filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    // What cannot be written is left out: to complain of it on standard error panics.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    log.with_env_filter(filter).with_writer(std::io::stderr).init();
}
