//! `quipu replay`: a part of the past once more, for a handler or to be looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::executor::block_on;
use quipu_client::{
    AggregateKey, HandlerNotes, Place, Places, Position, Record, ReplayRequest, ReplayState,
    Timestamp,
};
use serde_json::json;

use super::bus::BusArg;
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::progress::{Progress, Unit};
use crate::record_printer::RecordPrinter;
use crate::store_args::{Store, StoreArgs};
use crate::table::{Column, Table};
use crate::units::{count, plural};
use crate::wait::{now, pause_until};

/// How often a replay is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long somebody waits for a bus to begin it.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "Examples:
  quipu replay --handler invoices --server localhost:7440 --from 1000 --rate 500
  quipu replay --handler invoices --log ./log --event-type CallCompleted --dry-run
  quipu replay --stdout --log ./log --aggregate Call/42 --rate 2";

/// Which events, and for whom.
///
/// A handler gets them from the bus that runs, or when one runs next; its code can see that it is a
/// replay, and gets nothing new meanwhile.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    bus: BusArg,
    /// From this position on.
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Up to this position.
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// Only events that happened at or after this time.
    #[arg(long, value_name = "TIME")]
    after: Option<Timestamp>,
    /// Only events of this type; may be given several times.
    #[arg(long, value_name = "T")]
    event_type: Vec<String>,
    /// Only this aggregate, or aggregates of this type.
    #[arg(long, value_name = "TYPE[/ID]")]
    aggregate: Option<String>,
    /// At most so many events a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Only say how many events there would be.
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// For this handler.
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Print them.
    #[arg(long)]
    stdout: bool,
}

impl Args {
    fn request(&self) -> ReplayRequest {
        let mut request = ReplayRequest {
            from: self.from.map(Position),
            to: self.to.map(Position),
            after: self.after,
            event_types: self.event_type.clone(),
            rate: self.rate,
            ..ReplayRequest::default()
        };
        match self.aggregate.as_ref().map(|name| (name, name.split_once('/'))) {
            None => {}
            Some((name, None)) => request.aggregate_types.push(name.clone()),
            Some((_, Some((kind, id)))) => request.aggregate = Some(AggregateKey::new(kind, id)),
        }
        request
    }

    /// What there is of it for the handler, if it is for one.
    fn request_within(&self, store: &Store) -> Result<Option<ReplayRequest>, Failure> {
        let Some(handler) = &self.target.handler else { return Ok(Some(self.request())) };
        block_on(HandlerNotes::of(store.shared(), &self.bus.bus, handler))?;
        let places = block_on(Places::newest(store.events(), &self.bus.bus))?.1;
        let place = places.and_then(|mut places| places.handlers.remove(handler));
        Ok(place.and_then(|Place { subject, .. }| self.request().within(&subject)))
    }
}

/// Does it, or says what it would do.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    match &args.target.handler {
        _ if args.dry_run => dry_run(args, out),
        None => print(args, out),
        Some(handler) => replay(args, handler, out),
    }
}

fn dry_run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let store = args.store.open_to_read()?;
    let mut by_type: BTreeMap<String, u64> = BTreeMap::new();
    if let Some(request) = args.request_within(&store)? {
        each(&store, &request, |record| {
            *by_type.entry(record.event_type().to_owned()).or_default() += 1;
            Ok(())
        })?;
    }
    let events: u64 = by_type.values().sum();
    if out.is_json() {
        return out.object(&json!({ "events": events, "by_type": by_type }));
    }
    let rows: Vec<_> =
        by_type.iter().map(|(name, events)| [count(*events), name.clone()]).collect();
    Table::new([Column::Number("EVENTS"), Column::Text("EVENT")]).write(out, &rows)?;
    out.line(format_args!("{} would be replayed", plural(events, "event")))
}

fn print(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let store = args.store.open_to_read()?;
    let (request, begun) = (args.request(), now());
    let (mut printer, mut printed) = (RecordPrinter::new(), 0_u32);
    each(&store, &request, |record| {
        if let Some(rate) = request.rate {
            out.flush()?;
            pause_until(begun + Duration::from_secs(1).saturating_mul(printed) / rate);
        }
        printed = printed.saturating_add(1);
        printer.print_line(out, record)
    })?;
    store.check_whole()
}

/// Does something with each event of the request.
fn each(
    store: &Store,
    request: &ReplayRequest,
    mut take: impl FnMut(&Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let first = request.from.unwrap_or(Position::FIRST);
    let last = store.last_position()?.min(request.to.unwrap_or(Position::MAX));
    let total = (last.0 + 1).saturating_sub(first.0);
    let mut progress = Progress::new(Some(total), Unit::Events);
    let mut records = store.events().read(request.read());
    loop {
        let page = block_on(records.next_batch())?;
        let Some(end) = page.last().map(Record::position) else { return Ok(()) };
        for record in page.iter().filter(|record| request.includes(record)) {
            take(record)?;
        }
        progress.done((end.0 + 1).saturating_sub(first.0));
        if request.is_past(end) {
            return Ok(());
        }
    }
}

fn replay(args: &Args, handler: &str, out: &mut Output) -> Result<(), Failure> {
    let store = args.store.open_existing()?;
    let notes = block_on(HandlerNotes::of(store.shared(), &args.bus.bus, handler))?;
    let replay_id = block_on(notes.replay(args.request()))?;
    // A log that is open here is open nowhere else: no bus can begin it now.
    let mut state = ReplayState::Asked;
    if let Store::Server(_) = store {
        state = follow(&store, &notes, replay_id)?;
    }
    let (word, events) = match state {
        ReplayState::Ended { events } => ("ended", events),
        ReplayState::Running { events, .. } => ("running", events),
        ReplayState::Asked | ReplayState::Unknown => ("asked", 0),
    };
    if out.is_json() {
        return out.object(&json!({ "replay_id": replay_id, "state": word, "events": events }));
    }
    match state {
        ReplayState::Ended { .. } => {
            out.line(format_args!("{} replayed for {handler}", plural(events, "event")))
        }
        _ => out.line(format_args!("asked for: bus {:?} does it when it runs next", args.bus.bus)),
    }
}

/// Shows how far the replay is until it has ended, or nobody begins it.
fn follow(
    store: &Store,
    notes: &HandlerNotes,
    replay_id: quipu_client::Uuid,
) -> Result<ReplayState, Failure> {
    let mut progress = Progress::new(Some(store.last_position()?.0), Unit::Events);
    let begun = now();
    loop {
        let state = block_on(notes.replay_state(replay_id))?;
        match state {
            ReplayState::Running { position, .. } => progress.done(position.0),
            ReplayState::Asked if now() < begun + BEGIN_WITHIN => progress.done(0),
            ReplayState::Asked | ReplayState::Unknown => {
                note("nobody has begun it: is the bus running?");
                return Ok(state);
            }
            ReplayState::Ended { .. } => return Ok(state),
        }
        pause_until(now() + LOOK_EVERY);
    }
}
