//! Child processes that no test waits for without a bound, and that no test leaves behind.

#![expect(clippy::unwrap_used, reason = "test support: a failure is a panic with its reason")]
#![expect(clippy::print_stderr, reason = "what is ended for its slowness is named")]

use std::io::{self, BufRead, BufReader};
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::patience::PATIENCE;

/// A child process; killed when it is dropped.
pub struct Running(Option<Child>);

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))))
    }

    /// Waits for something of it; it is killed if that does not come, which ends the wait.
    pub fn within<T>(&mut self, wait: impl FnOnce(&mut Child) -> T) -> T {
        bounded(PATIENCE, Pid::from_child(self), || wait(self))
    }

    /// The next line that it writes to standard output; nothing more than that is read ahead.
    pub fn line(&mut self) -> String {
        self.within(|child| {
            let mut line = String::new();
            let stdout = child.stdout.as_mut().unwrap();
            BufReader::with_capacity(1, stdout).read_line(&mut line).unwrap();
            line
        })
    }

    /// As [`Child::wait`], but not for ever.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.within(Child::wait)
    }

    /// As [`Child::wait_with_output`], but not for ever.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        let child = self.0.take().unwrap();
        bounded(PATIENCE, Pid::from_child(&child), || child.wait_with_output())
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Runs a command with nothing on standard input, but not for ever.
pub fn output(command: &mut Command) -> Output {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(piped).wait_with_output().unwrap()
}

/// Ends the process if the wait takes too long: then the wait ends, too.
fn bounded<T>(patience: Duration, process: Pid, wait: impl FnOnce() -> T) -> T {
    let (done, hears) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if hears.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                eprintln!("process {process} is killed: it had taken {patience:?}");
                kill_process(process, Signal::KILL).ok();
            }
        });
        // Also where it panics: the thread would go on, and be waited for.
        let _done = done;
        wait()
    })
}

#[cfg(test)]
mod tests {
    use rustix::process::test_kill_process;

    use super::*;

    #[test]
    fn a_wait_for_a_process_that_hangs_ends() {
        let mut child = Running::start(Command::new("sleep").arg("600"));
        let process = Pid::from_child(&child);
        let ended = bounded(Duration::from_millis(50), process, || child.wait().unwrap());
        assert!(!ended.success());
    }

    #[test]
    fn a_process_ends_with_the_test_that_has_started_it() {
        let child = Running::start(Command::new("sleep").arg("600"));
        let process = Pid::from_child(&child);
        drop(child);
        assert!(test_kill_process(process).is_err());
    }
}
