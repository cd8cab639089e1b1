//! `quipu append`: one event from the command line, or the lines of a file as one atomic append.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::executor::block_on;
use quipu_client::{
    AggregateKey, Append, AppendError, AppendOutcome, ExpectedVersion, NewEvent, Uuid, Version,
    json,
    limits::{APPEND_BYTES_HARD_MAX, APPEND_EVENTS_HARD_MAX},
};
use serde_json::json;

use crate::failure::Failure;
use crate::files::{LINE_BYTES_MAX, Line, Lines};
use crate::output::Output;
use crate::store_args::{Store, StoreArgs};

const EXAMPLES: &str = "Examples:
  quipu append --log ./log Call 42 --event-type Created --data '{\"from\":\"+41 44\"}'
  quipu append --server localhost:7440 Call 42 --event-type Ended --expected 1
  quipu append --log ./log --file events.ndjson";

/// What to append, and where.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The aggregate's type, such as Call.
    #[arg(value_name = "TYPE", required_unless_present = "file", requires = "aggregate_id")]
    aggregate_type: Option<String>,
    /// The aggregate's id.
    #[arg(value_name = "ID")]
    aggregate_id: Option<String>,
    /// What happened, such as Created.
    #[arg(long, value_name = "T", required_unless_present = "file")]
    event_type: Option<String>,
    /// What the aggregate must be at: any, none (never written), exists, or its last version.
    #[arg(long, value_name = "any|none|exists|N", default_value = "any", value_parser = expected)]
    expected: ExpectedVersion,
    /// The event's JSON; `-` reads it from standard input.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    data: String,
    /// The event's id, a UUID; submitting it again is safe. Default: a new one.
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// The business transaction it belongs to.
    #[arg(long, value_name = "C")]
    correlation: Option<String>,
    /// The event or command that caused it.
    #[arg(long, value_name = "C")]
    causation: Option<String>,
    /// Append all lines of this file (as `export` writes them) or none; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "aggregate_type", "event_type", "expected", "data", "id", "correlation", "causation",
    ])]
    file: Option<PathBuf>,
}

/// Appends.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let store;
    let append = if let Some(path) = &args.file {
        let append = read_append(path)?;
        store = args.store.open()?;
        append
    } else {
        let data = data(&args.data)?;
        store = args.store.open()?;
        Append::one(event(args, &store, data), args.expected)
    };
    let ids: Vec<_> = append.events.iter().map(|event| event.event_id).collect();
    match (block_on(store.events().append(append)), &args.file) {
        (Ok(outcome), _) => report(out, &outcome, &ids),
        // What stands in a file is data, not usage.
        (Err(AppendError::Invalid(invalid)), Some(path)) => {
            Err(Failure::No(format!("{}: {invalid}; nothing was stored", path.display())))
        }
        (Err(error), _) => Err(error.into()),
    }
}

fn event(args: &Args, store: &Store, data: Vec<u8>) -> NewEvent {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let key = AggregateKey::new(text(&args.aggregate_type), text(&args.aggregate_id));
    let mut event = store.new_event(key, text(&args.event_type), data);
    event.event_id = args.id.unwrap_or(event.event_id);
    event.metadata.correlation_id = text(&args.correlation);
    event.metadata.causation_id = text(&args.causation);
    event
}

fn data(given: &str) -> Result<Vec<u8>, Failure> {
    if given != "-" {
        return Ok(given.into());
    }
    let mut data = Vec::new();
    let stdin = std::io::stdin().lock();
    std::io::Read::read_to_end(&mut std::io::Read::take(stdin, LINE_BYTES_MAX as u64), &mut data)
        .map_err(|error| Failure::Unreachable(format!("cannot read standard input: {error}")))?;
    Ok(data.trim_ascii().into())
}

fn expected(given: &str) -> Result<ExpectedVersion, String> {
    match given {
        "any" => Ok(ExpectedVersion::Any),
        "none" => Ok(ExpectedVersion::NoStream),
        "exists" => Ok(ExpectedVersion::StreamExists),
        number => match number.parse() {
            Ok(number) => Ok(ExpectedVersion::Exact(Version(number))),
            Err(_) => Err("expected any, none, exists, or a version (a whole number)".to_owned()),
        },
    }
}

/// All lines as one append; their versions become what is expected of their aggregates.
fn read_append(path: &Path) -> Result<Append, Failure> {
    let mut lines = Lines::open(path)?;
    let name = lines.name().to_owned();
    let mut append = Append::default();
    let mut versions = BTreeMap::new();
    let mut bytes = 0;
    while let Some(line) = lines.next()? {
        let number = line.number;
        let refused = |reason: String| Failure::No(format!("{name}:{number}: {reason}"));
        let line = parse(&line).map_err(refused)?;
        let key = line.event.aggregate.clone();
        if let Some(reason) = number_line(&mut versions, &mut append, key, line.version) {
            return Err(refused(reason));
        }
        bytes += line.event.payload.len();
        append.events.push(line.event);
        // A log may have lower limits, which it tells itself; none has higher ones.
        if append.events.len() > APPEND_EVENTS_HARD_MAX || bytes > APPEND_BYTES_HARD_MAX {
            return Err(refused(format!(
                "one append holds at most {APPEND_EVENTS_HARD_MAX} events and \
                 {APPEND_BYTES_HARD_MAX} bytes; nothing was stored (import takes more)"
            )));
        }
    }
    Ok(append)
}

fn parse(line: &Line<'_>) -> Result<json::EventLine, String> {
    let bytes = line.bytes.ok_or_else(|| format!("longer than {LINE_BYTES_MAX} bytes"))?;
    json::parse_line(bytes).map_err(|error| error.to_string())
}

/// Notes the line's version; says what is wrong if it does not follow its aggregate's last line.
fn number_line(
    versions: &mut BTreeMap<AggregateKey, Option<Version>>,
    append: &mut Append,
    key: AggregateKey,
    version: Option<Version>,
) -> Option<String> {
    let Some(last) = versions.get_mut(&key) else {
        if let Some(Version(version)) = version {
            let before = ExpectedVersion::Exact(Version(version - 1));
            append.expectations.push((key.clone(), before));
        }
        versions.insert(key, version);
        return None;
    };
    let next = last.map(Version::next);
    if version.is_some() && version != next {
        let given = version.unwrap_or_default();
        return Some(match next {
            Some(next) => format!("{key} has version {given} here: {next} would be next"),
            None => format!("{key} has version {given} here and none in an earlier line"),
        });
    }
    *last = next;
    None
}

fn report(out: &mut Output, outcome: &AppendOutcome, ids: &[Uuid]) -> Result<(), Failure> {
    if out.is_json() {
        let versions = outcome.versions.iter().map(|(key, version)| {
            json!({
                "aggregate_type": key.aggregate_type,
                "aggregate_id": key.aggregate_id,
                "version": version,
            })
        });
        return out.object(&json!({
            "duplicate": outcome.duplicate,
            "ids": ids.iter().map(Uuid::to_string).collect::<Vec<_>>(),
            "positions": outcome.positions,
            "versions": versions.collect::<Vec<_>>(),
        }));
    }
    let verb = if outcome.duplicate { "already stored" } else { "stored" };
    for (id, position) in ids.iter().zip(&outcome.positions) {
        out.line(format_args!("{verb} at position {position}, id {id}"))?;
    }
    for (key, version) in &outcome.versions {
        out.line(format_args!("{key} is at version {version}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_words_or_a_version() {
        assert_eq!(expected("any"), Ok(ExpectedVersion::Any));
        assert_eq!(expected("none"), Ok(ExpectedVersion::NoStream));
        assert_eq!(expected("exists"), Ok(ExpectedVersion::StreamExists));
        assert_eq!(expected("7"), Ok(ExpectedVersion::Exact(Version(7))));
        for wrong in ["", "-1", "1.5", "None", "last"] {
            assert!(expected(wrong).is_err(), "{wrong}");
        }
    }
}
