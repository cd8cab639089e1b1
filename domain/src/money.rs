//! An amount of money: an integer of one currency's smallest unit, never a float.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::currency::Currency;
use crate::field_type::spelled;

/// An amount in minor units, such as cents; which unit that is, is the currency's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// How many of the smallest unit.
    pub minor_units: i64,
    /// Of which currency.
    pub currency: Currency,
}

spelled! { Money: "`{minor_units: integer, currency: ISO 4217 code}`" }

/// Why two amounts have no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// They are of two currencies.
    #[error("an amount in {given} where {expected} is expected")]
    OtherCurrency {
        /// The currency that is expected.
        expected: Currency,
        /// The currency of the amount given.
        given: Currency,
    },
    /// The result is larger than any amount.
    #[error("{left} and {right} together are more than an amount can hold")]
    Overflow {
        /// One.
        left: Money,
        /// The other.
        right: Money,
    },
}

impl Money {
    /// An amount.
    #[must_use]
    pub const fn new(minor_units: i64, currency: Currency) -> Self {
        Self { minor_units, currency }
    }

    /// Nothing.
    #[must_use]
    pub const fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    /// The sum.
    ///
    /// # Errors
    /// That the currencies differ, or the sum is too large.
    pub fn plus(self, right: Self) -> Result<Self, MoneyError> {
        self.checked(right, self.minor_units.checked_add(right.minor_units))
    }

    /// The difference.
    ///
    /// # Errors
    /// That the currencies differ, or the difference is too large.
    pub fn minus(self, right: Self) -> Result<Self, MoneyError> {
        self.checked(right, self.minor_units.checked_sub(right.minor_units))
    }

    /// The amount, if it is of this currency.
    ///
    /// # Errors
    /// That it is not.
    pub fn of(self, expected: Currency) -> Result<Self, MoneyError> {
        let given = self.currency;
        if given == expected {
            Ok(self)
        } else {
            Err(MoneyError::OtherCurrency { expected, given })
        }
    }

    fn checked(self, right: Self, result: Option<i64>) -> Result<Self, MoneyError> {
        right.of(self.currency)?;
        let minor_units = result.ok_or(MoneyError::Overflow { left: self, right })?;
        Ok(Self { minor_units, ..self })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} minor units of {}", self.minor_units, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn euros(minor_units: i64) -> Money {
        Money::new(minor_units, "EUR".parse().unwrap())
    }

    #[test]
    fn amounts_of_one_currency_add_up() {
        assert_eq!(euros(150).plus(euros(-50)), Ok(euros(100)));
        assert_eq!(euros(150).minus(euros(200)), Ok(euros(-50)));
    }

    #[test]
    fn an_overflow_is_an_error_and_never_wraps() {
        let most = euros(i64::MAX);
        let overflow = |left, right| Err(MoneyError::Overflow { left, right });
        assert_eq!(most.plus(euros(1)), overflow(most, euros(1)));
        assert_eq!(euros(i64::MIN).minus(euros(1)), overflow(euros(i64::MIN), euros(1)));
    }

    #[test]
    fn two_currencies_have_no_sum() {
        let yen = Money::new(1, "JPY".parse().unwrap());
        let (expected, given) = (euros(0).currency, yen.currency);
        assert_eq!(euros(1).plus(yen), Err(MoneyError::OtherCurrency { expected, given }));
        assert_eq!(euros(1).minus(yen), Err(MoneyError::OtherCurrency { expected, given }));
    }

    #[test]
    fn a_float_is_no_amount() {
        for minor_units in ["1.5", "1.0", "1e2", "\"1\"", "9223372036854775808"] {
            let json = format!("{{\"minor_units\":{minor_units},\"currency\":\"EUR\"}}");
            assert!(serde_json::from_str::<Money>(&json).is_err(), "{json}");
        }
    }
}
