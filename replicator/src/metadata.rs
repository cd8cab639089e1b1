//! An event's metadata as JSON, spelled as in an export.

use quipu_client::Record;

/// Writes the object; without the custom map where Postgres cannot hold it.
pub(crate) fn metadata_json(record: &Record, with_custom: bool, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(user_id) = record.user_id() {
        field("user_id", &user_id.hyphenated().to_string(), out);
    }
    field("correlation_id", record.correlation_id(), out);
    field("causation_id", record.causation_id(), out);
    let optional = [
        ("ip_address", record.ip_address()),
        ("user_agent", record.user_agent()),
        ("traceparent", record.traceparent()),
    ];
    for (name, text) in optional.into_iter().filter(|(_, text)| !text.is_empty()) {
        field(name, text, out);
    }
    if with_custom && !record.custom().is_empty() {
        out.extend_from_slice(b",\"custom\":");
        out.extend_from_slice(record.custom());
    }
    out.push(b'}');
}

fn field(name: &str, text: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    serde_json::to_writer(out, text).expect("a Vec takes every write");
}
