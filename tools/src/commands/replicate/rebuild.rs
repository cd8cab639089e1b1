//! `quipu replicate rebuild`: fills a projection anew without downtime.

use std::sync::Arc;

use quipu_replicator::Replicator;
use serde_json::json;

use super::postgres_args::PostgresArgs;
use super::projection_args::ProjectionArgs;
use super::run::keep_fresh;
use super::runtime;
use super::watcher::Watcher;
use crate::failure::Failure;
use crate::output::Output;
use crate::store_args::StoreArgs;
use crate::units;
use crate::wait::{now, since};

const EXAMPLES: &str = "Examples:
  quipu replicate rebuild compliance --log ./log --postgres URL
  quipu replicate rebuild loans --sql loans.toml --server localhost:7440 --postgres URL

The old tables serve, and may be filled, until the new ones have caught up; then they change places
in one transaction. Started again after an interruption, it goes on where it was.";

/// What to fill anew.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Name of the projection.
    name: String,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    postgres: PostgresArgs,
    #[command(flatten)]
    projections: ProjectionArgs,
}

/// Fills it anew.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let projections = args.projections.open(std::slice::from_ref(&args.name))?;
    let postgres = args.postgres.open()?;
    let store = args.store.open_to_read()?;
    let replicator = Replicator::new(store.shared(), postgres, projections);
    let (runtime, started) = (runtime()?, now());
    let through = runtime.block_on(async {
        keep_fresh(&store);
        replicator.rebuild(&args.name, Arc::new(Watcher::new())).await
    });
    runtime.shutdown_background();
    let (through, name, seconds) = (through?, &args.name, since(started));
    if out.is_json() {
        let seconds = seconds.as_secs_f64();
        return out.object(&json!({"name": name, "position": through.0, "seconds": seconds}));
    }
    let (through, seconds) = (units::count(through.0), units::duration(seconds));
    out.line(format_args!("{name} was rebuilt up to position {through} in {seconds}"))
}
