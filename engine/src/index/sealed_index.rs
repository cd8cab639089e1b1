//! The index file of a sealed segment: looked at when the log is opened, checked whole when it is
//! first needed, so that opening takes no longer the more the log holds.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use quipu_types::{Corruption, Position};

use super::keys::KeyHasher;
use super::rebuild::{self, RebuildError};
use crate::bug::{Bug, seeded};
use crate::format::group::GroupHeader;
use crate::format::index_file::{INDEX_HEADER_BYTES, IndexFile, IndexHeader};
use crate::format::segment_header::SegmentHeader;
use crate::format::sum::crc64;
use crate::storage::{Storage, index_name};

/// Where a sealed segment's index is, and the index itself once somebody has needed it.
///
/// Invariants:
/// 1. Nothing of the file is used before all of it was checked, once, by whoever comes first; who
///    comes meanwhile waits. The sequencer does not wait here, but where a run is damaged.
/// 2. A file that is not valid is built again from its segment. Where that is damaged, too,
///    whoever needs the index is told, now and later.
/// 3. That the disk refuses is told, and forgotten: who comes next tries again.
pub struct SealedIndex {
    storage: Arc<dyn Storage>,
    header: SegmentHeader,
    seal: GroupHeader,
    /// Whether one that was built is saved: not where the log was opened read-only.
    saves: bool,
    checked: OnceLock<Result<Checked, Corruption>>,
    checking: Mutex<()>,
}

struct Checked {
    file: Arc<IndexFile>,
    is_rebuilt: bool,
}

impl SealedIndex {
    /// The index of the segment with this header and SEAL. Nothing is read yet.
    #[must_use]
    pub fn new(
        storage: &Arc<dyn Storage>,
        header: SegmentHeader,
        seal: GroupHeader,
        saves: bool,
    ) -> Self {
        let (storage, checked) = (Arc::clone(storage), OnceLock::new());
        Self { storage, header, seal, saves, checked, checking: Mutex::new(()) }
    }

    /// With an index that was just made of a segment: saved, it gives its memory back.
    #[must_use]
    pub fn made(
        storage: &Arc<dyn Storage>,
        header: SegmentHeader,
        seal: GroupHeader,
        file: IndexFile,
    ) -> Self {
        let mut index = Self::new(storage, header, seal, true);
        if !rebuild::save(&**storage, index.header.number, &file) {
            let checked = Checked { file: Arc::new(file), is_rebuilt: false };
            index.checked = OnceLock::from(Ok(checked));
        }
        index
    }

    /// Position of the segment's last record, by its SEAL; the one before its first if it has none.
    #[must_use]
    pub fn last_position(&self) -> Position {
        self.seal.first_position.previous()
    }

    /// Whether the file was missing or not valid, and was built again.
    #[must_use]
    pub fn is_rebuilt(&self) -> bool {
        matches!(self.checked.get(), Some(Ok(checked)) if checked.is_rebuilt)
    }

    /// Sees that the file is there, as long as it should be, and says that it is of this segment;
    /// else it is built again at once. Reads no more than its header.
    ///
    /// # Errors
    /// That it could not be built.
    pub fn look(&self) -> Result<(), RebuildError> {
        let Err(problem) = self.read_header() else { return Ok(()) };
        let file = self.build(&problem)?;
        self.checked.get_or_init(|| Ok(Checked { file, is_rebuilt: true }));
        Ok(())
    }

    fn read_header(&self) -> Result<(), String> {
        let file = self.storage.open_cached(&index_name(self.header.number));
        let file = file.map_err(|error| error.to_string())?;
        let mut start = [0; INDEX_HEADER_BYTES];
        let read = file.read(0, &mut start).map_err(|error| error.to_string())?;
        let length = file.len().map_err(|error| error.to_string())?;
        IndexHeader::read(&start[..read], length, self.header.segment_id, self.seal.sum)
            .map(|_| ())
            .map_err(|fault| fault.to_string())
    }

    /// The index, checked.
    ///
    /// # Errors
    /// That neither the file nor, in its place, the segment can be read or is whole.
    pub fn file(&self) -> Result<Arc<IndexFile>, RebuildError> {
        if let Some(checked) = self.checked.get() {
            return known(checked);
        }
        let _one_at_a_time = self.checking.lock();
        if let Some(checked) = self.checked.get() {
            return known(checked);
        }
        let checked = match self.load() {
            Ok(checked) => Ok(checked),
            Err(RebuildError::Corruption(damage)) => Err(damage),
            Err(error @ RebuildError::Io(_)) => return Err(error),
        };
        known(self.checked.get_or_init(|| checked))
    }

    fn load(&self) -> Result<Checked, RebuildError> {
        let problem = match self.saved() {
            Ok(file) => return Ok(Checked { file, is_rebuilt: false }),
            Err(problem) => problem,
        };
        let file = self.build(&problem).map_err(|error| self.without_index(&problem, error))?;
        Ok(Checked { file, is_rebuilt: true })
    }

    fn saved(&self) -> Result<Arc<IndexFile>, String> {
        let bytes = self.storage.map(&index_name(self.header.number));
        let bytes = bytes.map_err(|error| error.to_string())?;
        let bytes = if seeded(Bug::TakesAnUncheckedIndex) { with_its_sum(&bytes) } else { bytes };
        IndexFile::check(bytes, self.header.segment_id, self.seal.sum)
            .map(Arc::new)
            .map_err(|fault| fault.to_string())
    }

    fn build(&self, problem: &str) -> Result<Arc<IndexFile>, RebuildError> {
        let number = self.header.number;
        tracing::warn!(segment = number, problem, "building an index again");
        let hasher = KeyHasher::new(self.header.log_id);
        let built = rebuild::build(&*self.storage, hasher, &self.header)?;
        if self.saves
            && rebuild::save(&*self.storage, number, &built)
            && let Ok(saved) = self.saved()
        {
            return Ok(saved);
        }
        Ok(Arc::new(built))
    }

    /// Without its index none of a segment's records is found.
    fn without_index(&self, problem: &str, error: RebuildError) -> RebuildError {
        let RebuildError::Corruption(damage) = error else { return error };
        Corruption {
            first: self.header.first_position,
            last: self.last_position(),
            problem: format!(
                "its index is not valid ({problem}), and cannot be built again: {}",
                damage.problem
            ),
            ..damage
        }
        .into()
    }
}

fn known(checked: &Result<Checked, Corruption>) -> Result<Arc<IndexFile>, RebuildError> {
    match checked {
        Ok(checked) => Ok(Arc::clone(&checked.file)),
        Err(damage) => Err(damage.clone().into()),
    }
}

/// These bytes with a sum that matches them, whatever they are; see [`crate::bug`].
fn with_its_sum(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some((content, sum)) = bytes.split_last_chunk_mut() {
        *sum = crc64(content).to_le_bytes();
    }
    Bytes::from(bytes)
}
