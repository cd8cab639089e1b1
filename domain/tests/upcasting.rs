//! Older JSON is brought forward, one schema version at a time.
//!
//! No event of the catalogue has a second schema version yet, so the mechanism is shown on an event
//! of these tests that has had three. Its older JSON stays here as it was written.

use quipu_client::testing::stored;
use quipu_client::{
    AggregateKey, DecodeProblem, EventType, NewEvent, Position, Record, Timestamp, Upcaster, Uuid,
    Version, decode_event, encode_event,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Version 1 had `seconds` as a float; version 2 had integer `nanoseconds`; version 3 says who
/// hung up, which nobody knew before.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineClosed {
    nanoseconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_by: Option<String>,
}

impl EventType for LineClosed {
    const NAME: &'static str = "LineClosed";
    const AGGREGATE_TYPE: &'static str = "Line";
    const UPCASTERS: &'static [Upcaster] = &[seconds_to_nanoseconds, without_closed_by];
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be in range just before"
)]
fn seconds_to_nanoseconds(fields: &mut Map<String, Value>) -> Result<(), String> {
    let seconds = fields.remove("seconds").as_ref().and_then(Value::as_f64);
    let seconds = seconds.ok_or("`seconds` is no number")?;
    if !(0.0..1e9).contains(&seconds) {
        return Err(format!("{seconds} seconds are no length of a call"));
    }
    fields.insert("nanoseconds".to_owned(), ((seconds * 1e9).round() as u64).into());
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "an upcaster may fail, this one need not")]
fn without_closed_by(_: &mut Map<String, Value>) -> Result<(), String> {
    Ok(())
}

fn record(schema_version: u16, json: &str) -> Record {
    let (id, key) = (Uuid::from_u128(1), AggregateKey::new("Line", "1"));
    let mut event = NewEvent::json(id, key, "LineClosed", Timestamp::from_micros(0), json);
    event.schema_version = schema_version;
    stored(&event, Position(9), Version(1))
}

fn read(schema_version: u16, json: &str) -> Result<LineClosed, DecodeProblem> {
    decode_event(&record(schema_version, json)).map_err(|error| error.problem)
}

#[test]
fn every_older_version_is_read() {
    let closed = |closed_by| LineClosed { nanoseconds: 61_500_000_000, closed_by };
    assert_eq!(read(1, r#"{"seconds":61.5}"#), Ok(closed(None)));
    assert_eq!(read(2, r#"{"nanoseconds":61500000000}"#), Ok(closed(None)));
    let newest = r#"{"nanoseconds":61500000000,"closed_by":"agent"}"#;
    assert_eq!(read(3, newest), Ok(closed(Some("agent".to_owned()))));
}

#[test]
fn the_newest_version_is_written() {
    let closed = LineClosed { nanoseconds: 5, closed_by: None };
    let encoded = encode_event(&closed).unwrap();
    assert_eq!(encoded.schema_version, 3);
    assert_eq!(encoded.payload, br#"{"nanoseconds":5}"#);
}

#[test]
fn each_version_is_read_as_what_it_is() {
    assert!(matches!(read(4, "{}"), Err(DecodeProblem::NewerSchema { given: 4, known: 3 })));
    let as_another = read(2, r#"{"seconds":61.5}"#);
    assert!(matches!(as_another, Err(DecodeProblem::Unfit { schema_version: 2, .. })));
    assert!(matches!(read(1, "[]"), Err(DecodeProblem::Unfit { schema_version: 1, .. })));
}

#[test]
fn what_an_upcaster_cannot_bring_forward_is_named() {
    for json in [r#"{"seconds":"long"}"#, r#"{"seconds":-1}"#] {
        match read(1, json) {
            Err(DecodeProblem::NotUpcast { from: 1, problem }) => {
                assert!(problem.contains("seconds"), "{problem}");
            }
            other => panic!("{other:?}"),
        }
    }
}
