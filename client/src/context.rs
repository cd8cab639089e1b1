//! Who and what caused the events of one command, gathered once and given to all of them.

use std::net::IpAddr;

use quipu_types::event::JSON_CONTENT_TYPE;
use quipu_types::{AggregateKey, Metadata, NewEvent, Record, Timestamp, Uuid};
use serde_json::{Map, Value};

use crate::codec_error::EncodeError;
use crate::event_type::EncodedEvent;
use crate::stamps::Stamp;
use crate::traceparent::Traceparent;

/// The metadata that all events of one command share.
///
/// ```
/// use quipu_client::{EventContext, Uuid};
///
/// let context = EventContext::new()
///     .by_user(Uuid::from_u128(7))
///     .correlated("order-1")
///     .from_ip([192, 0, 2, 1].into())
///     .custom("tenant", "north");
/// assert_eq!(context.metadata()?.correlation_id, "order-1");
/// # Ok::<(), quipu_client::EncodeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventContext {
    user_id: Option<Uuid>,
    correlation_id: String,
    causation_id: String,
    ip_address: Option<IpAddr>,
    user_agent: String,
    traceparent: Option<Traceparent>,
    custom: Map<String, Value>,
    happened_at: Option<Timestamp>,
}

impl EventContext {
    /// Nothing known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The context of what is raised while `cause` is handled: its id is the causation, and its
    /// correlation goes on. A cause without a correlation begins one, under its own id.
    #[must_use]
    pub fn caused_by(cause: &Record) -> Self {
        let event_id = cause.event_id().to_string();
        let correlation_id = match cause.correlation_id() {
            "" => event_id.clone(),
            correlation_id => correlation_id.to_owned(),
        };
        Self { correlation_id, causation_id: event_id, ..Self::default() }
    }

    /// The user who acted.
    #[must_use]
    pub fn by_user(self, user_id: Uuid) -> Self {
        Self { user_id: Some(user_id), ..self }
    }

    /// What ties all events of one business transaction together.
    #[must_use]
    pub fn correlated(self, correlation_id: impl Into<String>) -> Self {
        Self { correlation_id: correlation_id.into(), ..self }
    }

    /// The command that is carried out; where it is an event, see [`Self::caused_by`].
    #[must_use]
    pub fn caused_by_command(self, causation_id: impl Into<String>) -> Self {
        Self { causation_id: causation_id.into(), ..self }
    }

    /// Where the request came from.
    #[must_use]
    pub fn from_ip(self, ip_address: IpAddr) -> Self {
        Self { ip_address: Some(ip_address), ..self }
    }

    /// The program that sent the request.
    #[must_use]
    pub fn user_agent(self, user_agent: impl Into<String>) -> Self {
        Self { user_agent: user_agent.into(), ..self }
    }

    /// The trace it belongs to.
    #[must_use]
    pub fn traceparent(self, traceparent: Traceparent) -> Self {
        Self { traceparent: Some(traceparent), ..self }
    }

    /// One entry of the custom map; a later one of the same name replaces it.
    #[must_use]
    pub fn custom(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.custom.insert(name.into(), value.into());
        self
    }

    /// When it happened, where that is not now.
    #[must_use]
    pub fn happened_at(self, timestamp: Timestamp) -> Self {
        Self { happened_at: Some(timestamp), ..self }
    }

    /// The metadata as the log stores it. Lengths are checked when an event is appended.
    ///
    /// # Errors
    /// That the user is nil, or the custom map has no JSON.
    pub fn metadata(&self) -> Result<Metadata, EncodeError> {
        if self.user_id.is_some_and(|id| id.is_nil()) {
            return Err(EncodeError::NilUser);
        }
        Ok(Metadata {
            user_id: self.user_id,
            correlation_id: self.correlation_id.clone(),
            causation_id: self.causation_id.clone(),
            ip_address: self.ip_address.map(|ip| ip.to_string()).unwrap_or_default(),
            user_agent: self.user_agent.clone(),
            traceparent: self.traceparent.as_ref().map(ToString::to_string).unwrap_or_default(),
            custom: self.custom_bytes()?,
        })
    }

    /// The event that is to be appended.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub fn new_event(
        &self,
        aggregate: AggregateKey,
        event: EncodedEvent,
        stamp: Stamp,
    ) -> Result<NewEvent, EncodeError> {
        Ok(NewEvent {
            event_id: stamp.event_id,
            aggregate,
            event_type: event.event_type.into_owned(),
            timestamp: self.happened_at.unwrap_or(stamp.timestamp),
            schema_version: event.schema_version,
            metadata: self.metadata()?,
            content_type: JSON_CONTENT_TYPE.to_owned(),
            payload: event.payload,
        })
    }

    fn custom_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        if self.custom.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::to_vec(&self.custom)
            .map_err(|error| EncodeError::Custom { problem: error.to_string() })
    }
}
