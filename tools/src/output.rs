//! Standard output and standard error: every word that `quipu` says goes through here.

use std::fmt::Display;
use std::io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write, stderr, stdout};

use serde::Serialize;

use crate::failure::Failure;

/// Standard output, buffered.
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    /// Output for machines (`json`) or for people.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: BufWriter::with_capacity(64 * 1024, stdout()) }
    }

    /// Whether machines read it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One line.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(|error| cannot_write(&error))
    }

    /// One line of bytes.
    pub(crate) fn bytes_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.out
            .write_all(line)
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|error| cannot_write(&error))
    }

    /// One JSON object, on one line.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_vec(value)
            .map_err(|error| Failure::Unreachable(format!("cannot spell the answer: {error}")))?;
        self.bytes_line(&line)
    }

    /// Makes everything said so far visible.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| cannot_write(&error))
    }
}

fn cannot_write(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Unreachable(format!("cannot write the output: {error}")),
    }
}

/// Says something on standard error; where nobody listens, nothing is lost.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(stderr(), "{text}");
}

/// Says something on standard error if a person watches.
pub(crate) fn whisper(text: impl Display) {
    if stderr().is_terminal() {
        note(text);
    }
}

/// Columns of the terminal; `None` where standard output is no terminal.
pub(crate) fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
