//! `quipu read`: events in order, of the whole log, one type or one aggregate.

use futures::executor::block_on;
use quipu_client::{AggregateKey, Direction, Filter, ReadRequest, Timestamp};

use crate::failure::Failure;
use crate::output::{Output, whisper};
use crate::record_printer::RecordPrinter;
use crate::store_args::StoreArgs;

const EXAMPLES: &str = "Examples:
  quipu read --log ./log Call 42
  quipu read --server localhost:7440 --backward --limit 10
  quipu read --log ./log Call --event-type Ended --after 2026-01-02T00:00:00Z --json";

/// Which events to print.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Only aggregates of this type.
    #[arg(value_name = "TYPE")]
    aggregate_type: Option<String>,
    /// Only this aggregate.
    #[arg(value_name = "ID")]
    aggregate_id: Option<String>,
    /// Begin here, inclusive: a version where ID is given, else a position.
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Newest first.
    #[arg(long)]
    backward: bool,
    /// At most so many events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only events of this type; may be given several times.
    #[arg(long, value_name = "T")]
    event_type: Vec<String>,
    /// Only events of this business transaction.
    #[arg(long, value_name = "C")]
    correlation: Option<String>,
    /// Only events that happened at or after this time.
    #[arg(long, value_name = "TIME")]
    after: Option<Timestamp>,
    /// Only events that the log took at or after this time.
    #[arg(long, value_name = "TIME")]
    recorded_after: Option<Timestamp>,
    /// Also the system's own events, whose aggregate types begin with `$`.
    #[arg(long)]
    system: bool,
}

impl Args {
    fn request(&self) -> ReadRequest {
        let mut filter = match (&self.aggregate_type, &self.aggregate_id) {
            (Some(kind), Some(id)) => Filter::aggregate(AggregateKey::new(kind, id)),
            (kind, _) => Filter {
                aggregate_types: kind.iter().cloned().collect(),
                include_system: kind.as_ref().is_some_and(|kind| kind.starts_with('$')),
                ..Filter::default()
            },
        };
        filter.event_types.clone_from(&self.event_type);
        filter.correlation_id.clone_from(&self.correlation);
        filter.since = self.after;
        filter.recorded_since = self.recorded_after;
        filter.include_system |= self.system;
        let direction = if self.backward { Direction::Backward } else { Direction::Forward };
        ReadRequest { filter, from: self.from, direction, limit: self.limit }
    }
}

/// Prints them.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let store = args.store.open_to_read()?;
    let mut stream = store.events().read(args.request());
    let mut printer = RecordPrinter::new();
    let mut is_empty = true;
    loop {
        let records = block_on(stream.next_batch())?;
        if records.is_empty() {
            break;
        }
        is_empty = false;
        printer.print(out, &records)?;
    }
    if is_empty {
        whisper("no such events");
    }
    store.check_whole()
}
