//! `quipu bus`: the handlers of an event bus, and the events that they could not handle.

mod parked;
mod status;

use clap::Subcommand;

use crate::failure::Failure;
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  quipu bus status --log ./log
  quipu bus parked list invoices --server localhost:7440";

/// What to do with a bus.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show who runs a bus, and how far its handlers are.
    Status(status::Args),
    /// Look after events that a handler could not handle.
    Parked(parked::Args),
}

/// Which bus.
#[derive(clap::Args, Clone)]
pub(crate) struct BusArg {
    /// Name of the bus.
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(crate) bus: String,
}

/// Does it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    match &args.action {
        Action::Status(args) => status::run(args, out),
        Action::Parked(args) => parked::run(args, out),
    }
}
