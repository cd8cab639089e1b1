//! A folder for a log that is only made to be tried out: gone at the end, also where the command
//! is interrupted.
#![expect(clippy::disallowed_methods, reason = "the folder is this command's own")]

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::runtime::Builder;

use crate::failure::Failure;
use crate::signals::Signals;

/// What a shell expects of a command that an interrupt has ended.
const INTERRUPTED: i32 = 130;
/// The log may still make files while its folder is removed.
const TRIES: usize = 100;

/// The folder.
pub(crate) struct TemporaryLog(TempDir);

impl TemporaryLog {
    /// Makes one in this folder.
    pub(crate) fn create(parent: &Path, prefix: &str) -> Result<Self, Failure> {
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
        let made = made.map_err(|error| {
            Failure::Unreachable(format!("cannot write in {}: {error}", parent.display()))
        })?;
        remove_if_interrupted(made.path().to_owned())?;
        Ok(Self(made))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes it.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.0.close().map_err(|error| Failure::Unreachable(format!("cannot remove it: {error}")))
    }
}

fn remove_if_interrupted(folder: PathBuf) -> Result<(), Failure> {
    let cannot = |error| Failure::Unreachable(format!("cannot wait for signals: {error}"));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let wait = move || {
        runtime.block_on(signals.next());
        for _ in 0..TRIES {
            if std::fs::remove_dir_all(&folder).is_ok() || !folder.exists() {
                break;
            }
        }
        std::process::exit(INTERRUPTED);
    };
    std::thread::Builder::new().name("quipu-signals".to_owned()).spawn(wait).map_err(cannot)?;
    Ok(())
}
