//! `quipu bench read`: how fast all events are read in order.

use quipu_client::{Filter, ReadRequest};

use super::measures::Meter;
use crate::failure::Failure;
use crate::output::Output;
use crate::store_args::StoreArgs;

const EXAMPLES: &str = "Examples:
  quipu bench read --log ./bench-log --json
  quipu bench read --server 127.0.0.1:7440";

/// What to read.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

/// Reads every record from first to last; MB/s counts the records' bytes as they are stored.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    args.store.open_target_to_read(|target| {
        let session = target.session()?;
        let meter = Meter::start();
        let filter = Filter { include_system: true, ..Filter::default() };
        let mut records = session.store().read(ReadRequest { filter, ..ReadRequest::default() });
        let (mut events, mut bytes) = (0, 0);
        loop {
            let batch = session.block_on(records.next_batch())?;
            if batch.is_empty() {
                break;
            }
            events += batch.len() as u64;
            bytes += batch.iter().map(|record| record.as_bytes().len() as u64).sum::<u64>();
        }
        let mut measures = meter.measures();
        measures.events = events;
        measures.rates(bytes);
        measures.bytes_on_disk = target.figures()?.bytes_on_disk;
        measures.print(out)
    })
}
