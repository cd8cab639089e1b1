//! `quipu replicate`: fills projections until it is stopped.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quipu_client::Embedded;
use quipu_replicator::{Observer, Replicator, Summary};
use serde::Serialize;
use tokio::sync::oneshot;

use super::postgres_args::PostgresArgs;
use super::projection_args::ProjectionArgs;
use super::runtime;
use super::watcher::{Watcher, check_failed};
use crate::commands::bench::measures::{Measures, Meter};
use crate::failure::Failure;
use crate::output::{Output, note, whisper};
use crate::signals::Signals;
use crate::store_args::{Store, StoreArgs};
use crate::units;

/// How often a log's folder is asked what its writer has stored since.
const REFRESH_EVERY: Duration = Duration::from_millis(20);

/// What to fill.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    postgres: PostgresArgs,
    #[command(flatten)]
    projections: ProjectionArgs,
    /// Only this projection; may be given several times. Default: all there are.
    #[arg(long, value_name = "NAME")]
    projection: Vec<String>,
    /// End when everything that is in the log has been applied.
    #[arg(long)]
    catch_up: bool,
}

/// What was done, once it has ended.
#[derive(Serialize)]
struct Applied {
    events: u64,
    seconds: f64,
    events_per_s: f64,
    peak_rss_bytes: u64,
    cpu_seconds: f64,
}

/// Fills them.
pub(crate) fn run(args: &RunArgs, out: &mut Output) -> Result<(), Failure> {
    let projections = args.projections.open(&args.projection)?;
    let postgres = args.postgres.open()?;
    let store = args.store.open_to_read()?;
    let (watcher, meter) = (Arc::new(Watcher::new()), Meter::start());
    let replicator = Replicator::new(store.shared(), postgres, projections)
        .observed_by(Arc::clone(&watcher) as Arc<dyn Observer>);
    let runtime = runtime()?;
    let summary = runtime.block_on(async {
        keep_fresh(&store);
        // It ends by itself; a signal ends it as it does any other command.
        if args.catch_up {
            return Ok(replicator.catch_up().await?);
        }
        follow(&replicator).await
    });
    runtime.shutdown_background();
    let failed = summary?.failed;
    report(&watcher, &meter, out)?;
    check_failed(&failed)
}

/// Follows the log until a signal comes.
async fn follow(replicator: &Replicator) -> Result<Summary, Failure> {
    let mut signals = Signals::new()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = pin!(replicator.run(async { drop(stopped.await) }));
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        () = signals.next() => drop(stop),
    }
    whisper("stopping after this batch; once more ends it at once");
    tokio::select! {
        ended = running => Ok(ended?),
        () = signals.another() => Err(Failure::Unreachable("ended at once".to_owned())),
    }
}

fn report(watcher: &Watcher, meter: &Meter, out: &mut Output) -> Result<(), Failure> {
    let mut measures = meter.measures();
    measures.events = watcher.events();
    measures.rates(0);
    let Measures { events, seconds, peak_rss_bytes, cpu_seconds, .. } = measures;
    let events_per_s = measures.events_per_s.unwrap_or_default();
    if out.is_json() {
        return out.object(&Applied { events, seconds, events_per_s, peak_rss_bytes, cpu_seconds });
    }
    let (events, memory) = (units::count(events), units::bytes(peak_rss_bytes));
    let rate = format_args!("{seconds:.2} s, {events_per_s:.0} events/s");
    out.line(format_args!("applied {events} events ({rate}); peak memory {memory}"))
}

/// A folder is read beside its writer, and has to be looked at; a server tells by itself. Ends with
/// the runtime.
pub(crate) fn keep_fresh(store: &Store) {
    if let Store::Log(log) = store {
        tokio::spawn(refresh(log.clone()));
    }
}

/// Damage is told to whoever reads; that the disk refuses, or a newer writer, only here.
async fn refresh(log: Embedded) {
    let mut told = None;
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        let log = log.clone();
        let refreshed = tokio::task::spawn_blocking(move || log.refresh()).await;
        let problem = refreshed.ok().and_then(Result::err).map(|error| error.to_string());
        if let Some(problem) = problem.as_ref().filter(|_| problem != told) {
            note(format_args!("quipu: the log cannot be followed: {problem}"));
        }
        told = problem;
    }
}
