//! Instants, to the microsecond, spelled as RFC 3339.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// An instant: microseconds since 1970-01-01T00:00:00Z, negative before.
///
/// Any RFC 3339 offset is read and UTC is written; digits below the microsecond are cut (towards
/// the past), never rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whether this instant can be spelled in RFC 3339 (years -9999 to 9999).
    #[must_use]
    pub fn is_spellable(self) -> bool {
        jiff::Timestamp::from_microsecond(self.0).is_ok()
    }
}

const RFC_3339: &str = "an RFC 3339 timestamp with an offset, such as 2026-01-02T03:04:05.678Z";

/// Text that is not an RFC 3339 instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {RFC_3339}")]
pub struct NotATimestamp {
    given: String,
}

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || NotATimestamp { given: text.chars().take(64).collect() };
        let instant: jiff::Timestamp = text.parse().map_err(|_| refuse())?;
        let micros = instant.as_nanosecond().div_euclid(1_000);
        i64::try_from(micros).map(Self).map_err(|_| refuse())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => instant.fmt(f),
            Err(_) => write!(f, "{} microseconds since 1970", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => serializer.collect_str(&instant),
            Err(_) => Err(ser::Error::custom(format_args!("{self} cannot be spelled in RFC 3339"))),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Without the text: errors go to logs, and it may be what belongs into another field.
        let refuse = |_| de::Error::custom(format_args!("not {RFC_3339}"));
        String::deserialize(deserializer)?.parse().map_err(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_and_utc_is_written() {
        let instant: Timestamp = "2011-10-01T00:38:44.546+02:00".parse().unwrap();
        assert_eq!(instant.to_string(), "2011-09-30T22:38:44.546Z");
    }

    #[test]
    fn digits_below_the_microsecond_are_cut_towards_the_past() {
        let after: Timestamp = "1970-01-01T00:00:00.0000019Z".parse().unwrap();
        assert_eq!(after.as_micros(), 1);
        let before: Timestamp = "1969-12-31T23:59:59.9999999Z".parse().unwrap();
        assert_eq!(before.as_micros(), -1);
    }

    #[test]
    fn an_instant_that_cannot_be_spelled_is_not_written() {
        let error = serde_json::to_string(&Timestamp::from_micros(i64::MAX)).unwrap_err();
        assert!(error.to_string().contains("9223372036854775807"), "{error}");
    }

    #[test]
    fn what_is_no_time_is_not_repeated_where_json_is_read() {
        let error = serde_json::from_str::<Timestamp>(r#""+12125550100""#).unwrap_err();
        assert!(error.to_string().starts_with("not an RFC 3339 timestamp"), "{error}");
    }

    #[test]
    fn a_time_without_offset_or_that_is_none_is_refused() {
        for text in ["2026-01-02T03:04:05", "2026-13-45T99:00:00Z", "", "now"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
