//! `quipu tail`: follows a log that another program writes, or a server's.

use quipu_client::{Filter, Position, StartAfter, SubscribeRequest, SubscriptionItem};

use crate::failure::Failure;
use crate::output::{Output, whisper};
use crate::record_printer::RecordPrinter;
use crate::store_args::StoreArgs;
use crate::wait::{self, REFRESH_EVERY};

const EXAMPLES: &str = "Examples:
  quipu tail --log ./log
  quipu tail --server localhost:7440 --event-type Ended
  quipu tail --log ./log --after 0 --aggregate-type Call --json";

/// Which events to follow.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Begin after this position, 0 for everything; `end` waits for new events.
    #[arg(long, value_name = "N|end", default_value = "end", value_parser = start_after)]
    after: StartAfter,
    /// Only aggregates of this type; may be given several times.
    #[arg(long, value_name = "T")]
    aggregate_type: Vec<String>,
    /// Only events of this type; may be given several times.
    #[arg(long, value_name = "T")]
    event_type: Vec<String>,
}

fn start_after(given: &str) -> Result<StartAfter, String> {
    match given {
        "end" => Ok(StartAfter::End),
        number => number
            .parse()
            .map(|number| StartAfter::Position(Position(number)))
            .map_err(|_| "expected a position (a whole number) or end".to_owned()),
    }
}

/// Prints events until it is stopped.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let store = args.store.open_to_read()?;
    let filter = Filter {
        aggregate_types: args.aggregate_type.clone(),
        event_types: args.event_type.clone(),
        include_system: args.aggregate_type.iter().any(|name| name.starts_with('$')),
        ..Filter::default()
    };
    let mut subscription =
        store.events().subscribe(SubscribeRequest { filter, after: args.after })?;
    if args.after == StartAfter::End {
        whisper(format_args!("waiting after position {}", store.last_position()?));
    }
    let mut printer = RecordPrinter::new();
    loop {
        let items = {
            let mut next = std::pin::pin!(subscription.next_batch());
            loop {
                match wait::until(next.as_mut(), wait::now() + REFRESH_EVERY) {
                    Some(items) => break items?,
                    None => store.refresh()?,
                }
            }
        };
        for item in items {
            if let SubscriptionItem::Event(record) = item {
                printer.print_line(out, &record)?;
            }
        }
        out.flush()?;
    }
}
