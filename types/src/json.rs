//! How an event is spelled in JSON, one line each: what `import` reads and `export` writes.
//!
//! `data` and `custom` are never interpreted: the bytes that stand in the line are the bytes that
//! are stored, and the stored bytes are the ones that are written. A line must stay one line, so a
//! JSON payload whose bytes a line cannot hold as they are (white space around it, or a line break
//! between two tokens) is written as `data_base64`, and line breaks in `custom`, which is no part
//! of an event's identity, become spaces.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::aggregate::AggregateKey;
use crate::event::{JSON_CONTENT_TYPE, Metadata, NewEvent};
use crate::record::Record;
use crate::timestamp::Timestamp;
use crate::version::Version;

/// An event as a line spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// The event; its fields are not yet checked against any limit, see [`NewEvent::check`].
    pub event: NewEvent,
    /// Its number within its aggregate, where the line names one.
    pub version: Option<Version>,
}

/// Why a line spells no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Bytes that are not text.
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Where, in bytes from the start of the line.
        at: usize,
    },
    /// The line is not one JSON object, or has fields that no event has.
    #[error("{problem}")]
    NotAnEvent {
        /// What the parser said.
        problem: String,
    },
    /// A field that every event has is not there.
    #[error("field `{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field's value cannot be used.
    #[error("field `{field}`: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

const LINE_FIELDS: [&str; 13] = [
    "id",
    "aggregate_id",
    "aggregate_type",
    "event_type",
    "timestamp",
    "version",
    "metadata",
    "data",
    "data_base64",
    "position",
    "recorded_at",
    "schema_version",
    "content_type",
];

const METADATA_FIELDS: [&str; 7] = [
    "user_id",
    "correlation_id",
    "causation_id",
    "ip_address",
    "user_agent",
    "traceparent",
    "custom",
];

type Value<'a> = Option<&'a RawValue>;

/// Reads the event that a line spells; `position` and `recorded_at` are accepted and ignored.
///
/// # Errors
/// What is wrong with the line's shape. Limits are not looked at.
pub fn parse_line(line: &[u8]) -> Result<EventLine, LineError> {
    let line = std::str::from_utf8(line)
        .map_err(|error| LineError::NotUtf8 { at: error.valid_up_to() })?;
    let [id, aggregate_id, aggregate_type, event_type, timestamp, version, metadata, rest @ ..] =
        object(LINE_FIELDS, line).map_err(|problem| LineError::NotAnEvent { problem })?;
    let [data, data_base64, _position, _recorded_at, schema_version, content_type] = rest;
    let content_type = match content_type {
        Some(_) => text("content_type", content_type)?,
        None => JSON_CONTENT_TYPE.to_owned(),
    };
    let event = NewEvent {
        event_id: uuid("id", required("id", id)?)?,
        aggregate: AggregateKey {
            aggregate_type: text("aggregate_type", aggregate_type)?,
            aggregate_id: text("aggregate_id", aggregate_id)?,
        },
        event_type: text("event_type", event_type)?,
        timestamp: parse::<Timestamp>("timestamp", required("timestamp", timestamp)?)?,
        schema_version: schema_version.map_or(Ok(1), parse_schema_version)?,
        metadata: metadata.map_or(Ok(Metadata::default()), parse_metadata)?,
        payload: payload(&content_type, data, data_base64)?,
        content_type,
    };
    Ok(EventLine { event, version: version.map(parse_version).transpose()? })
}

fn parse_metadata(raw: &RawValue) -> Result<Metadata, LineError> {
    let [user_id, correlation_id, causation_id, ip_address, user_agent, traceparent, custom] =
        object(METADATA_FIELDS, raw.get()).map_err(|problem| refused("metadata", problem))?;
    let optional = |field, raw: Value<'_>| match raw {
        Some(raw) => parse::<String>(field, raw),
        None => Ok(String::new()),
    };
    Ok(Metadata {
        user_id: user_id.map(parse_user_id).transpose()?,
        correlation_id: optional("correlation_id", correlation_id)?,
        causation_id: optional("causation_id", causation_id)?,
        ip_address: optional("ip_address", ip_address)?,
        user_agent: optional("user_agent", user_agent)?,
        traceparent: optional("traceparent", traceparent)?,
        custom: custom.map(|raw| raw.get().as_bytes().to_vec()).unwrap_or_default(),
    })
}

fn payload(
    content_type: &str,
    data: Value<'_>,
    data_base64: Value<'_>,
) -> Result<Vec<u8>, LineError> {
    match (data, data_base64) {
        (Some(data), None) if content_type == JSON_CONTENT_TYPE => Ok(data.get().as_bytes().into()),
        (Some(_), None) => {
            let problem = format!("content type {content_type:?} is not JSON: use `data_base64`");
            Err(refused("data", problem))
        }
        (None, Some(encoded)) => {
            let encoded = parse::<String>("data_base64", encoded)?;
            BASE64_STANDARD
                .decode(encoded)
                .map_err(|error| refused("data_base64", format!("not base64: {error}")))
        }
        (Some(_), Some(_)) => Err(refused("data_base64", "`data` is given as well".to_owned())),
        (None, None) if content_type == JSON_CONTENT_TYPE => {
            Err(LineError::Missing { field: "data" })
        }
        (None, None) => Err(LineError::Missing { field: "data_base64" }),
    }
}

fn parse_version(raw: &RawValue) -> Result<Version, LineError> {
    match raw.get().parse() {
        Ok(number) if number > 0 => Ok(Version(number)),
        _ => Err(refused("version", format!("{} is not a whole number from 1", shown(raw)))),
    }
}

fn parse_schema_version(raw: &RawValue) -> Result<u16, LineError> {
    raw.get().parse().map_err(|_| {
        let problem = format!("{} is not a whole number from 0 to {}", shown(raw), u16::MAX);
        refused("schema_version", problem)
    })
}

fn parse_user_id(raw: &RawValue) -> Result<Uuid, LineError> {
    let id = uuid("user_id", raw)?;
    if id.is_nil() {
        return Err(refused("user_id", "the nil UUID is nobody: leave the field out".to_owned()));
    }
    Ok(id)
}

fn uuid(field: &'static str, raw: &RawValue) -> Result<Uuid, LineError> {
    const HYPHENATED_BYTES: usize = 36;
    let text = parse::<String>(field, raw)?;
    match Uuid::try_parse(&text) {
        Ok(id) if text.len() == HYPHENATED_BYTES => Ok(id),
        _ => Err(refused(field, format!("{} is not a UUID with hyphens", shown(raw)))),
    }
}

fn text(field: &'static str, raw: Value<'_>) -> Result<String, LineError> {
    parse(field, required(field, raw)?)
}

fn required<'a>(field: &'static str, raw: Value<'a>) -> Result<&'a RawValue, LineError> {
    raw.ok_or(LineError::Missing { field })
}

fn parse<'a, T: serde::Deserialize<'a>>(
    field: &'static str,
    raw: &'a RawValue,
) -> Result<T, LineError> {
    serde_json::from_str(raw.get()).map_err(|error| refused(field, message(&error)))
}

fn refused(field: &'static str, problem: String) -> LineError {
    LineError::Field { field, problem }
}

/// The start of a value, for an error message.
fn shown(raw: &RawValue) -> Cow<'_, str> {
    const SHOWN_CHARACTERS_MAX: usize = 64;
    match raw.get().char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((cut, _)) => format!("{}…", &raw.get()[..cut]).into(),
        None => raw.get().into(),
    }
}

/// The values of an object that has only fields with these names, each at most once.
fn object<'a, const N: usize>(
    names: [&'static str; N],
    text: &'a str,
) -> Result<[Value<'a>; N], String> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let values = Fields(names).deserialize(&mut parser).map_err(|error| message(&error))?;
    parser.end().map_err(|error| message(&error))?;
    Ok(values)
}

struct Fields<const N: usize>([&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Fields<N> {
    type Value = [Value<'de>; N];

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Fields<N> {
    type Value = [Value<'de>; N];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let Some(at) = self.0.iter().position(|known| *known == name) else {
                return Err(A::Error::custom(format!("unknown field `{}`", name.escape_debug())));
            };
            if values[at].is_some() {
                return Err(A::Error::custom(format!("field `{name}` stands twice")));
            }
            values[at] = Some(map.next_value()?);
        }
        Ok(values)
    }
}

/// What the parser said; of the place only the column, as the text is one line or less.
fn message(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match said.strip_suffix(&place) {
        Some(problem) if error.line() == 1 && error.column() > 0 => {
            format!("{problem} (column {})", error.column())
        }
        Some(problem) => problem.to_owned(),
        None => said,
    }
}

/// Writes a record as one line, without the line break at its end.
pub fn write_record(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":\"");
    display(out, record.event_id());
    out.extend_from_slice(b"\",\"aggregate_id\":");
    quoted(out, record.aggregate_id());
    out.extend_from_slice(b",\"aggregate_type\":");
    quoted(out, record.aggregate_type());
    out.extend_from_slice(b",\"event_type\":");
    quoted(out, record.event_type());
    out.extend_from_slice(b",\"timestamp\":\"");
    display(out, record.timestamp());
    out.extend_from_slice(b"\",\"version\":");
    display(out, record.version());
    write_metadata(record, out);
    write_payload(record, out);
    out.extend_from_slice(b",\"position\":");
    display(out, record.position());
    out.extend_from_slice(b",\"recorded_at\":\"");
    display(out, record.recorded_at());
    out.extend_from_slice(b"\",\"schema_version\":");
    display(out, record.schema_version());
    if record.content_type() != JSON_CONTENT_TYPE {
        out.extend_from_slice(b",\"content_type\":");
        quoted(out, record.content_type());
    }
    out.push(b'}');
}

fn write_metadata(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"metadata\":{");
    if let Some(user_id) = record.user_id() {
        out.extend_from_slice(b"\"user_id\":\"");
        display(out, user_id);
        out.extend_from_slice(b"\",");
    }
    out.extend_from_slice(b"\"correlation_id\":");
    quoted(out, record.correlation_id());
    out.extend_from_slice(b",\"causation_id\":");
    quoted(out, record.causation_id());
    let optional = [
        ("ip_address", record.ip_address()),
        ("user_agent", record.user_agent()),
        ("traceparent", record.traceparent()),
    ];
    for (name, text) in optional.into_iter().filter(|(_, text)| !text.is_empty()) {
        out.push(b',');
        quoted(out, name);
        out.push(b':');
        quoted(out, text);
    }
    if !record.custom().is_empty() {
        out.extend_from_slice(b",\"custom\":");
        let start = out.len();
        out.extend_from_slice(record.custom());
        out[start..].iter_mut().filter(|byte| is_line_break(**byte)).for_each(|byte| *byte = b' ');
    }
    out.push(b'}');
}

fn write_payload(record: &Record, out: &mut Vec<u8>) {
    let payload = record.payload();
    if record.content_type() == JSON_CONTENT_TYPE && fits_in_a_line(payload) {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(payload);
    } else {
        out.extend_from_slice(b",\"data_base64\":\"");
        display(out, base64::display::Base64Display::new(payload, &BASE64_STANDARD));
        out.push(b'"');
    }
}

fn fits_in_a_line(json: &[u8]) -> bool {
    json.trim_ascii().len() == json.len() && !json.iter().copied().any(is_line_break)
}

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every write");
}

fn display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    use std::io::Write;
    write!(out, "{value}").expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rkyv::ser::allocator::Arena;

    use super::*;
    use crate::limits::Limits;
    use crate::position::Position;
    use crate::record::{self, EventBody, RecordBuffer};

    const LINE: &str = concat!(
        r#"{"id":"6513270E-269e-4d37-b2a7-4de452e6b438","aggregate_id":"42","#,
        r#""aggregate_type":"Call","event_type":"Created","#,
        r#""timestamp":"2026-01-02T03:04:05+01:00","version":3,"metadata":{},"#,
        r#""data":{"a" : 1.0,"a":12345678901234567890},"#,
        r#""position":9,"recorded_at":"2026-01-02T03:04:05Z"}"#,
    );

    fn stored(event: &NewEvent, version: Version) -> Record {
        let (body, mut arena) = (EventBody::from(event), Arena::new());
        let mut buffer = record::encode(RecordBuffer::new(), &body, &mut arena);
        record::stamp(&mut buffer, Position(7), version, Timestamp::from_micros(1_000_000));
        Record::parse(Bytes::from_owner(buffer)).unwrap()
    }

    fn written(event: &NewEvent) -> String {
        let mut line = Vec::new();
        write_record(&stored(event, Version(3)), &mut line);
        String::from_utf8(line).unwrap()
    }

    fn event() -> NewEvent {
        parse_line(LINE.as_bytes()).unwrap().event
    }

    fn refusal(from: &str, to: &str) -> String {
        let line = LINE.replacen(from, to, 1);
        assert_ne!(line, LINE, "{from} stands in the line");
        parse_line(line.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_line_gives_its_event_with_data_byte_for_byte() {
        let EventLine { event, version } = parse_line(LINE.as_bytes()).unwrap();
        assert_eq!(event.event_id.to_string(), "6513270e-269e-4d37-b2a7-4de452e6b438");
        assert_eq!(event.aggregate, AggregateKey::new("Call", "42"));
        assert_eq!(event.timestamp.to_string(), "2026-01-02T02:04:05Z");
        assert_eq!(event.payload, br#"{"a" : 1.0,"a":12345678901234567890}"#);
        assert_eq!((event.schema_version, event.content_type.as_str()), (1, JSON_CONTENT_TYPE));
        assert_eq!(version, Some(Version(3)));
    }

    #[test]
    fn a_record_is_written_in_the_order_of_the_contract() {
        let line = written(&event());
        let expected = concat!(
            r#"{"id":"6513270e-269e-4d37-b2a7-4de452e6b438","aggregate_id":"42","#,
            r#""aggregate_type":"Call","event_type":"Created","#,
            r#""timestamp":"2026-01-02T02:04:05Z","version":3,"#,
            r#""metadata":{"correlation_id":"","causation_id":""},"#,
            r#""data":{"a" : 1.0,"a":12345678901234567890},"#,
            r#""position":7,"recorded_at":"1970-01-01T00:00:01Z","schema_version":1}"#,
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn what_may_be_absent_may_be_absent() {
        let line = LINE.replace(r#""version":3,"metadata":{},"#, "");
        let parsed = parse_line(line.as_bytes()).unwrap();
        assert_eq!(parsed.version, None);
        assert_eq!(parsed.event, event());
    }

    #[test]
    fn null_is_a_payload_and_no_absent_option() {
        let line = LINE.replace(r#"{"a" : 1.0,"a":12345678901234567890}"#, "null");
        assert_eq!(parse_line(line.as_bytes()).unwrap().event.payload, b"null");
        let refusal = refusal(r#""metadata":{}"#, r#""metadata":{"user_agent":null}"#);
        assert!(refusal.contains("user_agent") && refusal.contains("null"), "{refusal}");
    }

    #[test]
    fn versions_are_whole_numbers_from_1() {
        for given in ["0", "-1", "1.5", "1.0", "1e3", "\"1\"", "99999999999999999999"] {
            let refusal = refusal("\"version\":3", &format!("\"version\":{given}"));
            assert!(refusal.contains("version") && refusal.contains(given), "{refusal}");
        }
    }

    #[test]
    fn each_fault_names_its_field() {
        let faults = [
            ("\"version\":3", "\"agregate_id\":\"typo\"", "agregate_id"),
            ("\"version\":3", "\"id\":\"42\"", "`id` stands twice"),
            ("\"event_type\":\"Created\",", "", "`event_type` is missing"),
            ("\"event_type\":\"Created\"", "\"event_type\":5", "event_type"),
            ("\"metadata\":{}", "\"metadata\":[]", "metadata"),
            ("\"metadata\":{}", "\"metadata\":{\"usr\":1}", "usr"),
            ("\"metadata\":{}", "\"metadata\":{\"user_id\":\"x\"}", "user_id"),
            ("02T03:04:05+01:00", "02T03:04:05", "timestamp"),
            ("6513270E-269e-4d37-b2a7-4de452e6b438", "6513270e269e4d37b2a74de452e6b438", "`id`"),
            ("\"version\":3", "\"schema_version\":65536", "schema_version"),
            ("\"version\":3", "\"data_base64\":\"\"", "data_base64"),
            ("\"version\":3", "\"content_type\":\"text/plain\"", "data_base64"),
            ("\"data\"", "\"content_type\":\"text/plain\",\"data_base64\"", "data_base64"),
            ("\"data\":{\"a\" : 1.0,\"a\":12345678901234567890},", "", "`data` is missing"),
        ];
        for (from, to, named) in faults {
            let refusal = refusal(from, to);
            assert!(refusal.contains(named), "{to}: {refusal}");
        }
    }

    #[test]
    fn a_line_that_is_no_object_is_refused() {
        for line in ["", "[1,2,3]", "{\"id\":", "7", "null", "{}", &format!("{LINE} x")] {
            assert!(parse_line(line.as_bytes()).is_err(), "{line}");
        }
        let mut line = LINE.as_bytes().to_vec();
        line[7] = 0xff;
        assert_eq!(parse_line(&line), Err(LineError::NotUtf8 { at: 7 }));
    }

    #[test]
    fn deep_nesting_is_kept_without_recursion() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let line = LINE.replace(r#"{"a" : 1.0,"a":12345678901234567890}"#, &deep);
        assert_eq!(parse_line(line.as_bytes()).unwrap().event.payload, deep.as_bytes());
    }

    #[test]
    fn json_that_a_line_cannot_hold_keeps_its_bytes_in_base64() {
        for payload in ["{\n  \"a\": 1\r\n}", " {}", "{} "] {
            let mut event = event();
            event.payload = payload.into();
            let line = written(&event);
            assert!(line.contains("data_base64") && !line.contains('\n'), "{line}");
            assert_eq!(parse_line(line.as_bytes()).unwrap().event, event);
        }
    }

    #[test]
    fn a_line_break_in_custom_becomes_a_space() {
        let mut event = event();
        event.metadata.custom = b"{\r\n\"a\":1}".to_vec();
        assert!(written(&event).contains(r#""custom":{  "a":1}"#));
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            "-?[1-9][0-9]{0,40}(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?",
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            Just(r#""\ud83d\ude00\/\u0000""#.to_owned()),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..4);
            let object = proptest::collection::vec(("[a-c]", "[ \n]?", inner), 0..4);
            prop_oneof![
                list.prop_map(|items| format!("[{}]", items.join(" , "))),
                object.prop_map(|fields| {
                    let fields = fields.iter().map(|(k, space, v)| format!("\"{k}\":{space}{v}"));
                    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    prop_compose! {
        fn metadata()(
            user_id in proptest::option::of(1u128..),
            texts in proptest::array::uniform5("\\PC{0,12}"),
            custom in proptest::option::of("\\PC{0,12}"),
        ) -> Metadata {
            let [correlation_id, causation_id, ip_address, user_agent, traceparent] = texts;
            let custom = custom.map(|text| serde_json::json!({ "k": text }).to_string());
            Metadata {
                user_id: user_id.map(Uuid::from_u128),
                correlation_id, causation_id, ip_address, user_agent, traceparent,
                custom: custom.unwrap_or_default().into_bytes(),
            }
        }
    }

    prop_compose! {
        fn events()(
            id in 1u128..,
            names in proptest::array::uniform3("\\PC{1,12}"),
            micros in -377_705_023_200_000_000i64..253_402_207_200_000_000,
            schema_version: u16,
            metadata in metadata(),
            (content_type, payload) in prop_oneof![
                json().prop_map(|json| (JSON_CONTENT_TYPE.to_owned(), json.into_bytes())),
                ("[a-z]{1,9}/[a-z]{1,9}", any::<Vec<u8>>()),
            ],
        ) -> NewEvent {
            let [aggregate_type, aggregate_id, event_type] = names;
            NewEvent {
                event_id: Uuid::from_u128(id),
                aggregate: AggregateKey { aggregate_type, aggregate_id },
                event_type,
                timestamp: Timestamp::from_micros(micros),
                schema_version, metadata, content_type, payload,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_equal(event in events(), version in 1u64..) {
            prop_assert_eq!(event.check(&Limits::default()), Ok(()));
            let mut line = Vec::new();
            write_record(&stored(&event, Version(version)), &mut line);
            prop_assert!(!line.contains(&b'\n'));
            let parsed = parse_line(&line).unwrap();
            prop_assert_eq!(parsed.event, event);
            prop_assert_eq!(parsed.version, Some(Version(version)));
        }

        #[test]
        fn any_bytes_are_an_event_or_an_error(line: Vec<u8>) {
            let _ = parse_line(&line);
        }
    }
}
