//! `quipu bench read`: how fast all events are read in order.

use futures::executor::block_on;
use quipu_client::{EventStore, Filter, ReadRequest};

use super::measures::Meter;
use crate::failure::Failure;
use crate::log_args::{LogArgs, status_of};
use crate::output::Output;

/// What to read.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  quipu bench read --log ./bench-log --json")]
pub(crate) struct Args {
    #[command(flatten)]
    log: LogArgs,
}

/// Reads every record from first to last; MB/s counts the records' bytes as they are stored.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let log = args.log.open_to_read()?;
    let meter = Meter::start();
    let filter = Filter { include_system: true, ..Filter::default() };
    let mut records = log.read(ReadRequest { filter, ..ReadRequest::default() });
    let (mut events, mut bytes) = (0, 0);
    loop {
        let batch = block_on(records.next_batch())?;
        if batch.is_empty() {
            break;
        }
        events += batch.len() as u64;
        bytes += batch.iter().map(|record| record.as_bytes().len() as u64).sum::<u64>();
    }
    let mut measures = meter.measures();
    measures.events = events;
    measures.rates(bytes);
    measures.bytes_on_disk = status_of(&log)?.bytes_on_disk;
    measures.print(out)
}
