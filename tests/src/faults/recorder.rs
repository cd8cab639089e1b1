//! What one client did, kept in memory, and in a file where the client may be killed.
#![expect(clippy::disallowed_types, reason = "the journal of a client that is to be killed")]

use std::fs::File;

use anyhow::Result;

use crate::history::calls::CallId;
use crate::history::journal::{Entry, put_line};

/// Takes what a client does; numbers its operations.
pub struct Recorder {
    client: u32,
    number: u64,
    journal: Option<File>,
    recorded: Recorded,
}

/// What a client did, and what should never happen to one.
#[derive(Default)]
pub struct Recorded {
    pub entries: Vec<Entry>,
    pub wrong: Vec<String>,
}

impl Recorder {
    pub fn new(client: u32) -> Self {
        Self { client, number: 0, journal: None, recorded: Recorded::default() }
    }

    /// Nothing is kept in memory: each line is with the system before what it tells of goes on.
    pub fn in_file(client: u32, journal: File) -> Self {
        Self { journal: Some(journal), ..Self::new(client) }
    }

    pub fn is_in_file(&self) -> bool {
        self.journal.is_some()
    }

    /// The next operation's id.
    pub fn next_id(&mut self) -> CallId {
        self.number += 1;
        CallId { client: self.client, number: self.number }
    }

    /// Something is about to be asked: matters only to those who may not live to hear the answer.
    pub fn begin(&mut self, entry: impl FnOnce() -> Entry) -> Result<()> {
        match &mut self.journal {
            Some(journal) => Ok(put_line(journal, &entry())?),
            None => Ok(()),
        }
    }

    /// Something was answered.
    pub fn end(&mut self, entry: Entry) -> Result<()> {
        match &mut self.journal {
            Some(journal) => put_line(journal, &entry)?,
            None => self.recorded.entries.push(entry),
        }
        Ok(())
    }

    /// Something was answered as it never should be.
    pub fn wrong(&mut self, what: impl IntoIterator<Item = String>) {
        self.recorded.wrong.extend(what);
    }

    pub fn recorded(self) -> Recorded {
        self.recorded
    }
}

impl Recorded {
    pub fn add(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.wrong.extend(other.wrong);
    }
}
