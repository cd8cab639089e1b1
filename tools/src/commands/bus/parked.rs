//! `quipu bus parked`: events that a handler could not handle, and what is to become of them.

use std::collections::BTreeSet;

use clap::Subcommand;
use futures::executor::block_on;
use quipu_client::{BusError, HandlerNotes, ParkedEvent, Position};
use serde_json::json;

use super::BusArg;
use crate::failure::Failure;
use crate::output::{Output, whisper};
use crate::store_args::{Store, StoreArgs};
use crate::table::{Column, Table, harmless};
use crate::units::plural;

const EXAMPLES: &str = "Examples:
  quipu bus parked list invoices --log ./log
  quipu bus parked replay invoices 4711 4712 --server localhost:7440
  quipu bus parked drop invoices 4713 --reason 'a test call' --server localhost:7440";

/// What to do with parked events.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List them, with their errors.
    #[command(after_help = "Example:\n  quipu bus parked list invoices --log ./log --json")]
    List {
        #[command(flatten)]
        handler: HandlerArgs,
    },
    /// Have them handled again, by the bus that runs or when one runs next.
    ///
    /// What fails again stays parked. Where later events of an aggregate are parked behind one,
    /// those before it come first.
    #[command(after_help = "Example:\n  quipu bus parked replay invoices --all --log ./log")]
    Replay {
        #[command(flatten)]
        handler: HandlerArgs,
        #[command(flatten)]
        which: Which,
    },
    /// Decide that they shall not be handled.
    #[command(
        after_help = "Example:\n  quipu bus parked drop invoices 4711 --reason test --log ./log"
    )]
    Drop {
        #[command(flatten)]
        handler: HandlerArgs,
        #[command(flatten)]
        which: Which,
        /// Why; it is kept in the log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Whose events.
#[derive(clap::Args)]
struct HandlerArgs {
    /// Name of the handler.
    #[arg(value_name = "HANDLER")]
    handler: String,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    bus: BusArg,
}

/// Which of them.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Their positions.
    #[arg(value_name = "POSITION")]
    positions: Vec<u64>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

/// Does it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    match &args.action {
        Action::List { handler } => {
            let store = handler.store.open_to_read()?;
            list(&block_on(handler.notes(&store)?.parked())?, out)
        }
        Action::Replay { handler, which } => {
            let store = handler.store.open_existing()?;
            let notes = handler.notes(&store)?;
            let positions = which.positions(handler, &notes)?;
            for position in &positions {
                block_on(notes.replay_parked(*position))?;
            }
            told(out, "asked", &positions)
        }
        Action::Drop { handler, which, reason } => {
            let store = handler.store.open_existing()?;
            let notes = handler.notes(&store)?;
            let positions = which.positions(handler, &notes)?;
            for position in &positions {
                block_on(notes.drop_parked(*position, reason))?;
            }
            told(out, "dropped", &positions)
        }
    }
}

impl HandlerArgs {
    fn notes(&self, store: &Store) -> Result<HandlerNotes, Failure> {
        Ok(block_on(HandlerNotes::of(store.shared(), &self.bus.bus, &self.handler))?)
    }
}

impl Which {
    /// Each once, and all of them parked: nothing is done where one is not.
    fn positions(
        &self,
        handler: &HandlerArgs,
        notes: &HandlerNotes,
    ) -> Result<BTreeSet<Position>, Failure> {
        let parked = block_on(notes.parked())?;
        let parked: BTreeSet<Position> = parked.iter().map(|event| event.position).collect();
        if self.all {
            return Ok(parked);
        }
        let asked: BTreeSet<Position> = self.positions.iter().copied().map(Position).collect();
        if let Some(position) = asked.difference(&parked).next() {
            let (handler, position) = (handler.handler.clone(), *position);
            return Err(BusError::NotParked { handler, position }.into());
        }
        Ok(asked)
    }
}

fn told(out: &mut Output, what: &str, positions: &BTreeSet<Position>) -> Result<(), Failure> {
    if out.is_json() {
        return out.object(&json!({ what: positions }));
    }
    let events = plural(positions.len() as u64, "event");
    match what {
        "dropped" => out.line(format_args!("{events} dropped")),
        _ => out.line(format_args!("{events} will be handled again, by the bus that runs")),
    }
}

fn list(events: &[ParkedEvent], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return events.iter().try_for_each(|event| out.object(&as_json(event)));
    }
    if events.is_empty() {
        whisper("nothing is parked");
        return Ok(());
    }
    let rows: Vec<_> = events.iter().map(row).collect();
    Table::new([
        Column::Number("POSITION"),
        Column::Text("PARKED"),
        Column::Text("AGGREGATE"),
        Column::Text("EVENT"),
        Column::Number("ATTEMPTS"),
        Column::Text("ERROR"),
    ])
    .write(out, &rows)
}

fn row(event: &ParkedEvent) -> [String; 6] {
    [
        event.position.to_string(),
        event.parked_at.to_string(),
        harmless(&event.aggregate.to_string()),
        harmless(&event.event_type),
        event.attempts.to_string(),
        // It is what a host's code said.
        harmless(&event.error),
    ]
}

fn as_json(event: &ParkedEvent) -> serde_json::Value {
    json!({
        "position": event.position,
        "id": event.event_id,
        "aggregate_type": event.aggregate.aggregate_type,
        "aggregate_id": event.aggregate.aggregate_id,
        "event_type": event.event_type,
        "attempts": event.attempts,
        "error": event.error,
        "parked_at": event.parked_at,
    })
}
