//! Finds and changes the bytes of a log that nobody has open.
#![expect(clippy::disallowed_methods, reason = "tests change files behind the log's back")]

use std::path::{Path, PathBuf};

use quipu_engine::format::group::{GroupHeader, GroupKind};
use quipu_engine::format::segment_header::SegmentHeader;
use quipu_engine::storage::{index_name, segment_name};

/// A log's folder.
pub struct Folder<'a>(pub &'a Path);

impl Folder<'_> {
    pub fn segment(&self, number: u64) -> PathBuf {
        self.0.join(segment_name(number))
    }

    pub fn index(&self, number: u64) -> PathBuf {
        self.0.join(index_name(number))
    }

    pub fn header(&self, number: u64) -> SegmentHeader {
        SegmentHeader::decode(&bytes(&self.segment(number))).expect("an activated segment")
    }

    /// The groups of a segment, in order.
    pub fn groups(&self, number: u64) -> Vec<GroupHeader> {
        groups_of(&bytes(&self.segment(number)))
    }

    pub fn data_groups(&self, number: u64) -> Vec<GroupHeader> {
        let groups = self.groups(number);
        groups.into_iter().filter(|group| group.kind == GroupKind::Data).collect()
    }

    /// The last segment that was activated.
    pub fn active(&self) -> u64 {
        let activated =
            |number: &u64| SegmentHeader::decode(&bytes(&self.segment(*number))).is_ok();
        let exists = |number: &u64| self.segment(*number).exists();
        let numbers = (1..u64::MAX).take_while(exists).take_while(activated);
        numbers.last().expect("the log has a segment")
    }

    /// Takes the last group away, as if its write had never begun: what precedes it is then no
    /// longer proven durable by it.
    pub fn erase_last_group(&self, number: u64) {
        let last = *self.groups(number).last().expect("the segment has groups");
        change(&self.segment(number), |bytes| bytes[range(&last)].fill(0));
    }

    /// Every file with its content, but for the lock.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.0).expect("the folder can be listed");
        let mut files: Vec<(String, Vec<u8>)> = entries
            .map(|entry| entry.expect("the folder can be listed"))
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), bytes(&entry.path())))
            .filter(|(name, _)| name != "lock")
            .collect();
        files.sort();
        files
    }

    pub fn names(&self) -> Vec<String> {
        self.snapshot().into_iter().map(|(name, _)| name).collect()
    }
}

/// The groups of a segment's bytes, in order.
pub fn groups_of(segment: &[u8]) -> Vec<GroupHeader> {
    let mut groups = Vec::new();
    let mut offset = 4_096;
    while let Some(group) = segment.get(offset..).and_then(GroupHeader::decode) {
        offset += group.group_bytes as usize;
        groups.push(group);
    }
    groups
}

/// The bytes of a group in its segment.
pub fn range(group: &GroupHeader) -> std::ops::Range<usize> {
    let start = usize::try_from(group.offset).expect("a small segment");
    start..start + group.group_bytes as usize
}

pub fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

pub fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = bytes(path);
    change(&mut content);
    write(path, content);
}

pub fn flip(path: &Path, at: usize) {
    change(path, |bytes| bytes[at] ^= 0x10);
}

pub fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap_or_else(|error| panic!("remove {}: {error}", path.display()));
}

pub fn remove_if_there(path: &Path) {
    if path.exists() {
        remove(path);
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for (name, content) in Folder(from).snapshot() {
        write(&to.join(name), content);
    }
}
