//! What a run of one kind of fault came to, as a line of a table.
#![expect(clippy::disallowed_methods, reason = "it says how long it took")]

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::site::Site;
use crate::history::checker::Checked;
use crate::history::journal::History;

/// What was done, and checked.
#[derive(Clone, Debug)]
pub struct Tally {
    pub what: String,
    /// How many faults there were.
    pub runs: u64,
    pub checked: Checked,
    began: Instant,
    pub took: Duration,
    /// The longest that it took until an append was answered after a fault.
    pub served_after: Duration,
    /// The most memory that the server had in use, where that was looked at.
    pub resident_bytes: u64,
}

impl Tally {
    pub fn new(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            runs: 0,
            checked: Checked::default(),
            began: Instant::now(),
            took: Duration::ZERO,
            served_after: Duration::ZERO,
            resident_bytes: 0,
        }
    }

    /// Closes a site when all its faults are over, and counts what it came to.
    pub fn close(&mut self, site: Site) -> Result<History> {
        self.served_after = self.served_after.max(site.served_after);
        let (checked, history) = site.close()?;
        self.checked.add(&checked);
        self.took = self.began.elapsed();
        Ok(history)
    }

    pub fn header() -> &'static str {
        "what                    runs  operations      events  repeated  conflicts  failed  \
         unknown (stored)  served after  memory  seconds"
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked { events, duplicates, conflicts, failed, unknown, unknown_stored, .. } =
            self.checked;
        let memory = match self.resident_bytes {
            0 => "-".to_owned(),
            bytes => format!("{} MiB", bytes >> 20),
        };
        write!(
            f,
            "{:<20} {:>7} {:>11} {events:>11} {duplicates:>9} {conflicts:>10} {failed:>7} \
             {:>17} {:>10} ms {memory:>7} {:>8}",
            self.what,
            self.runs,
            self.checked.operations(),
            format!("{unknown} ({unknown_stored})"),
            self.served_after.as_millis(),
            self.took.as_secs(),
        )
    }
}
