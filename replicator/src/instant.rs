//! Instants as Postgres spells them: microseconds since 2000, and none before 4713 BC.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use postgres_types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use quipu_client::Timestamp;

/// Microseconds from 1970 to 2000.
const EPOCH_US: i64 = 946_684_800_000_000;
/// The first instant that Postgres holds, 24 November 4714 BC, in microseconds since 2000.
const FIRST_US: i64 = -211_813_488_000_000_000;
const DAY_US: i64 = 86_400_000_000;

/// An instant that Postgres can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(i64);

impl Instant {
    /// The instant of an event; an error says that it is too early.
    ///
    /// # Errors
    /// That Postgres has no such time.
    pub fn of(timestamp: Timestamp) -> Result<Self, String> {
        match timestamp.as_micros().checked_sub(EPOCH_US) {
            Some(micros) if micros >= FIRST_US => Ok(Self(micros)),
            _ => {
                Err(format!("its timestamp, {timestamp}, is before 4713 BC, where Postgres begins"))
            }
        }
    }

    /// Microseconds since 2000.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Its day in UTC, counted from 1970-01-01.
    #[must_use]
    pub fn day(self) -> i32 {
        let days = (self.0 + EPOCH_US).div_euclid(DAY_US);
        i32::try_from(days).unwrap_or(i32::MAX)
    }

    /// The same as the log spells it.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_add(EPOCH_US))
    }
}

impl ToSql for Instant {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.0);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Instant {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        i64::from_sql(kind, raw).map(Self)
    }

    accepts!(TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_utc_also_before_1970() {
        let day = |text: &str| Instant::of(text.parse().unwrap()).unwrap().day();
        assert_eq!(day("1970-01-01T00:00:00Z"), 0);
        assert_eq!(day("1969-12-31T23:59:59.999999Z"), -1);
        assert_eq!(day("2000-01-01T00:00:00+01:00"), 10_956);
    }

    #[test]
    fn what_is_before_the_first_day_of_postgres_is_refused() {
        let first = Timestamp::from_micros(FIRST_US + EPOCH_US);
        assert_eq!(Instant::of(first).unwrap().timestamp(), first);
        let before = Timestamp::from_micros(FIRST_US + EPOCH_US - 1);
        assert!(Instant::of(before).unwrap_err().contains("4713 BC"));
    }
}
