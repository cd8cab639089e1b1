//! A file system of a test's own, in a file: its power can be cut, and it can be filled.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it makes, mounts and fills a file system that is no log"
)]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tempfile::TempDir;

use super::power;

/// How long something may hold on to a file system that is to be unmounted.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);
const BALLAST: &str = "ballast";
/// The group of quotas of the first folder that is counted on a Btrfs: the log's.
const FIRST_SUBVOLUME: &str = "0/256";

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    /// The one that counts what a folder takes whatever the kernel was built with: it has quotas.
    Btrfs,
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "XFS",
            Self::Btrfs => "Btrfs",
        })
    }
}

/// A mounted file; unmounted when it is dropped.
pub struct LoopDisk {
    image: PathBuf,
    at: PathBuf,
    is_mounted: bool,
    ballast: Option<File>,
    _folder: TempDir,
}

impl LoopDisk {
    /// A new file system of this size in a file below this folder. The file is sparse.
    pub fn new(kind: FileSystem, below: &Path, bytes: u64) -> Result<Self> {
        let folder = tempfile::tempdir_in(below)?;
        let (image, at) = (folder.path().join("image"), folder.path().join("mounted"));
        File::create(&image)?.set_len(bytes)?;
        std::fs::create_dir(&at)?;
        let path = image.to_string_lossy();
        match kind {
            FileSystem::Ext4 => run("mkfs.ext4", &["-q", "-F", "-m", "0", &path])?,
            FileSystem::Xfs => run("mkfs.xfs", &["-q", "-f", &path])?,
            FileSystem::Btrfs => run("mkfs.btrfs", &["-q", "-f", &path])?,
        }
        let mut disk = Self { image, at, is_mounted: false, ballast: None, _folder: folder };
        disk.mount()?;
        if kind == FileSystem::Btrfs {
            disk.count_what_the_log_takes()?;
        }
        Ok(disk)
    }

    fn count_what_the_log_takes(&self) -> Result<()> {
        run("btrfs", &["quota", "enable", &self.at.to_string_lossy()])?;
        run("btrfs", &["subvolume", "create", &self.log().to_string_lossy()])
    }

    /// Where a log on it lies.
    pub fn log(&self) -> PathBuf {
        self.at.join("log")
    }

    /// The log may take so many bytes more than its files have now; with `None`, as many as it
    /// likes. Btrfs only.
    pub fn limit(&self, more: Option<u64>) -> Result<()> {
        let mut taken = 0;
        for entry in std::fs::read_dir(self.log())? {
            taken += entry?.metadata().map_or(0, |file| file.len());
        }
        let limit = more.map_or("none".to_owned(), |more| (taken + more).to_string());
        // Said of the whole file system: in the folder that is full it would be refused, too.
        run("btrfs", &["qgroup", "limit", &limit, FIRST_SUBVOLUME, &self.at.to_string_lossy()])
    }

    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Whatever is not on the disk yet is lost. Nobody can do anything until it is mounted again.
    pub fn cut_power(&self) -> Result<()> {
        power::cut(File::open(&self.at)?).context("cannot shut the file system down")
    }

    /// The power is back; nobody may have a file open.
    pub fn mount_again(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Bytes that can still be taken.
    pub fn free_bytes(&self) -> Result<u64> {
        let space = statvfs(&self.at)?;
        Ok(space.f_bavail * space.f_frsize)
    }

    /// Takes all space but these bytes; what somebody else took meanwhile is not there to be taken.
    pub fn fill(&mut self, but: u64) -> Result<()> {
        let path = self.at.join(BALLAST);
        let ballast = match self.ballast.take() {
            Some(ballast) => ballast,
            None => OpenOptions::new().create(true).truncate(true).write(true).open(path)?,
        };
        let mut step = 64 << 20;
        while step >= 4096 {
            let taken = ballast.metadata()?.len();
            let fits = self.free_bytes()? >= but + step;
            if !fits || fallocate(&ballast, FallocateFlags::empty(), taken, step).is_err() {
                step /= 2;
            }
        }
        self.ballast = Some(ballast);
        Ok(())
    }

    /// Gives back the space that was taken.
    pub fn free(&mut self) -> Result<()> {
        self.ballast = None;
        match std::fs::remove_file(self.at.join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn mount(&mut self) -> Result<()> {
        let (image, at) = (self.image.to_string_lossy(), self.at.to_string_lossy());
        run("mount", &["-o", "loop", &image, &at])?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        self.ballast = None;
        let start = Instant::now();
        let at = self.at.to_string_lossy();
        while let Err(error) = run("umount", &[&at]) {
            ensure!(start.elapsed() < UNMOUNT_PATIENCE, error);
            std::thread::sleep(Duration::from_millis(20));
        }
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        self.ballast = None;
        // A file that is still open keeps it until it is closed; the loop device goes with it.
        if self.is_mounted {
            run("umount", &["--lazy", &self.at.to_string_lossy()]).ok();
        }
    }
}

/// Runs a program of the system.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let line = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output().context(line.clone())?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line} failed: {}", problem.trim());
    Ok(())
}
