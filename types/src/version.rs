//! How often an aggregate was written, and what a writer expects of that.

use serde::{Deserialize, Serialize};

/// Number of a record within its aggregate: the first has 1, 0 means never written.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Never written.
    pub const NONE: Self = Self(0);

    /// The version right before this one; [`Version::NONE`] has none and stays.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The version right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What an append expects of an aggregate before it is written (optimistic concurrency).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// Nothing.
    #[default]
    Any,
    /// Never written.
    NoStream,
    /// Written at least once.
    StreamExists,
    /// The last version is exactly this; `Exact(0)` means never written, ever.
    Exact(Version),
}

impl ExpectedVersion {
    /// Whether an aggregate whose last version is `actual` meets the expectation.
    #[must_use]
    pub fn is_met_by(self, actual: Version) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == Version::NONE,
            Self::StreamExists => actual > Version::NONE,
            Self::Exact(expected) => actual == expected,
        }
    }
}

impl std::fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("an existing stream"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_expectation_is_met_by_exactly_its_versions() {
        let cases = [
            (ExpectedVersion::Any, [true, true, true]),
            (ExpectedVersion::NoStream, [true, false, false]),
            (ExpectedVersion::StreamExists, [false, true, true]),
            (ExpectedVersion::Exact(Version(0)), [true, false, false]),
            (ExpectedVersion::Exact(Version(2)), [false, false, true]),
        ];
        for (expected, met) in cases {
            for (actual, met) in (0..3).zip(met) {
                assert_eq!(expected.is_met_by(Version(actual)), met, "{expected:?} by {actual}");
            }
        }
    }
}
