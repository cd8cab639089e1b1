//! W3C trace context: the one header that ties an event to a trace.

use std::fmt;
use std::str::FromStr;

use quipu_types::limits::SHORT_TEXT_BYTES_MAX;

/// A valid `traceparent`, such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
///
/// <https://www.w3.org/TR/trace-context/#traceparent-header>; what a later version appends is kept,
/// as far as the log's limit of 64 bytes goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Traceparent(String);

/// Text that is no valid `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no traceparent: {problem}")]
pub struct NotATraceparent {
    given: String,
    problem: &'static str,
}

impl Traceparent {
    /// The header's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Traceparent {
    type Err = NotATraceparent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(problem) => {
                Err(NotATraceparent { given: text.chars().take(64).collect(), problem })
            }
        }
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.len() > SHORT_TEXT_BYTES_MAX {
        return Some("it is longer than 64 bytes");
    }
    let mut parts = text.splitn(5, '-');
    let (version, trace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (parent, flags) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let has_more = parts.next().is_some();
    if !is_hex(version, 2) || version == "ff" {
        Some("it does not begin with a version, 00 to fe")
    } else if !is_hex(trace, 32) || is_zero(trace) {
        Some("its trace id is not 32 lower-case hex digits, or all are zero")
    } else if !is_hex(parent, 16) || is_zero(parent) {
        Some("its parent id is not 16 lower-case hex digits, or all are zero")
    } else if !is_hex(flags, 2) {
        Some("its flags are not 2 lower-case hex digits")
    } else if has_more && version == "00" {
        Some("version 00 has four parts")
    } else {
        None
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_and_a_later_versions_are_taken() {
        assert_eq!(VALID.parse::<Traceparent>().unwrap().as_str(), VALID);
        let later = format!("cc{}-what", &VALID[2..]);
        assert_eq!(later.parse::<Traceparent>().unwrap().to_string(), later);
    }

    #[test]
    fn each_fault_is_refused_by_name() {
        let faults = [
            (VALID.replace("00-4b", "ff-4b"), "version"),
            (VALID.replace("4bf9", "4BF9"), "trace id"),
            (VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), "trace id"),
            (VALID.replace("00f067aa0ba902b7", &"0".repeat(16)), "parent id"),
            (VALID.replace("00f067aa0ba902b7", "00f067aa"), "parent id"),
            (VALID.replace("-01", "-1"), "flags"),
            (VALID.replace("-01", ""), "flags"),
            (format!("{VALID}-more"), "four parts"),
            (format!("cc{}-{}", &VALID[2..], "x".repeat(9)), "64 bytes"),
            (String::new(), "version"),
        ];
        for (text, named) in faults {
            let error = text.parse::<Traceparent>().unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
