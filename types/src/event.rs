//! An event as a host submits it.

use uuid::Uuid;

use crate::aggregate::{AggregateKey, CLIENT_SYSTEM_TYPES, is_system_type};
use crate::error::Invalid;
use crate::limits::{
    AGGREGATE_ID_BYTES_MAX, CONTENT_TYPE_BYTES_MAX, CORRELATION_BYTES_MAX, CUSTOM_BYTES_MAX,
    Limits, SHORT_TEXT_BYTES_MAX, TYPE_BYTES_MAX, USER_AGENT_BYTES_MAX,
};
use crate::record::EventBody;
use crate::timestamp::Timestamp;

/// The content type of an event that names none.
pub const JSON_CONTENT_TYPE: &str = "application/json";

/// Who and what caused an event. Empty text and `None` mean absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The user who acted.
    pub user_id: Option<Uuid>,
    /// Ties together all events of one business transaction. At most 255 bytes.
    pub correlation_id: String,
    /// The event or command that caused this one. At most 255 bytes.
    pub causation_id: String,
    /// Where the request came from. At most 64 bytes.
    pub ip_address: String,
    /// The program that sent the request. At most 1,024 bytes.
    pub user_agent: String,
    /// W3C trace context. At most 64 bytes.
    pub traceparent: String,
    /// A JSON object, kept byte for byte. At most 64 KiB; empty means absent.
    pub custom: Vec<u8>,
}

/// An event as submitted: plain data, checked when the append is prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Unique for the life of the log; nil is invalid. v7 is the cheapest to look up.
    pub event_id: Uuid,
    /// The aggregate it belongs to.
    pub aggregate: AggregateKey,
    /// What happened, such as `CallCompleted`.
    pub event_type: String,
    /// When it happened, by the host's clock.
    pub timestamp: Timestamp,
    /// Version of the payload's schema. Default 1.
    pub schema_version: u16,
    /// Who and what caused it.
    pub metadata: Metadata,
    /// MIME type of the payload.
    pub content_type: String,
    /// The payload. Checked to be JSON when the content type is `application/json`, then kept
    /// byte for byte.
    pub payload: Vec<u8>,
}

impl NewEvent {
    /// A JSON event with schema version 1 and no metadata.
    pub fn json(
        event_id: Uuid,
        aggregate: AggregateKey,
        event_type: impl Into<String>,
        timestamp: Timestamp,
        payload: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            event_id,
            aggregate,
            event_type: event_type.into(),
            timestamp,
            schema_version: 1,
            metadata: Metadata::default(),
            content_type: JSON_CONTENT_TYPE.to_owned(),
            payload: payload.into(),
        }
    }

    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is not valid, with the limit and what was given.
    pub fn check(&self, limits: &Limits) -> Result<(), Invalid> {
        EventBody::from(self).check(limits)
    }
}

impl EventBody<'_> {
    /// Checks every field against its limit; `$` types pass, see [`check_client_type`].
    ///
    /// # Errors
    /// The first field that is not valid, with the limit and what was given.
    pub fn check(&self, limits: &Limits) -> Result<(), Invalid> {
        if self.event_id == [0; 16] {
            return Err(Invalid::NilEventId);
        }
        check_parts(self.aggregate_type, self.aggregate_id)?;
        check_name("event_type", self.event_type, TYPE_BYTES_MAX)?;
        check_name("content_type", self.content_type, CONTENT_TYPE_BYTES_MAX)?;
        let timestamp = Timestamp::from_micros(self.timestamp_us);
        if !timestamp.is_spellable() {
            return Err(Invalid::Timestamp { micros: timestamp.as_micros() });
        }
        self.check_metadata()?;
        let bytes = self.payload.len() + self.custom.len();
        if bytes > limits.event_bytes_max {
            return Err(Invalid::EventTooLarge { limit: limits.event_bytes_max, given: bytes });
        }
        if self.content_type == JSON_CONTENT_TYPE {
            check_json("data", self.payload)?;
        }
        Ok(())
    }

    fn check_metadata(&self) -> Result<(), Invalid> {
        check_text("correlation_id", self.correlation_id, CORRELATION_BYTES_MAX)?;
        check_text("causation_id", self.causation_id, CORRELATION_BYTES_MAX)?;
        check_text("ip_address", self.ip_address, SHORT_TEXT_BYTES_MAX)?;
        check_text("user_agent", self.user_agent, USER_AGENT_BYTES_MAX)?;
        check_text("traceparent", self.traceparent, SHORT_TEXT_BYTES_MAX)?;
        if self.custom.is_empty() {
            return Ok(());
        }
        if self.custom.len() > CUSTOM_BYTES_MAX {
            let given = self.custom.len();
            return Err(Invalid::TooLong { field: "custom", limit: CUSTOM_BYTES_MAX, given });
        }
        check_json("custom", self.custom)?;
        if self.custom.trim_ascii_start().first() != Some(&b'{') {
            return Err(Invalid::NotAnObject { field: "custom" });
        }
        Ok(())
    }
}

/// Checks an aggregate key's two parts; `$` types pass, see [`check_client_type`].
pub fn check_key(key: &AggregateKey) -> Result<(), Invalid> {
    check_parts(&key.aggregate_type, &key.aggregate_id)
}

fn check_parts(aggregate_type: &str, aggregate_id: &str) -> Result<(), Invalid> {
    check_name("aggregate_type", aggregate_type, TYPE_BYTES_MAX)?;
    check_name("aggregate_id", aggregate_id, AGGREGATE_ID_BYTES_MAX)
}

/// Checks that a client may write to aggregates of this type.
pub fn check_client_type(aggregate_type: &str) -> Result<(), Invalid> {
    if is_system_type(aggregate_type) {
        return Err(Invalid::SystemType { given: aggregate_type.to_owned() });
    }
    Ok(())
}

/// Checks that a client's system append may write to aggregates of this type.
pub fn check_system_append_type(aggregate_type: &str) -> Result<(), Invalid> {
    if !CLIENT_SYSTEM_TYPES.contains(&aggregate_type) {
        return Err(Invalid::NotSystemType { given: aggregate_type.to_owned() });
    }
    Ok(())
}

fn check_name(field: &'static str, text: &str, limit: usize) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::Empty { field });
    }
    check_text(field, text, limit)
}

fn check_text(field: &'static str, text: &str, limit: usize) -> Result<(), Invalid> {
    if text.len() > limit {
        return Err(Invalid::TooLong { field, limit, given: text.len() });
    }
    // Nearly every text is plain ASCII: one pass that never branches settles it, many bytes a step.
    if text.bytes().fold(true, |plain, byte| plain & matches!(byte, 0x20..0x7f)) {
        return Ok(());
    }
    if let Some(at) = text.find(char::is_control) {
        let given = text[at..].chars().next().map_or(0, u32::from);
        return Err(Invalid::ControlCharacter { field, at, given });
    }
    Ok(())
}

fn check_json(field: &'static str, bytes: &[u8]) -> Result<(), Invalid> {
    // `RawValue` checks the text, UTF-8 too, without building it or recursing for each level of it.
    match serde_json::from_slice::<&serde_json::value::RawValue>(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(Invalid::NotJson { field, problem: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> NewEvent {
        let key = AggregateKey::new("Call", "42");
        NewEvent::json(Uuid::from_u128(1), key, "Created", Timestamp::from_micros(0), "{}")
    }

    fn refused(change: impl FnOnce(&mut NewEvent)) -> String {
        let mut event = event();
        change(&mut event);
        event.check(&Limits::default()).unwrap_err().to_string()
    }

    #[test]
    fn an_ordinary_event_passes() {
        assert_eq!(event().check(&Limits::default()), Ok(()));
    }

    #[test]
    fn each_fault_is_named_with_its_limit_and_what_was_given() {
        let long = refused(|event| event.aggregate.aggregate_id = "x".repeat(256));
        assert!(long.contains("aggregate_id") && long.contains("255") && long.contains("256"));
        let control = refused(|event| event.event_type = "a\u{1}".to_owned());
        assert!(control.contains("event_type") && control.contains("U+0001"), "{control}");
        assert!(refused(|event| event.event_id = Uuid::nil()).contains("nil"));
        assert!(refused(|event| event.event_type.clear()).contains("empty"));
        assert!(refused(|event| event.payload = b"{".to_vec()).contains("JSON"));
        assert!(refused(|event| event.payload = b"{} x".to_vec()).contains("JSON"));
        assert!(refused(|event| event.metadata.custom = b"[1]".to_vec()).contains("object"));
        let large = refused(|event| event.payload = vec![b' '; 1024 * 1024 + 1]);
        assert!(large.contains("1048576") && large.contains("1048577"), "{large}");
    }

    #[test]
    fn a_payload_that_is_not_json_is_opaque() {
        let mut event = event();
        event.content_type = "application/octet-stream".to_owned();
        event.payload = vec![0xff, 0];
        assert_eq!(event.check(&Limits::default()), Ok(()));
    }
}
