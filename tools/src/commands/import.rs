//! `quipu import`: each line an append of its own, in file order, many of them in flight.
//!
//! A line that cannot be stored is refused with its number and the reason, and the others go on; a
//! second run stores only what is missing. Only a log that takes no more appends stops it: a server
//! that is killed and comes back does not.

use std::path::PathBuf;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{FuturesOrdered, StreamExt};
use quipu_client::{
    Append, AppendError, AppendOutcome, EventStore, ExpectedVersion, ReadError, Version, json,
};
use serde::Serialize;

use crate::failure::Failure;
use crate::files::{LINE_BYTES_MAX, Line, Lines};
use crate::output::Output;
use crate::progress::{Progress, Unit};
use crate::store_args::StoreArgs;
use crate::units::{count, plural};
use crate::wait::begun;

/// Appends that may wait for the disk together.
const IN_FLIGHT_MAX: usize = 1_024;
/// Bytes of lines that may wait for the disk together, beyond the first.
const IN_FLIGHT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a server may be away before an import gives up.
const PATIENCE: Duration = Duration::from_mins(2);

const EXAMPLES: &str = "Examples:
  quipu import --log ./log events.ndjson.gz
  quipu import --server localhost:7440 events.ndjson.gz
  zcat events.ndjson.gz | quipu import --log ./log -";

/// What to import, and where.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Lines as `export` writes them, plain, gzip or zstd; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Ignore the lines' versions: number the events as they come.
    #[arg(long)]
    renumber: bool,
}

/// Imports.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let mut lines = Lines::open(&args.file)?;
    let store = args.store.open_patiently(PATIENCE)?;
    let mut import = Import::new(store.events(), &lines, args.renumber);
    let end = import.read(&mut lines);
    let drained = import.finish_waiting();
    let Import { tally, progress, .. } = import;
    drop(progress);
    tally.print(out)?;
    end.and(drained)?;
    if tally.refused > 0 {
        let refused = plural(tally.refused, "line");
        let others = match tally.lines - tally.refused {
            0 => "there was no other",
            _ => "the others are stored",
        };
        return Err(Failure::No(format!("{refused} refused; {others}")));
    }
    Ok(())
}

#[derive(Default, Serialize)]
struct Tally {
    lines: u64,
    new: u64,
    already_present: u64,
    refused: u64,
}

impl Tally {
    fn print(&self, out: &mut Output) -> Result<(), Failure> {
        if out.is_json() {
            return out.object(self);
        }
        let lines = plural(self.lines, "line");
        let [new, already_present, refused] =
            [self.new, self.already_present, self.refused].map(count);
        if self.lines == 0 {
            return out.line("0 lines: there is nothing to import");
        }
        if self.already_present == self.lines {
            return out.line(format_args!("{lines}: nothing was new, all are already present"));
        }
        out.line(format_args!(
            "{lines}: {new} new, {already_present} already present, {refused} refused"
        ))
    }
}

enum LineOutcome {
    Stored(AppendOutcome),
    Refused(String),
    /// The log takes no more appends.
    Stopped(AppendError),
}

struct Answer {
    line: u64,
    bytes: usize,
    outcome: LineOutcome,
}

struct Import<'a> {
    log: &'a dyn EventStore,
    name: String,
    renumber: bool,
    in_flight: FuturesOrdered<BoxFuture<'a, Answer>>,
    in_flight_bytes: usize,
    tally: Tally,
    progress: Progress,
}

impl<'a> Import<'a> {
    fn new(log: &'a dyn EventStore, lines: &Lines, renumber: bool) -> Self {
        Self {
            log,
            name: lines.name().to_owned(),
            renumber,
            in_flight: FuturesOrdered::new(),
            in_flight_bytes: 0,
            tally: Tally::default(),
            progress: Progress::new(lines.bytes_total(), Unit::Bytes),
        }
    }

    fn read(&mut self, lines: &mut Lines) -> Result<(), Failure> {
        while let Some(line) = lines.next()? {
            self.submit(&line);
            while let Some(Some(answer)) = self.in_flight.next().now_or_never() {
                self.take(answer)?;
            }
            while self.in_flight.len() >= IN_FLIGHT_MAX
                || (self.in_flight_bytes > IN_FLIGHT_BYTES_MAX && self.in_flight.len() > 1)
            {
                self.wait()?;
            }
            self.progress.done(lines.bytes_read());
        }
        Ok(())
    }

    /// Waits for all that are in flight, also after the first that was stopped.
    fn finish_waiting(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while !self.in_flight.is_empty() {
            result = result.and(self.wait());
        }
        result
    }

    fn submit(&mut self, line: &Line<'_>) {
        let number = line.number;
        let bytes = line.bytes.map_or(0, <[u8]>::len);
        let answer = move |outcome| Answer { line: number, bytes, outcome };
        let future = match self.parse(line) {
            Ok(append) => begun(self.log.append(append).map(LineOutcome::from).map(answer).boxed()),
            Err(reason) => ready(answer(LineOutcome::Refused(reason))).boxed(),
        };
        self.in_flight.push_back(future);
        self.in_flight_bytes += bytes;
    }

    fn parse(&self, line: &Line<'_>) -> Result<Append, String> {
        let bytes = line.bytes.ok_or_else(|| format!("longer than {LINE_BYTES_MAX} bytes"))?;
        let parsed = json::parse_line(bytes).map_err(|error| error.to_string())?;
        let expected = match parsed.version {
            Some(Version(version)) if !self.renumber => {
                ExpectedVersion::Exact(Version(version - 1))
            }
            _ => ExpectedVersion::Any,
        };
        Ok(Append::one(parsed.event, expected))
    }

    fn wait(&mut self) -> Result<(), Failure> {
        block_on(self.in_flight.next()).map_or(Ok(()), |answer| self.take(answer))
    }

    fn take(&mut self, answer: Answer) -> Result<(), Failure> {
        self.in_flight_bytes -= answer.bytes;
        self.tally.lines += u64::from(!matches!(answer.outcome, LineOutcome::Stopped(_)));
        match answer.outcome {
            LineOutcome::Stored(outcome) if outcome.duplicate => self.tally.already_present += 1,
            LineOutcome::Stored(_) => self.tally.new += 1,
            LineOutcome::Refused(reason) => {
                self.tally.refused += 1;
                self.progress.note(format_args!("{}:{}: {reason}", self.name, answer.line));
            }
            LineOutcome::Stopped(error) => {
                let place = format!("{}:{}", self.name, answer.line);
                let hint = "run it again: what is stored is not stored twice";
                return Err(Failure::Unreachable(format!("stopped at {place}: {error}; {hint}")));
            }
        }
        Ok(())
    }
}

impl From<Result<AppendOutcome, AppendError>> for LineOutcome {
    fn from(result: Result<AppendOutcome, AppendError>) -> Self {
        match result {
            Ok(outcome) => Self::Stored(outcome),
            Err(
                error @ (AppendError::Invalid(_)
                | AppendError::Conflict(_)
                | AppendError::IdConflict { .. }
                | AppendError::Read(ReadError::Corruption(_))),
            ) => Self::Refused(error.to_string()),
            Err(error) => Self::Stopped(error),
        }
    }
}
