//! `quipu bus status`: who runs a bus, and how far its handlers are.

use futures::executor::block_on;
use quipu_client::{HandlerNotes, Place, Places, Position};
use serde_json::json;

use super::BusArg;
use crate::failure::Failure;
use crate::output::Output;
use crate::store_args::StoreArgs;
use crate::table::{Column, Table, write_facts};
use crate::units::count;

const EXAMPLES: &str = "Examples:
  quipu bus status --log ./log
  quipu bus status --server localhost:7440 --bus billing --json";

/// Which bus.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    bus: BusArg,
}

/// One handler, as far as the log knows.
struct Row {
    name: String,
    place: Place,
    lag: u64,
    parked: usize,
}

/// Shows it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let (store, bus) = (args.store.open_to_read()?, &args.bus.bus);
    let places = block_on(Places::newest(store.events(), bus))?.1;
    let Some(places) = places else {
        return Err(Failure::No(format!("no bus named {bus:?} has ever run on this log")));
    };
    let last = store.last_position()?;
    let mut rows = Vec::new();
    for (name, place) in places.handlers.clone() {
        let notes = block_on(HandlerNotes::of(store.shared(), bus, &name))?;
        let parked = block_on(notes.parked())?.len();
        rows.push(Row { name, lag: lag(last, &place), place, parked });
    }
    if out.is_json() {
        return out.object(&as_json(bus, &places, last, &rows));
    }
    let ended = if places.is_closed { "ended in order" } else { "running, or ended unexpectedly" };
    let facts = [
        ("bus", bus.clone()),
        ("run by", places.holder.clone()),
        ("run", places.run.to_string()),
        ("state", ended.to_owned()),
        ("last position", count(last.0)),
    ];
    write_facts(out, facts)?;
    out.line("")?;
    let rows: Vec<_> = rows.iter().map(Row::cells).collect();
    Table::new([
        Column::Text("HANDLER"),
        Column::Number("POSITION"),
        Column::Number("LAG"),
        Column::Number("PARKED"),
        Column::Text("HEARS OF"),
    ])
    .write(out, &rows)
}

fn lag(last: Position, place: &Place) -> u64 {
    last.0.saturating_sub(place.position.0)
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let Self { name, place, lag, parked } = self;
        let parked = count(*parked as u64);
        [name.clone(), count(place.position.0), count(*lag), parked, place.subject.to_string()]
    }
}

fn as_json(bus: &str, places: &Places, last: Position, rows: &[Row]) -> serde_json::Value {
    let handlers = rows.iter().map(|Row { name, place, lag, parked }| {
        json!({
            "handler": name,
            "subject": place.subject,
            "position": place.position,
            "lag": lag,
            "parked": parked,
        })
    });
    json!({
        "bus": bus,
        "holder": places.holder,
        "run": places.run,
        "is_closed": places.is_closed,
        "last_position": last,
        "handlers": handlers.collect::<Vec<_>>(),
    })
}
