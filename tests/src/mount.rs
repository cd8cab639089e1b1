//! File systems of their own for a test: a small one, a read-only one. Mounting takes root.
#![expect(clippy::print_stderr, reason = "a skipped test says so loudly")]

use std::path::Path;
use std::process::Command;

/// A mount, until it is dropped.
pub struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    /// A file system in memory of this size; `None`, with a loud line, where it cannot be mounted.
    pub fn small(at: &'a Path, bytes: u64) -> Option<Self> {
        Self::over(at, &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
    }

    /// A file system in memory for so many files, folders among them; `None`, with a loud line,
    /// where it cannot be mounted.
    pub fn for_files(at: &'a Path, files: u64) -> Option<Self> {
        Self::over(at, &["-t", "tmpfs", "-o", &format!("nr_inodes={files}"), "tmpfs"])
    }

    /// The folder over itself, read-only; `None`, with a loud line, where it cannot be mounted.
    pub fn read_only(at: &'a Path) -> Option<Self> {
        let source = at.to_string_lossy();
        let mount = Self::over(at, &["--bind", &source])?;
        // A bind mount takes its options only when it is mounted again.
        run("mount", &["-o", "remount,bind,ro", &source]).then_some(mount)
    }

    fn over(at: &'a Path, arguments: &[&str]) -> Option<Self> {
        let target = at.to_string_lossy();
        run("mount", &[arguments, &[&target]].concat()).then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0.to_string_lossy()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let problem = match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("SKIPPED: {program} {} failed: {problem}", arguments.join(" "));
    false
}
