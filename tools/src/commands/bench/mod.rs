//! `quipu bench`: what the disk gives, and what a log makes of it.

pub(crate) mod append;
mod disk;
mod echo;
pub(crate) mod events;
pub(crate) mod measures;
mod open;
mod read;
mod replicate;
mod subscribe;

use clap::Subcommand;
use clap::builder::RangedU64ValueParser;

use crate::failure::Failure;
use crate::output::Output;

/// What to measure.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  quipu bench append --log ./bench-log --seconds 30 --json")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Durable sequential writes to the bare disk.
    Disk(disk::Args),
    /// Appends of made-up events.
    Append(append::Args),
    /// A scan of all events.
    Read(read::Args),
    /// Subscribers that catch up, and follow.
    Subscribe(subscribe::Args),
    /// Read models in Postgres, beside what Postgres alone can do.
    Replicate(replicate::Args),
    /// The way to a server and back, without a log.
    Echo(echo::Args),
    /// Opening a log, after a stop in order and after a kill.
    Open(open::Args),
}

/// Payloads that made-up events can have.
fn event_bytes() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(events::EVENT_BYTES_MIN..=events::EVENT_BYTES_MAX)
}

/// Option values from 1 to `most`.
pub(crate) fn from_1_to(most: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..=most)
}

/// Measures it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    match &args.what {
        What::Disk(args) => disk::run(args, out),
        What::Append(args) => append::run(args, out),
        What::Read(args) => read::run(args, out),
        What::Subscribe(args) => subscribe::run(args, out),
        What::Replicate(args) => replicate::run(args, out),
        What::Echo(args) => echo::run(args, out),
        What::Open(args) => open::run(args, out),
    }
}
