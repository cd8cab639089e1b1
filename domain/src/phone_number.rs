//! A phone number on its way to being hashed: it cannot be stored, printed or logged.

use std::fmt;
use std::str::FromStr;

/// Digits, country code included: of the shortest number in use, and the most that E.164 allows.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// A phone number in E.164: `+`, country code, number, digits only.
///
/// It has no `Serialize` and no `Display`, and its `Debug` is redacted, so that an event can hold
/// only its [hash](crate::PhoneNumberHash):
///
/// ```compile_fail,E0277
/// let number: quipu_domain::PhoneNumber = "+1 212 555 0100".parse().unwrap();
/// serde_json::to_string(&number);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PhoneNumber(String);

/// Text that is no phone number. It does not say which text: that may be somebody's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAPhoneNumber {
    /// A number without its country code means another number in each country.
    #[error("the phone number does not begin with + and a country code")]
    NoCountryCode,
    /// `(0)` is dialled only inside the country and is no part of the number.
    #[error("the phone number has a trunk prefix in it, (0): leave it out")]
    TrunkPrefix,
    /// A character that no phone number has.
    #[error("the phone number has a character that is no digit, at character {at}")]
    NotADigit {
        /// Which character, from 1.
        at: usize,
    },
    /// Too few or too many digits.
    #[error(
        "the phone number has {given} digits, E.164 numbers have {} to {}",
        DIGITS.start(),
        DIGITS.end()
    )]
    Length {
        /// How many it has.
        given: usize,
    },
}

impl PhoneNumber {
    /// The number itself, to dial it. Whoever calls this answers for where it goes.
    #[must_use]
    pub fn expose_e164(&self) -> &str {
        &self.0
    }
}

/// Reads a number as people write it: spaces, dots, hyphens, slashes and brackets are left out.
impl FromStr for PhoneNumber {
    type Err = NotAPhoneNumber;

    fn from_str(text: &str) -> Result<Self, NotAPhoneNumber> {
        let text = text.trim();
        if text.contains("(0)") {
            return Err(NotAPhoneNumber::TrunkPrefix);
        }
        let national = text.strip_prefix('+').ok_or(NotAPhoneNumber::NoCountryCode)?;
        let mut number = String::from("+");
        for (at, character) in (2..).zip(national.chars()) {
            match character {
                '0'..='9' => number.push(character),
                ' ' | '\u{a0}' | '.' | '-' | '/' | '(' | ')' => {}
                _ => return Err(NotAPhoneNumber::NotADigit { at }),
            }
        }
        let given = number.len() - 1;
        if number.starts_with("+0") {
            Err(NotAPhoneNumber::NoCountryCode)
        } else if DIGITS.contains(&given) {
            Ok(Self(number))
        } else {
            Err(NotAPhoneNumber::Length { given })
        }
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneNumber(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_number_gives_the_same() {
        let written = ["+12125550100", "+1 (212) 555-0100", " +1.212.555.0100 ", "+1 212/5550100"];
        for text in written {
            assert_eq!(text.parse::<PhoneNumber>().unwrap().expose_e164(), "+12125550100");
        }
        for shortest_and_longest in ["+6834002", "+123456789012345"] {
            assert!(shortest_and_longest.parse::<PhoneNumber>().is_ok());
        }
    }

    #[test]
    fn what_is_no_number_is_refused_for_its_reason() {
        let refused = |text: &str| text.parse::<PhoneNumber>().unwrap_err();
        for text in ["2125550100", "0012125550100", "", "+0212 555 0100", "(+1) 212 555 0100"] {
            assert_eq!(refused(text), NotAPhoneNumber::NoCountryCode, "{text}");
        }
        assert_eq!(refused("+44 (0)20 7946 0958"), NotAPhoneNumber::TrunkPrefix);
        assert_eq!(refused("+1 212 CALLME"), NotAPhoneNumber::NotADigit { at: 8 });
        assert_eq!(refused("++12125550100"), NotAPhoneNumber::NotADigit { at: 2 });
        assert_eq!(refused("+1 212 555 0100 x5"), NotAPhoneNumber::NotADigit { at: 17 });
        assert_eq!(refused("+١٢١٢٥٥٥"), NotAPhoneNumber::NotADigit { at: 2 });
        assert_eq!(refused("+123456"), NotAPhoneNumber::Length { given: 6 });
        assert_eq!(refused("+1234567890123456"), NotAPhoneNumber::Length { given: 16 });
        assert_eq!(refused("+"), NotAPhoneNumber::Length { given: 0 });
    }

    #[test]
    fn neither_a_number_nor_its_error_shows_digits() {
        let number: PhoneNumber = "+12125550100".parse().unwrap();
        assert_eq!(format!("{number:?}"), "PhoneNumber(redacted)");
        let error = "+1 212 555 0100 x".parse::<PhoneNumber>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("212"));
    }
}
