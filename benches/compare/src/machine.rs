//! What machine this is, as far as figures depend on it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::folder::text_or_nothing;

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) system: String,
    pub(crate) kernel: String,
    /// Of TCP.
    pub(crate) congestion_control: String,
    pub(crate) file_system: String,
}

impl Machine {
    /// This one, with the file system of a folder.
    pub(crate) fn this(folder: &Path) -> Self {
        let memory = value_of(&text_or_nothing("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let release = text_or_nothing("/etc/os-release");
        let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            processor: value_of(&text_or_nothing("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (memory_kib + (1 << 19)) >> 20,
            system: system.unwrap_or("an unknown system").trim_matches('"').to_owned(),
            kernel: text_or_nothing("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion_control: text_or_nothing("/proc/sys/net/ipv4/tcp_congestion_control")
                .trim()
                .to_owned(),
            file_system: file_system(&text_or_nothing("/proc/self/mounts"), folder),
        }
    }

    /// In one line.
    pub(crate) fn text(&self) -> String {
        let Self { processor, cores, memory_gib, system, kernel, congestion_control, file_system } =
            self;
        format!(
            "{cores} cores ({processor}), {memory_gib} GiB, {file_system}, {system}, \
             Linux {kernel} with {congestion_control} congestion control"
        )
    }

    /// Whether what is written there is only in memory.
    pub(crate) fn keeps_files_in_memory(&self) -> bool {
        ["tmpfs", "ramfs"].contains(&self.file_system.as_str())
    }
}

fn value_of(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    });
    value.unwrap_or("unknown").to_owned()
}

/// Of the mount whose place is the longest that the folder is in.
fn file_system(mounts: &str, folder: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        folder.starts_with(place).then_some((place.len(), kind))
    });
    mounts.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_says_which_file_system_it_is() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/b xfs rw 0 0\n";
        let of = |path: &str| file_system(mounts, Path::new(path));
        assert_eq!([of("/srv/x"), of("/tmp/x"), of("/tmp/b/x")], ["ext4", "tmpfs", "xfs"]);
        assert_eq!(of("/tmp/bb"), "tmpfs");
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::this(Path::new("/"));
        assert!(machine.cores > 0 && machine.memory_gib > 0, "{machine:?}");
    }
}
