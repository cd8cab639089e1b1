//! Instants, to the microsecond, spelled as RFC 3339.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
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
        SPELLABLE.contains(&self.0)
    }

    /// Date and time in UTC. Not by `jiff::Timestamp`, which ends a day before the year 9999 does:
    /// its last day is what many a system means by "never".
    fn in_utc(self) -> Option<DateTime> {
        EPOCH.checked_add(SignedDuration::from_micros(self.0)).ok()
    }

    fn parse(text: &str) -> Option<Self> {
        let pieces = Pieces::parse(text).ok()?;
        let (time, offset) = (pieces.time()?, pieces.to_numeric_offset()?);
        let local = pieces.date().to_datetime(time).duration_since(EPOCH);
        let instant = local - SignedDuration::from_secs(offset.seconds().into());
        let micros = instant.as_nanos().div_euclid(1_000);
        i64::try_from(micros).map(Self).ok().filter(|it| it.is_spellable())
    }
}

/// From -9999-01-01T00:00:00Z to the last microsecond of 9999.
const SPELLABLE: RangeInclusive<i64> = -377_705_116_800_000_000..=253_402_300_799_999_999;
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

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
        Self::parse(text).ok_or_else(refuse)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.in_utc() {
            Some(time) => write!(f, "{time}Z"),
            None => write!(f, "{} microseconds since 1970", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.is_spellable() {
            return Err(ser::Error::custom(format_args!("{self} cannot be spelled in RFC 3339")));
        }
        serializer.collect_str(self)
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
    fn the_last_day_of_the_last_year_and_the_first_of_the_first_are_times() {
        for (text, micros) in [
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
            ("-009999-01-01T00:00:00Z", -377_705_116_800_000_000),
        ] {
            let instant: Timestamp = text.parse().unwrap();
            assert_eq!((instant.as_micros(), instant.to_string().as_str()), (micros, text));
            assert!(instant.is_spellable());
            assert_eq!(serde_json::to_string(&instant).unwrap(), format!("\"{text}\""));
        }
        for outside in ["9999-12-31T23:59:59-00:01", "-009999-01-01T00:00:00+00:01"] {
            assert!(outside.parse::<Timestamp>().is_err(), "{outside}");
        }
        for end in [*SPELLABLE.start(), *SPELLABLE.end()] {
            for micros in [end - 1, end, end + 1] {
                let instant = Timestamp::from_micros(micros);
                assert_eq!(instant.is_spellable(), instant.in_utc().is_some(), "{micros}");
            }
        }
        assert!(!Timestamp::from_micros(i64::MIN).is_spellable());
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
