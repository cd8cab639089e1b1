//! `quipu replicate`: read models in Postgres, filled from a log.

mod postgres_args;
mod projection_args;
mod rebuild;
mod run;
mod status;
mod verify;
mod watcher;

use clap::Subcommand;
use quipu_replicator::ReplicateError;
use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;
use crate::output::Output;

const EXAMPLES: &str = "Examples:
  quipu replicate --log ./log --postgres postgres://quipu@localhost/reports
  quipu replicate --server localhost:7440 --postgres URL --projection compliance --sql loans.toml
  quipu replicate status --postgres URL --server localhost:7440
  quipu replicate rebuild compliance --log ./log --postgres URL
  quipu replicate verify --log ./log --postgres URL

It makes its tables by itself, applies each event once in effect whatever is killed, and waits for a
Postgres or a server that goes away. SIGTERM or SIGINT stops it, a second one at once. A password
may also be in the environment variable PGPASSWORD. docs/replicator.md has the tables and how to add
one in SQL.";

/// What to fill, or what to do with what was filled.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Subcommand)]
enum What {
    /// Fill a projection anew beside the one that serves, then put it in its place.
    Rebuild(rebuild::Args),
    /// Show how far each projection is, and what went wrong.
    Status(status::Args),
    /// Compare tables with what the log gives, and name the first difference.
    Verify(verify::Args),
}

/// Does it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    match &args.what {
        Some(What::Rebuild(args)) => rebuild::run(args, out),
        Some(What::Status(args)) => status::run(args, out),
        Some(What::Verify(args)) => verify::run(args, out),
        None => run::run(&args.run, out),
    }
}

/// What replicators run on.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("quipu-replicate")
        .enable_all()
        .build()
        .map_err(|error| Failure::Unreachable(format!("cannot start threads: {error}")))
}

impl From<ReplicateError> for Failure {
    fn from(error: ReplicateError) -> Self {
        match error {
            ReplicateError::Settings { .. }
            | ReplicateError::Definition { .. }
            | ReplicateError::UnknownProjection { .. } => Self::Usage(error.to_string()),
            ReplicateError::Log(error) => error.into(),
            ReplicateError::Sql(_)
            | ReplicateError::NoAnswer { .. }
            | ReplicateError::OldServer { .. }
            | ReplicateError::Encoding { .. } => Self::Unreachable(error.to_string()),
            _ => Self::No(error.to_string()),
        }
    }
}
