//! A handler's name, what it hears of, and what becomes of what it cannot handle.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use quipu_types::Filter;
use serde::{Deserialize, Serialize};

use super::error::BusError;

/// Longest name of a bus, and of a handler, in bytes: both together are the name of a stream.
const NAME_BYTES_MAX: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(30);
const CONCURRENCY: usize = 16;
const WINDOW: usize = 1_000;
const WINDOW_BYTES: usize = 8 << 20;
const PARKED_MAX: usize = 10_000;

/// Which events a handler hears of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// All but the system's.
    #[default]
    All,
    /// Those of one type.
    EventType(String),
    /// Those of the aggregates of one type.
    AggregateType(String),
}

impl Subject {
    pub(super) fn filter(&self) -> Filter {
        let (mut aggregate_types, mut event_types) = (Vec::new(), Vec::new());
        match self {
            Self::All => {}
            Self::EventType(name) => event_types.push(name.clone()),
            Self::AggregateType(name) => aggregate_types.push(name.clone()),
        }
        Filter { aggregate_types, event_types, ..Filter::default() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::EventType(name) => write!(f, "event_type:{name}"),
            Self::AggregateType(name) => write!(f, "aggregate_type:{name}"),
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "*" => Ok(Self::All),
            Some(("event_type", name)) => Ok(Self::EventType(name.to_owned())),
            Some(("aggregate_type", name)) => Ok(Self::AggregateType(name.to_owned())),
            _ => Err(format!("{text:?} is neither *, event_type:NAME nor aggregate_type:NAME")),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

/// Where a handler begins that has never run before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// With the first event of the log.
    #[default]
    Beginning,
    /// With what comes after it was first subscribed.
    End,
}

/// What becomes of an event that a handler cannot read: its type is unknown, its schema version is
/// newer, its JSON does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// It is parked, at once.
    #[default]
    Park,
    /// It is passed over, and counted as skipped.
    Skip,
    /// The handler stops before it, until it is subscribed again.
    Stop,
}

/// Longer than any process runs, and no moment that cannot be told.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// The pauses after each failed attempt; after the last one the event is parked.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// One pause for each attempt after the first.
    pub pauses: Vec<Duration>,
    /// Each pause is longer or shorter by at most this share of it, by chance; 0 to 1.
    pub jitter: f64,
}

impl Default for Backoff {
    /// 1 s, 5 s, 30 s, 5 min; a fifth more or less.
    fn default() -> Self {
        Self { pauses: [1, 5, 30, 300].map(Duration::from_secs).to_vec(), jitter: 0.2 }
    }
}

impl Backoff {
    /// The pause after this attempt, if there is to be another; the first is 1.
    pub(super) fn pause_after(&self, attempt: u32) -> Option<Duration> {
        let index = usize::try_from(attempt).ok()?.checked_sub(1)?;
        let pause = self.pauses.get(index)?;
        let pause = (*pause).min(LONGEST);
        let jitter = self.jitter.clamp(0.0, 1.0) * (fastrand::f64() * 2.0 - 1.0);
        Some(Duration::try_from_secs_f64(pause.as_secs_f64() * (1.0 + jitter)).unwrap_or(pause))
    }
}

/// A handler: its name, and its settings.
///
/// ```
/// use std::time::Duration;
/// use quipu_client::Handler;
///
/// let handler = Handler::new("invoices").of_type("CallCompleted").timeout(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
pub struct Handler {
    pub(super) name: String,
    pub(super) subject: Subject,
    pub(super) begin: Begin,
    pub(super) timeout: Duration,
    pub(super) backoff: Backoff,
    pub(super) parks_behind: bool,
    pub(super) unreadable: Unreadable,
    pub(super) concurrency: usize,
    pub(super) threads: usize,
    pub(super) window: usize,
    pub(super) window_bytes: usize,
    pub(super) parked_max: usize,
}

impl Handler {
    /// A handler of all events. Its name, at most 100 bytes and without `/`, is that of its place
    /// in the log, so it must stay as it is.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            subject: Subject::All,
            begin: Begin::default(),
            timeout: TIMEOUT,
            backoff: Backoff::default(),
            parks_behind: false,
            unreadable: Unreadable::default(),
            concurrency: CONCURRENCY,
            threads: 1,
            window: WINDOW,
            window_bytes: WINDOW_BYTES,
            parked_max: PARKED_MAX,
        }
    }

    /// Only of what this says. It cannot be changed later.
    #[must_use]
    pub fn of(self, subject: Subject) -> Self {
        Self { subject, ..self }
    }

    /// Only of events of this type.
    #[must_use]
    pub fn of_type(self, event_type: impl Into<String>) -> Self {
        self.of(Subject::EventType(event_type.into()))
    }

    /// Where it begins if it has never run before; with the first event of the log unless told so.
    #[must_use]
    pub fn begin(self, begin: Begin) -> Self {
        Self { begin, ..self }
    }

    /// How long one attempt may take; 30 s by default.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.clamp(Duration::from_millis(1), LONGEST), ..self }
    }

    /// The pauses between attempts.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Whether, while an event is parked, later ones of the same aggregate are parked behind it, in
    /// order. Otherwise they go on.
    #[must_use]
    pub fn parks_behind(self, parks_behind: bool) -> Self {
        Self { parks_behind, ..self }
    }

    /// What becomes of events that it cannot read; they are parked by default.
    #[must_use]
    pub fn unreadable(self, unreadable: Unreadable) -> Self {
        Self { unreadable, ..self }
    }

    /// For `subscribe_async`: how many events are handled at once, at most; 16 by default.
    #[must_use]
    pub fn concurrency(self, concurrency: usize) -> Self {
        Self { concurrency: concurrency.max(1), ..self }
    }

    /// For `subscribe_async`: how many threads run its futures; 1 by default.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// How many events it may have in hand, those that wait for another attempt and parked ones
    /// that are handled again included; 1,000 by default.
    #[must_use]
    pub fn window(self, window: usize) -> Self {
        Self { window: window.max(1), ..self }
    }

    /// How many bytes of events it may have in hand, as the log stores them; 8 MiB by default. The
    /// event that passes it is the last one that it takes.
    #[must_use]
    pub fn window_bytes(self, window_bytes: usize) -> Self {
        Self { window_bytes: window_bytes.max(1), ..self }
    }

    /// With so many parked events it stops rather than park one more, for it is broken, and would
    /// park the whole log; 10,000 by default.
    #[must_use]
    pub fn parked_max(self, parked_max: usize) -> Self {
        Self { parked_max, ..self }
    }
}

/// Checks the name of a bus or of a handler.
pub(super) fn check_name(what: &'static str, given: &str) -> Result<(), BusError> {
    let problem = if given.is_empty() {
        "it is empty"
    } else if given.len() > NAME_BYTES_MAX {
        "it is longer than 100 bytes"
    } else if given.contains('/') {
        "it has a slash, which divides the two"
    } else if given.contains(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    let given = given.chars().take(NAME_BYTES_MAX).collect();
    Err(BusError::Name { what, given, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_are_those_listed_give_or_take_the_jitter() {
        let backoff = Backoff::default();
        for (attempt, seconds) in (1..).zip([1.0, 5.0, 30.0, 300.0]) {
            let pause = backoff.pause_after(attempt).unwrap().as_secs_f64();
            assert!(pause >= seconds * 0.8 && pause <= seconds * 1.2, "{attempt}: {pause}");
        }
        assert_eq!((backoff.pause_after(5), backoff.pause_after(0)), (None, None));
        for jitter in [f64::NAN, f64::INFINITY, -1.0] {
            let pauses = vec![Duration::MAX, Duration::ZERO];
            let odd = Backoff { pauses, jitter };
            assert!(odd.pause_after(1).unwrap() <= LONGEST * 2, "{jitter}");
            assert_eq!(odd.pause_after(2), Some(Duration::ZERO), "{jitter}");
        }
        let exact = Backoff { jitter: 0.0, ..backoff };
        assert_eq!(exact.pause_after(2), Some(Duration::from_secs(5)));
    }

    #[test]
    fn subjects_are_spelled_and_read() {
        let subjects = [
            Subject::All,
            Subject::EventType("A:b".to_owned()),
            Subject::AggregateType("Call".to_owned()),
        ];
        for subject in subjects {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        assert!("CallCompleted".parse::<Subject>().is_err());
    }

    #[test]
    fn names_that_are_no_names_of_streams_are_refused() {
        for (name, fits) in [("a b", true), ("", false), ("a/b", false), ("a\n", false)] {
            assert_eq!(check_name("handler", name).is_ok(), fits, "{name:?}");
        }
        assert!(check_name("bus", &"x".repeat(101)).is_err());
    }
}
