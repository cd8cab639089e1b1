//! `quipu replicate verify`: whether the tables are what the log gives.

use std::sync::Arc;

use quipu_replicator::{Replicator, Verified};
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

const EXAMPLES: &str = "Examples:
  quipu replicate verify --log ./log --postgres URL
  quipu replicate verify compliance event_store --server localhost:7440 --postgres URL

Fills tables beside those that serve from the whole log, and compares them row by row, as they were
when it began. Views are left out, for they depend on the time. The exit code is 1 where a row
differs.";

/// What to compare.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Projections; default: all there are.
    name: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    postgres: PostgresArgs,
    #[command(flatten)]
    projections: ProjectionArgs,
}

/// Compares them.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let projections = args.projections.open(&args.name)?;
    let names: Vec<String> = projections.iter().map(|it| it.name().to_owned()).collect();
    let postgres = args.postgres.open()?;
    let store = args.store.open_to_read()?;
    let replicator = Replicator::new(store.shared(), postgres, projections);
    let runtime = runtime()?;
    let _entered = runtime.enter();
    keep_fresh(&store);
    let mut different = Vec::new();
    for name in names {
        let verified = runtime.block_on(replicator.verify(&name, Arc::new(Watcher::new())))?;
        print(&name, &verified, out)?;
        if verified.difference.is_some() {
            different.push(name);
        }
    }
    out.flush()?;
    if different.is_empty() {
        return Ok(());
    }
    Err(Failure::No(format!("not what the log gives: {}", different.join(", "))))
}

fn print(name: &str, verified: &Verified, out: &mut Output) -> Result<(), Failure> {
    let through = verified.through.0;
    if out.is_json() {
        let difference = verified
            .difference
            .as_ref()
            .map(|it| json!({"table": it.table, "expected": it.expected, "found": it.found}));
        return out.object(&json!({
            "name": name, "position": through, "tables": verified.tables, "difference": difference,
        }));
    }
    let through = units::count(through);
    let Some(difference) = &verified.difference else {
        let tables = verified.tables.join(", ");
        return out.line(format_args!("{name}: as the log gives it up to {through} ({tables})"));
    };
    out.line(format_args!("{name}: NOT as the log gives it; first in {}:", difference.table))?;
    let row = |row: &Option<String>| row.clone().unwrap_or_else(|| "no such row".to_owned());
    out.line(format_args!("  the log gives  {}", row(&difference.expected)))?;
    out.line(format_args!("  the table has  {}", row(&difference.found)))
}
