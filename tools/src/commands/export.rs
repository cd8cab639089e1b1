//! `quipu export`: events as lines of JSON that `import` reads.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use futures::executor::block_on;
use quipu_client::{Filter, Position, ReadRequest, Record, json};

use crate::failure::Failure;
use crate::files::NewFile;
use crate::output::{Output, note};
use crate::progress::{Progress, Unit};
use crate::store_args::StoreArgs;
use crate::units::plural;

const EXAMPLES: &str = "Examples:
  quipu export --log ./log --output events.ndjson
  quipu export --server localhost:7440 --output events.ndjson
  quipu export --log ./log --from 1000 --to 2000 | zstd > part.ndjson.zst";

/// Which events to write, and where.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The first position to write.
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: u64,
    /// The last position to write. Default: the last there is.
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// How to write them.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// Write to this file, which appears once it is whole. Default, and `-`: standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also the system's own events, which `import` does not take.
    #[arg(long)]
    system: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// One JSON object a line.
    Ndjson,
}

/// Writes them.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let Format::Ndjson = args.format;
    let store = args.store.open_to_read()?;
    let last = store.last_position()?.min(Position(args.to.unwrap_or(u64::MAX)));
    let total = (last.0 + 1).saturating_sub(args.from.max(1));
    let filter = Filter { include_system: args.system, ..Filter::default() };
    let request = ReadRequest { filter, from: Some(args.from), ..ReadRequest::default() };
    let mut records = store.events().read(request);
    let path = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let mut file = path.map(NewFile::create).transpose()?;
    let mut progress = Progress::new(Some(total), Unit::Events);
    let (mut line, mut written) = (Vec::new(), 0);
    loop {
        let batch = block_on(records.next_batch())?;
        let wanted = batch.iter().take_while(|record| record.position() <= last);
        for record in wanted {
            write(record, &mut line, file.as_mut(), out)?;
            written += 1;
        }
        progress.done(written);
        // What follows the last one may be damaged: it is none of ours.
        let is_over = batch.last().is_none_or(|record| record.position() >= last);
        if is_over {
            break;
        }
    }
    drop(progress);
    // A part of the log must not take the place of an earlier export of all of it.
    if args.to.is_none_or(|to| last < Position(to)) {
        store.check_whole()?;
    }
    if let (Some(file), Some(path)) = (file, path) {
        file.finish()?;
        note(format_args!("{} in {}", plural(written, "event"), path.display()));
    }
    Ok(())
}

fn write(
    record: &Record,
    line: &mut Vec<u8>,
    file: Option<&mut NewFile>,
    out: &mut Output,
) -> Result<(), Failure> {
    line.clear();
    json::write_record(record, line);
    match file {
        Some(file) => file.bytes_line(line),
        None => out.bytes_line(line),
    }
}
