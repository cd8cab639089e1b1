//! `quipu segments`: the files a log is made of.

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use futures::executor::block_on;
use quipu_client::{Embedded, EventStore, Filter, ReadRequest, Record, SegmentInfo, Timestamp};
use serde_json::json;

use crate::failure::Failure;
use crate::log_args::{LogArgs, status_of};
use crate::output::Output;
use crate::table::{Column, Table, write_facts};
use crate::units;

/// What to do with the segments.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  quipu segments list --log ./log")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List all segments.
    #[command(after_help = "Example:\n  quipu segments list --log ./log")]
    List {
        #[command(flatten)]
        log: LogArgs,
    },
    /// Read one segment and say what it holds.
    #[command(after_help = "Example:\n  quipu segments inspect 1 --log ./log")]
    Inspect {
        #[command(flatten)]
        log: LogArgs,
        /// The segment's number or file name.
        #[arg(value_name = "SEG")]
        segment: String,
    },
}

/// Does it.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    match &args.action {
        Action::List { log } => list(&status_of(&log.open_to_read()?)?.segments, out),
        Action::Inspect { log, segment } => inspect(&log.open_to_read()?, segment, out),
    }
}

fn list(segments: &[SegmentInfo], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return segments.iter().try_for_each(|segment| out.object(&info_json(segment)));
    }
    let mut table = Table::new([
        Column::Number("SEGMENT"),
        Column::Text("STATE"),
        Column::Number("FIRST"),
        Column::Number("LAST"),
        Column::Number("SIZE"),
        Column::Text("INDEX"),
        Column::Text("CREATED"),
        Column::Text("FILE"),
    ]);
    let rows: Vec<_> = segments.iter().map(row).collect();
    table.write(out, &rows)
}

fn row(segment: &SegmentInfo) -> [String; 8] {
    let is_empty = segment.last_position < segment.first_position;
    [
        segment.number.to_string(),
        if segment.active { "active" } else { "sealed" }.to_owned(),
        segment.first_position.to_string(),
        if is_empty { "-".to_owned() } else { segment.last_position.to_string() },
        units::bytes(segment.bytes),
        if segment.indexed { "yes" } else { "no" }.to_owned(),
        segment.created_at.to_string(),
        segment.name.clone(),
    ]
}

fn info_json(segment: &SegmentInfo) -> serde_json::Value {
    json!({
        "segment": segment.number,
        "file": segment.name,
        "active": segment.active,
        "first_position": segment.first_position,
        "last_position": segment.last_position,
        "bytes": segment.bytes,
        "indexed": segment.indexed,
        "created_at": segment.created_at,
        "epoch": segment.epoch,
    })
}

fn inspect(log: &Embedded, wanted: &str, out: &mut Output) -> Result<(), Failure> {
    let segments = status_of(log)?.segments;
    let is_wanted =
        |segment: &&SegmentInfo| segment.name == wanted || wanted.parse() == Ok(segment.number);
    let Some(segment) = segments.iter().find(is_wanted) else {
        let count = segments.len();
        return Err(Failure::Usage(format!("no segment {wanted:?}: the log has {count} segments")));
    };
    let contents = read_contents(log, segment)?;
    if out.is_json() {
        let mut object = info_json(segment);
        object["contents"] = contents.to_json();
        return out.object(&object);
    }
    let [number, state, first, last, size, index, created, file] = row(segment);
    let facts = [
        ("segment", number),
        ("file", file),
        ("state", state),
        ("positions", format!("{first} to {last}")),
        ("size", size),
        ("index", index),
        ("created", created),
    ];
    write_facts(out, facts.into_iter().chain(contents.facts()))?;
    out.line("")?;
    let rows = contents.by_type.iter().map(|((aggregate, event), count)| {
        [units::count(*count), aggregate.clone(), event.clone()]
    });
    Table::new([Column::Number("EVENTS"), Column::Text("AGGREGATE"), Column::Text("EVENT")])
        .write(out, &rows.collect::<Vec<_>>())
}

/// What a segment's records add up to.
#[derive(Default)]
struct Contents {
    events: u64,
    payload_bytes: u64,
    aggregates: BTreeSet<(String, String)>,
    by_type: BTreeMap<(String, String), u64>,
    recorded: Option<(Timestamp, Timestamp)>,
}

fn read_contents(log: &Embedded, segment: &SegmentInfo) -> Result<Contents, Failure> {
    let mut contents = Contents::default();
    let mut records = log.read(ReadRequest {
        filter: Filter { include_system: true, ..Filter::default() },
        from: Some(segment.first_position.0),
        limit: Some((segment.last_position.0 + 1).saturating_sub(segment.first_position.0)),
        ..ReadRequest::default()
    });
    loop {
        let batch = block_on(records.next_batch())?;
        if batch.is_empty() {
            return Ok(contents);
        }
        for record in &batch {
            contents.add(record);
        }
    }
}

impl Contents {
    fn add(&mut self, record: &Record) {
        let (kind, id) = (record.aggregate_type().to_owned(), record.aggregate_id().to_owned());
        self.events += 1;
        self.payload_bytes += record.payload().len() as u64;
        *self.by_type.entry((kind.clone(), record.event_type().to_owned())).or_default() += 1;
        self.aggregates.insert((kind, id));
        let at = record.recorded_at();
        self.recorded = Some((self.recorded.map_or(at, |(first, _)| first), at));
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("events", units::count(self.events)),
            ("payload", units::bytes(self.payload_bytes)),
            ("aggregates", units::count(self.aggregates.len() as u64)),
        ];
        if let Some((first, last)) = self.recorded {
            facts.push(("recorded", format!("{first} to {last}")));
        }
        facts
    }

    fn to_json(&self) -> serde_json::Value {
        let by_type = self.by_type.iter().map(|((aggregate_type, event_type), events)| {
            json!({
                "aggregate_type": aggregate_type,
                "event_type": event_type,
                "events": events,
            })
        });
        json!({
            "events": self.events,
            "payload_bytes": self.payload_bytes,
            "aggregates": self.aggregates.len(),
            "by_type": by_type.collect::<Vec<_>>(),
        })
    }
}
