//! `quipu replicate status`: how far each projection is.

use std::path::PathBuf;

use quipu_replicator::{ProjectionStatus, status};
use serde_json::json;

use super::postgres_args::PostgresArgs;
use super::runtime;
use crate::failure::Failure;
use crate::output::Output;
use crate::store_args::{Store, StoreArgs};
use crate::table::{Column, Table};
use crate::units;

const EXAMPLES: &str = "Examples:
  quipu replicate status --postgres URL
  quipu replicate status --postgres URL --server localhost:7440 --json

With --log or --server, lag is measured now; else it is what it was at the last batch. The exit code
is 1 where a projection has failed.";

/// What to look at.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    postgres: PostgresArgs,
    /// Folder of the log.
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    log: Option<PathBuf>,
    /// Address of a server: quipu://HOST:PORT, or HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    server: Option<String>,
}

/// Looks at it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let postgres = args.postgres.open()?;
    let store = StoreArgs::given(args.log.clone(), args.server.clone());
    let store = store.map(|store| store.open_to_read()).transpose()?;
    let all = runtime()?.block_on(status(&postgres, store.as_ref().map(Store::events)))?;
    print(&all, out)?;
    let failed = all.iter().filter(|it| it.status == "failed").map(|it| it.name.as_str());
    let failed: Vec<&str> = failed.collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::No(format!("failed: {}", failed.join(", "))))
}

fn print(all: &[ProjectionStatus], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return all.iter().try_for_each(|it| {
            out.object(&json!({
                "name": it.name,
                "event_type": it.event_type,
                "status": it.status,
                "position": it.position.0,
                "lag_events": it.lag_events,
                "lag_seconds": it.lag_seconds,
                "events_per_s": it.events_per_second,
                "error_count": it.error_count,
                "last_error": it.last_error,
                "parked": it.parked,
                "log_id": it.log_id.to_string(),
                "updated_at": it.updated_at.to_string(),
            }))
        });
    }
    let mut table = Table::new([
        Column::Text("PROJECTION"),
        Column::Text("STATUS"),
        Column::Number("POSITION"),
        Column::Number("LAG"),
        Column::Number("BEHIND"),
        Column::Number("EVENTS/S"),
        Column::Number("PARKED"),
        Column::Text("LAST ERROR"),
    ]);
    let rows: Vec<[String; 8]> = all.iter().map(row).collect();
    table.write(out, &rows)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive")]
fn row(status: &ProjectionStatus) -> [String; 8] {
    [
        status.name.clone(),
        status.status.clone(),
        units::count(status.position.0),
        units::count(status.lag_events),
        format!("{:.1} s", status.lag_seconds),
        units::count(status.events_per_second as u64),
        units::count(status.parked.unsigned_abs()),
        status.last_error.clone().unwrap_or_default(),
    ]
}
