//! All that clients did, and what the log held in the end: in memory, and as lines of a file that
//! outlive the client that writes them.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::calls::{AppendCall, CallId, Following, Heard, ReadCall, VersionCall};
use super::stored::Stored;

/// Everything that a check needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub appends: Vec<AppendCall>,
    pub reads: Vec<ReadCall>,
    pub versions: Vec<VersionCall>,
    pub followings: Vec<Following>,
    /// The whole log, read when all was over.
    pub log: Vec<Stored>,
    /// Appends that the log had no space for are tried again behind later ones.
    pub out_of_turn: bool,
}

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Once before it is sent, as unknown, and once more when it is answered.
    Append(AppendCall),
    Read(ReadCall),
    Version(VersionCall),
    /// When it begins, and once more when it was all heard that was due.
    Following(Following),
    Heard(CallId, Vec<Heard>),
    Log(Stored),
    OutOfTurn,
}

impl History {
    /// Takes the lines of one or several journals, each in its order.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut history = Self::default();
        let (mut appends, mut followings) = (HashMap::new(), HashMap::new());
        for entry in entries {
            match entry {
                Entry::Append(call) => put(&mut history.appends, &mut appends, call.id, call),
                Entry::Read(call) => history.reads.push(call),
                Entry::Version(call) => history.versions.push(call),
                Entry::Following(following) => {
                    let id = following.id;
                    match followings.get(&id) {
                        Some(index) => {
                            let known: &mut Following = &mut history.followings[*index];
                            known.heard.extend(following.heard);
                            known.due = following.due;
                        }
                        None => put(&mut history.followings, &mut followings, id, following),
                    }
                }
                Entry::Heard(id, heard) => {
                    if let Some(index) = followings.get(&id) {
                        history.followings[*index].heard.extend(heard);
                    }
                }
                Entry::Log(stored) => history.log.push(stored),
                Entry::OutOfTurn => history.out_of_turn = true,
            }
        }
        history
    }

    /// Reads a journal; what a kill has left of its last line is passed over.
    pub fn entries(journal: impl BufRead) -> impl Iterator<Item = Entry> {
        let lines = journal.lines().map_while(Result::ok);
        lines.map_while(|line| serde_json::from_str(&line).ok())
    }

    /// Writes it down, so that it can be read and checked again.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut put = |entry: Entry| put_line(to, &entry);
        if self.out_of_turn {
            put(Entry::OutOfTurn)?;
        }
        self.appends.iter().cloned().map(Entry::Append).try_for_each(&mut put)?;
        self.reads.iter().cloned().map(Entry::Read).try_for_each(&mut put)?;
        self.versions.iter().copied().map(Entry::Version).try_for_each(&mut put)?;
        self.followings.iter().cloned().map(Entry::Following).try_for_each(&mut put)?;
        self.log.iter().copied().map(Entry::Log).try_for_each(&mut put)
    }
}

/// Writes one line, in one piece.
pub fn put_line(to: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// What is written later about the same operation takes the place of the earlier.
fn put<T>(all: &mut Vec<T>, known: &mut HashMap<CallId, usize>, id: CallId, call: T) {
    if let Some(index) = known.get(&id) {
        all[*index] = call;
        return;
    }
    known.insert(id, all.len());
    all.push(call);
}

#[cfg(test)]
mod tests {
    use super::super::example::Example;
    use super::*;

    #[test]
    fn a_journal_gives_back_what_was_written_but_a_torn_last_line() {
        let history = Example::new(7).history();
        let mut journal = Vec::new();
        history.write(&mut journal).unwrap();
        assert_eq!(History::of(History::entries(&*journal)), history);
        let shorter = History::entries(&journal[..journal.len() - 3]);
        assert_eq!(History::of(shorter).log.len(), history.log.len() - 1);
    }
}
