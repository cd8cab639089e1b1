//! What a file holds: the bytes that readers see, and those that the medium would give back.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

pub(super) const SECTOR: usize = 512;

/// A file's bytes, shared by all names and handles of it.
pub(super) type Content = Arc<Mutex<FileState>>;

#[derive(Default)]
pub(super) struct FileState {
    pub(super) bytes: Vec<u8>,
    /// Length that a crash cannot take back.
    pub(super) durable_length: usize,
    /// Sectors that are in the disk's cache only, with what the medium has in their place.
    cached: BTreeMap<usize, Vec<u8>>,
}

impl FileState {
    /// A file that is on the medium as it is.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { durable_length: bytes.len(), bytes, cached: BTreeMap::new() }
    }

    /// Makes the file at least so long, with zeros.
    pub(super) fn extend_to(&mut self, end: usize) {
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
    }

    /// Writes to the medium.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.put(offset, bytes);
        self.durable_length = self.durable_length.max(offset + bytes.len());
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.extend_to(end);
        self.bytes[offset..end].copy_from_slice(bytes);
        if !self.cached.is_empty() {
            self.cached.retain(|at, _| *at + SECTOR <= offset || *at >= end);
        }
    }

    /// Writes those sectors that `reaches` says to the cache: readers see them, a loss of power may
    /// take each back.
    pub(super) fn write_cached(
        &mut self,
        offset: usize,
        bytes: &[u8],
        mut reaches: impl FnMut() -> bool,
    ) {
        for (index, sector) in bytes.chunks(SECTOR).enumerate().filter(|_| reaches()) {
            let at = offset + index * SECTOR;
            self.extend_to(at + sector.len());
            let before = self.bytes[at..at + sector.len()].to_vec();
            self.bytes[at..at + sector.len()].copy_from_slice(sector);
            self.cached.entry(at).or_insert(before);
        }
    }

    /// Everything in the cache goes to the medium.
    pub(super) fn sync(&mut self) {
        self.cached.clear();
        self.durable_length = self.bytes.len();
    }

    /// The power is gone, and with it any of what was only in the cache.
    pub(super) fn lose_cache(&mut self, rng: &mut Rng) {
        for (at, before) in std::mem::take(&mut self.cached) {
            if rng.bool() {
                self.bytes[at..at + before.len()].copy_from_slice(&before);
            }
        }
        if self.durable_length < self.bytes.len() && rng.bool() {
            self.bytes.truncate(self.durable_length);
        }
    }

    /// A write is interrupted: each sector is old, new or garbage. Where `recycled` is given, the
    /// garbage is what another file has in the same place.
    pub(super) fn tear(
        &mut self,
        offset: usize,
        bytes: &[u8],
        recycled: Option<&[u8]>,
        rng: &mut Rng,
    ) {
        let kind = rng.u8(0..5);
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = offset + index * SECTOR;
            let old = recycled.and_then(|it| it.get(at..at + sector.len()));
            match (kind, rng.u8(0..8), old) {
                // Some writes are lost or arrive whole, most are mixed.
                (0, ..) | (3.., 0..4, _) => {}
                (1, ..) | (3.., 4..7, _) => self.put(at, sector),
                (2, _, Some(old)) => self.put(at, old),
                _ => {
                    let garbage = self.garbage(sector.len(), rng);
                    self.put(at, &garbage);
                }
            }
        }
    }

    /// Random bytes, or those of another sector of the file.
    fn garbage(&self, length: usize, rng: &mut Rng) -> Vec<u8> {
        let sectors = self.bytes.len() / SECTOR;
        if sectors > 0 && rng.bool() {
            let start = rng.usize(0..sectors) * SECTOR;
            return self.bytes[start..start + length.min(SECTOR)].to_vec();
        }
        let mut garbage = vec![0; length];
        rng.fill(&mut garbage);
        garbage
    }
}
