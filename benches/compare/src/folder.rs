//! Files: where the systems keep their data, what the kernel tells, and what is written at the end.
#![expect(
    clippy::disallowed_methods,
    reason = "the folders of rivals are no log behind the storage seam"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder of its own for one system; dropped, it is removed, and the disk is at rest.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes it anew.
    pub(crate) fn create(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Gives it to a user, by the numbers in the system's list of users.
    pub(crate) fn give_to(&self, user: &str) -> Result<()> {
        let users = fs::read_to_string("/etc/passwd").context("cannot read the users")?;
        let (owner, group) = numbers_of(&users, user)
            .with_context(|| format!("there is no user {user} to run as"))?;
        chown(&self.0, Some(owner), Some(group))?;
        Ok(())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Bytes of the disk that the files in it take.
    pub(crate) fn used_bytes(&self) -> u64 {
        used_bytes(&self.0)
    }
}

impl Drop for Folder {
    /// What the kernel has not written yet would fall into the next measurement.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
        rustix::fs::sync();
    }
}

fn numbers_of(users: &str, user: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(user))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Files come and go while a server runs: what is gone takes no space.
fn used_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => used_bytes(&entry.path()),
        Ok(facts) => facts.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of_entry).sum()
}

/// `/proc/PID/stat` of all processes.
pub(crate) fn process_stats() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let stats = entries.flatten().map(|entry| fs::read_to_string(entry.path().join("stat")));
    stats.flatten().collect()
}

/// The text of a file; nothing where it cannot be read.
pub(crate) fn text_or_nothing(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file whole, into a folder that is made where it is missing.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    fs::write(path, text).with_context(failed)
}

/// The newest of the folders `parent/*/bin`, as Debian installs versions side by side.
pub(crate) fn newest_bin(parent: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(parent).ok()?.flatten();
    let newest = versions
        .max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0))?;
    Some(newest.path().join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_numbers_are_found_by_the_whole_name() {
        let users = "postgresql:x:1:2::/:/bin/sh\npostgres:x:105:112:,,,:/var:/bin/bash\n";
        assert_eq!(numbers_of(users, "postgres"), Some((105, 112)));
        assert_eq!(numbers_of(users, "post"), None);
    }

    #[test]
    fn a_folder_says_how_full_it_is_and_goes_with_its_files() {
        let name = format!("quipu-compare-test-{}", std::process::id());
        let folder = Folder::create(&std::env::temp_dir(), &name).unwrap();
        let path = folder.path().to_owned();
        write(&path.join("a/b"), &"x".repeat(100_000)).unwrap();
        rustix::fs::sync();
        assert!((100_000..200_000).contains(&folder.used_bytes()), "{}", folder.used_bytes());
        drop(folder);
        assert!(!path.exists());
    }
}
