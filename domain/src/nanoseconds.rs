//! A span of time as events spell it: an integer, never a float.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::field_type::spelled;

/// A span of time in whole nanoseconds; at most 584 years.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanoseconds(pub u64);

spelled! { Nanoseconds: "integer, nanoseconds" }

/// A span of time that is longer than any field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is longer than {limit:?}", limit = Duration::from_nanos(u64::MAX))]
pub struct TooLong {
    /// What was given.
    pub given: Duration,
}

impl TryFrom<Duration> for Nanoseconds {
    type Error = TooLong;

    fn try_from(given: Duration) -> Result<Self, TooLong> {
        u64::try_from(given.as_nanos()).map(Self).map_err(|_| TooLong { given })
    }
}

impl From<Nanoseconds> for Duration {
    fn from(span: Nanoseconds) -> Self {
        Self::from_nanos(span.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_an_integer_there_and_back_and_never_wraps() {
        let span = Nanoseconds::try_from(Duration::from_millis(61_500)).unwrap();
        assert_eq!(serde_json::to_string(&span).unwrap(), "61500000000");
        assert_eq!(Duration::from(span), Duration::from_millis(61_500));
        assert!(Nanoseconds::try_from(Duration::MAX).is_err());
        assert!(serde_json::from_str::<Nanoseconds>("1.5").is_err());
        assert!(serde_json::from_str::<Nanoseconds>("-1").is_err());
    }
}
