//! Runs the `quipu` binary as a person or a script does.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests make files of their own")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use quipu_tests::running::{self, Running};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    /// Asserts the exit code, and shows everything where it is another.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, expected, "{self:#?}");
        self
    }

    /// Asserts that standard output has this in it.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    /// Asserts that standard error has this in it.
    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    /// Standard output as lines of JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The binary, to be given its arguments.
pub(crate) fn quipu() -> Command {
    Command::new(env!("CARGO_BIN_EXE_quipu"))
}

/// The binary, which may have only so many open files.
pub(crate) fn quipu_with_open_files(most: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\"")]);
    shell.arg(env!("CARGO_BIN_EXE_quipu"));
    shell
}

/// The binary, whose standard error is a full disk.
pub(crate) fn quipu_without_words() -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full", env!("CARGO_BIN_EXE_quipu")]);
    shell
}

/// Runs a command line; arguments are separated by single spaces.
pub(crate) fn run(line: &str) -> Answer {
    answer(&running::output(quipu().args(line.split(' '))))
}

/// Runs a command line with this on standard input.
pub(crate) fn run_with_input(line: &str, input: &[u8]) -> Answer {
    let mut child = spawn(line);
    child.stdin.take().unwrap().write_all(input).unwrap();
    answer(&child.wait_with_output().unwrap())
}

/// Starts a command line with pipes on all sides.
pub(crate) fn spawn(line: &str) -> Running {
    let (mut quipu, piped) = (quipu(), Stdio::piped);
    Running::start(quipu.args(line.split(' ')).stdin(piped()).stdout(piped()).stderr(piped()))
}

/// A server in a process of its own.
pub(crate) struct Serving {
    pub(crate) child: Running,
    pub(crate) listen: String,
}

/// A server on any port that is free.
pub(crate) fn serve(log: &str) -> Serving {
    serve_on(log, "127.0.0.1:0")
}

/// A server there; waits until it says where it listens.
pub(crate) fn serve_on(log: &str, listen: &str) -> Serving {
    serve_by(&mut quipu(), &format!("serve --log {log} --listen {listen}"))
}

/// A server by this command and command line.
pub(crate) fn serve_by(quipu: &mut Command, line: &str) -> Serving {
    let line = format!("{line} --http 127.0.0.1:0 --json");
    // What it says of a thousand clients would fill a pipe that nobody reads.
    let quipu = quipu.args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Running::start(quipu);
    let said: serde_json::Value = serde_json::from_str(&child.line()).unwrap();
    assert!(said["http"].as_str().unwrap().starts_with("127.0.0.1:"), "{said}");
    Serving { child, listen: said["listen"].as_str().unwrap().to_owned() }
}

impl Serving {
    /// Ends it as a power cut of its machine would, but for what is in the disk's cache.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) {
        signal(&self.child, Signal::TERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    /// Memory that it has in use.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    }
}

/// Sends a signal, as `kill` does.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

pub(crate) fn answer(output: &Output) -> Answer {
    Answer {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A folder for one test, and the log in it.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    /// The log's path; there is no log yet.
    pub(crate) log: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let log = folder.path().join("log").display().to_string();
        Self { folder, log }
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The log's events, as `export` spells them.
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        run(&format!("export --log {}", self.log)).code(0).json()
    }
}

/// A line as `import` reads it.
pub(crate) fn line(id: u128, aggregate_id: &str, version: u64, data: &str) -> String {
    let id = quipu_client::Uuid::from_u128(id);
    format!(
        "{{\"id\":\"{id}\",\"aggregate_id\":\"{aggregate_id}\",\"aggregate_type\":\"Call\",\
         \"event_type\":\"Rang\",\"timestamp\":\"2026-01-02T03:04:05Z\",\"version\":{version},\
         \"metadata\":{{}},\"data\":{data}}}\n"
    )
}

/// A file that is shared beside the checkout; says so where it is not there.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    Some(path)
}
