//! Servers: each a process of its own, which ends with this one, however this one ends.
#![expect(clippy::disallowed_types, reason = "a free port is found by listening on it")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock;
use crate::folder;

const READY_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// A running server; dropped, it is stopped.
pub(crate) struct Server {
    child: Child,
    name: String,
    stop: Signal,
}

/// A command whose process gets a signal when this one dies; with a user it runs as that one.
pub(crate) fn tied(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program).stdin(Stdio::null());
    command
}

/// A port on the loopback interface that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The output of a command that must succeed.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed with {}:\n{}", output.status, errors.trim_end());
    }
    Ok(String::from_utf8(output.stdout)?)
}

impl Server {
    /// Starts one, which `stop` stops in order.
    pub(crate) fn start(command: &mut Command, name: &str, stop: Signal) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned(), stop })
    }

    /// What the server prints, if it was told to print into a pipe.
    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Tries until it works, as long as the server runs.
    pub(crate) fn until_ready<T>(&mut self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let deadline = clock::now() + READY_WITHIN;
        loop {
            let error = match attempt() {
                Ok(ready) => return Ok(ready),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}", self.name);
            }
            if clock::now() > deadline {
                return Err(error.context(format!("{} is not ready in time", self.name)));
            }
            clock::pause(Duration::from_millis(20));
        }
    }

    /// Processor time so far, in seconds, of the process and all that it has started.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds_of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let deadline = clock::now() + STOPPED_WITHIN;
        let sent = Pid::from_child(&self.child);
        let mut is_running = kill_process(sent, self.stop).is_ok();
        while is_running && clock::now() < deadline {
            is_running = matches!(self.child.try_wait(), Ok(None));
            clock::pause(Duration::from_millis(10));
        }
        if is_running {
            eprintln!("{} does not stop: it is killed", self.name);
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Processor time so far, in seconds, of a process and all its descendants, ended ones included.
#[expect(clippy::cast_precision_loss, reason = "ticks of hundredths of a second are few")]
pub(crate) fn cpu_seconds_of(root: u32) -> f64 {
    let all: Vec<ProcessTimes> =
        folder::process_stats().iter().filter_map(|stat| ProcessTimes::parse(stat)).collect();
    let mut ticks = 0;
    let mut found = vec![root];
    while let Some(pid) = found.pop() {
        ticks += all.iter().find(|it| it.pid == pid).map_or(0, |it| it.ticks);
        found.extend(all.iter().filter(|it| it.parent == pid).map(|it| it.pid));
    }
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// What `/proc/PID/stat` says of processor time; that of ended children counts for their parent.
#[derive(Debug, PartialEq, Eq)]
struct ProcessTimes {
    pid: u32,
    parent: u32,
    ticks: u64,
}

impl ProcessTimes {
    /// The second field is a name in parentheses, which may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, _) = stat.split_once(' ')?;
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let times = fields.get(11..15)?.iter().map(|it| it.parse::<u64>());
        let ticks = times.sum::<Result<u64, _>>().ok()?;
        Some(Self { pid: pid.parse().ok()?, parent: fields.get(1)?.parse().ok()?, ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_times_are_found_behind_any_name() {
        let stat = "17 (a ) (b) S 4 17 17 0 -1 0 1 1 0 0 20 3 100 0 20 0 1 0 9 9 9";
        let expected = ProcessTimes { pid: 17, parent: 4, ticks: 123 };
        assert_eq!(ProcessTimes::parse(stat), Some(expected));
        assert_eq!(ProcessTimes::parse("17 (short) S 4"), None);
    }

    #[test]
    fn a_server_that_is_dropped_has_ended() {
        let mut sleep = tied(Path::new("sleep"), None);
        let server = Server::start(sleep.arg("1000"), "sleep", Signal::TERM).unwrap();
        let pid = Pid::from_child(&server.child);
        drop(server);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn a_server_that_ends_too_early_is_told_from_one_that_is_slow() {
        let mut ends = tied(Path::new("false"), None);
        let mut server = Server::start(&mut ends, "false", Signal::TERM).unwrap();
        let error = server.until_ready::<()>(|| bail!("not yet")).unwrap_err();
        assert!(error.to_string().contains("false ended with"), "{error}");
    }
}
