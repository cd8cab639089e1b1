//! Which part of the past is to be handled again.

use quipu_types::{AggregateKey, Filter, Position, ReadRequest, Record, Timestamp};
use serde::{Deserialize, Serialize};

use super::handler::Subject;

/// Which part of the past is to be handled again; the default is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayRequest {
    /// From this position on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Position>,
    /// Up to this position; the end of the log when the replay begins, unless it is before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Position>,
    /// Only events that happened at or after this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
    /// Only events of these types; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<String>,
    /// Only aggregates of these types; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aggregate_types: Vec<String>,
    /// Only this aggregate.
    #[serde(skip_serializing_if = "Option::is_none", with = "key")]
    pub aggregate: Option<AggregateKey>,
    /// At most so many events a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

impl ReplayRequest {
    /// What is to be read for it; see [`Self::includes`].
    #[must_use]
    pub fn read(&self) -> ReadRequest {
        let filter = Filter {
            aggregate: self.aggregate.clone(),
            aggregate_types: self.aggregate_types.clone(),
            event_types: self.event_types.clone(),
            since: self.after,
            ..Filter::default()
        };
        // Where an aggregate is named, a read begins at a version.
        let from = self.from.filter(|_| self.aggregate.is_none()).map(|from| from.0);
        ReadRequest { filter, from, ..ReadRequest::default() }
    }

    /// Whether what was read belongs to it.
    #[must_use]
    pub fn includes(&self, record: &Record) -> bool {
        self.from.is_none_or(|from| record.position() >= from) && !self.is_past(record.position())
    }

    /// Whether everything from this position on is past its end.
    #[must_use]
    pub fn is_past(&self, position: Position) -> bool {
        self.to.is_some_and(|to| position > to)
    }

    /// As much of it as a handler of this subject hears of.
    /// `None` if there is nothing of it that such a handler hears of.
    #[must_use]
    pub fn within(mut self, subject: &Subject) -> Option<Self> {
        let (names, name) = match subject {
            Subject::All => return Some(self),
            Subject::EventType(name) => (&mut self.event_types, name),
            Subject::AggregateType(name) => (&mut self.aggregate_types, name),
        };
        if !names.is_empty() && !names.contains(name) {
            return None;
        }
        *names = vec![name.clone()];
        Some(self)
    }
}

/// An aggregate as its two parts.
mod key {
    use quipu_types::AggregateKey;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands a field over as it is")]
    pub(super) fn serialize<S: Serializer>(
        key: &Option<AggregateKey>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let parts = key.as_ref().map(|key| (&key.aggregate_type, &key.aggregate_id));
        parts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<AggregateKey>, D::Error> {
        let parts = Option::<(String, String)>::deserialize(deserializer)?;
        Ok(parts.map(|(aggregate_type, id)| AggregateKey::new(aggregate_type, id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_from_its_json_and_keeps_to_what_its_handler_hears_of() {
        let request = ReplayRequest {
            from: Some(Position(3)),
            event_types: vec!["Ended".to_owned()],
            aggregate: Some(AggregateKey::new("Call", "a/b")),
            rate: Some(10),
            ..ReplayRequest::default()
        };
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<ReplayRequest>(&json).unwrap(), request, "{json}");
        assert_eq!(serde_json::to_string(&ReplayRequest::default()).unwrap(), "{}");
        let of = |name: &str| Subject::EventType(name.to_owned());
        assert_eq!(request.clone().within(&of("Ended")), Some(request.clone()));
        assert_eq!(request.clone().within(&of("Begun")), None);
        let all = ReplayRequest::default().within(&Subject::AggregateType("Call".to_owned()));
        assert_eq!(all.unwrap().aggregate_types, ["Call"]);
        assert!(serde_json::from_str::<ReplayRequest>(r#"{"form":3}"#).is_err());
    }
}
