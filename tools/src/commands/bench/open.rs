//! `quipu bench open`: how long it takes until a log that was closed in order takes appends.

use super::from_1_to;
use super::measures::{Meter, Percentiles, histogram, record};
use crate::failure::Failure;
use crate::log_args::{LogArgs, status_of};
use crate::output::Output;
use crate::wait::{now, since};

/// What to open.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  quipu bench open --log ./bench-log --times 20 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    log: LogArgs,
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = from_1_to(1_000_000))]
    times: u64,
}

/// Opens it for writing and closes it, again and again; the first time is not counted, as the log
/// may not have been closed in order.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let status = status_of(&args.log.open_to_read()?)?;
    args.log.open()?.close();
    let meter = Meter::start();
    let mut latencies = histogram();
    for _ in 0..args.times {
        let started = now();
        let log = args.log.open()?;
        record(&mut latencies, since(started));
        log.close();
    }
    let mut measures = meter.measures();
    measures.opens = Some(args.times);
    measures.events = status.last_position.0;
    measures.latency_us = Some(Percentiles::of(&latencies));
    measures.bytes_on_disk = status.bytes_on_disk;
    measures.print(out)
}
