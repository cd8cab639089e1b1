//! The index file of a sealed segment: looked at when the log is opened, checked where and when it
//! is needed, so that neither opening nor the first question takes longer the more the log holds.

use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use quipu_types::{Corruption, Position};

use super::keys::KeyHasher;
use super::rebuild::{self, RebuildError};
use crate::bug::{Bug, seeded};
use crate::format::group::GroupHeader;
use crate::format::index_file::IndexFile;
use crate::format::index_header::{INDEX_HEADER_BYTES, IndexFault, IndexHeader};
use crate::format::segment_header::SegmentHeader;
use crate::host::tell;
use crate::storage::{ReadOrder, Storage, StorageFile, index_name, is_lack};

/// Where a sealed segment's index is, and the index itself once somebody has needed it.
///
/// Invariants:
/// 1. The file is taken by whoever comes first; who comes meanwhile waits. The sequencer does not
///    wait here, but where a run is damaged.
/// 2. A file that is not valid, as a whole or where somebody needs it, is built again from its
///    segment. Where that is damaged, too, whoever needs the index is told, now and later.
/// 3. That the disk refuses is told, and forgotten: who comes next tries again.
pub struct SealedIndex {
    storage: Arc<dyn Storage>,
    header: SegmentHeader,
    seal: GroupHeader,
    /// Whether one that was built is saved: not where the log was opened read-only.
    saves: bool,
    taken: RwLock<Option<Result<Taken, Corruption>>>,
    taking: Mutex<()>,
}

/// Why the file is not taken.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Fault(#[from] IndexFault),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Unusable {
    /// Itself, where one that is built again can help.
    fn unless_lack(self) -> Result<Self, RebuildError> {
        match self {
            Self::Io(error) if is_lack(&error) => Err(error.into()),
            other => Ok(other),
        }
    }
}

#[derive(Clone)]
struct Taken {
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
        let storage = Arc::clone(storage);
        let (taken, taking) = (RwLock::default(), Mutex::default());
        Self { storage, header, seal, saves, taken, taking }
    }

    /// With an index that was just made of a segment: saved, it gives its memory back.
    #[must_use]
    pub fn made(
        storage: &Arc<dyn Storage>,
        header: SegmentHeader,
        seal: GroupHeader,
        file: IndexFile,
    ) -> Self {
        let index = Self::new(storage, header, seal, true);
        if !rebuild::save(&**storage, index.header.number, &file) {
            let taken = Taken { file: Arc::new(file), is_rebuilt: false };
            *index.taken.write() = Some(Ok(taken));
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
        matches!(&*self.taken.read(), Some(Ok(taken)) if taken.is_rebuilt)
    }

    /// Sees that the file is there, as long as it should be, and says that it is of this segment;
    /// else it is built again at once. Reads no more than its header.
    ///
    /// # Errors
    /// That it cannot be told now, or that it could not be built.
    pub fn look(&self) -> Result<(), RebuildError> {
        let Err(problem) = self.read_header() else { return Ok(()) };
        let taken = self.build(&problem.unless_lack()?)?;
        *self.taken.write() = Some(Ok(taken));
        Ok(())
    }

    /// Whether the file is there, as long as it should be, and of this segment.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.read_header().is_ok()
    }

    fn open(&self) -> io::Result<Arc<dyn StorageFile>> {
        self.storage.open_cached(&index_name(self.header.number))
    }

    fn read_header(&self) -> Result<IndexHeader, Unusable> {
        let mut start = [0; INDEX_HEADER_BYTES];
        let file = self.open()?;
        let (read, length) = (file.read(0, &mut start)?, file.len()?);
        let (segment_id, sum) = (self.header.segment_id, self.seal.sum);
        Ok(IndexHeader::read(&start[..read], length, segment_id, sum)?)
    }

    /// Reads the sums of blocks, which are checked together, in one piece: where the map is not
    /// read ahead, each of their pages would be waited for.
    fn read_sums_ahead(&self) -> Result<(), Unusable> {
        let sums_at = self.read_header()?.sums_at() as u64;
        let file = self.open()?;
        let bytes = file.len()?.saturating_sub(sums_at);
        file.read(sums_at, &mut vec![0; usize::try_from(bytes).unwrap_or(0)])?;
        Ok(())
    }

    /// Asks the index something; what it cannot answer, because it is damaged there, one that is
    /// built again answers.
    ///
    /// # Errors
    /// That neither the file nor, in its place, the segment can be read or is whole.
    pub fn ask<T>(
        &self,
        question: impl Fn(&IndexFile) -> Result<T, IndexFault>,
    ) -> Result<T, RebuildError> {
        let mut taken = self.take(None)?;
        loop {
            match question(&taken.file) {
                Ok(answer) => return Ok(answer),
                Err(fault) => taken = self.take(Some((&taken.file, fault)))?,
            }
        }
    }

    /// As [`Self::ask`], for a question that goes through all of the index, once.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_for_all<T>(
        &self,
        question: impl Fn(&IndexFile) -> Result<T, IndexFault>,
    ) -> Result<T, RebuildError> {
        match self.saved(ReadOrder::Sequential).map(|file| question(&file)) {
            Ok(Ok(answer)) => Ok(answer),
            // Whatever is wrong, it is met again there.
            Ok(Err(_)) | Err(_) => self.ask(question),
        }
    }

    /// The file as it was taken; the one in its place, where it was found at fault.
    fn take(&self, at_fault: Option<(&Arc<IndexFile>, IndexFault)>) -> Result<Taken, RebuildError> {
        let is_other = |taken: &Taken| match &at_fault {
            Some((file, _)) => !Arc::ptr_eq(file, &taken.file),
            None => true,
        };
        let known = || match &*self.taken.read() {
            Some(Ok(taken)) => Some(taken.clone()).filter(is_other).map(Ok),
            Some(Err(damage)) => Some(Err(damage.clone().into())),
            None => None,
        };
        if let Some(known) = known() {
            return known;
        }
        let _one_at_a_time = self.taking.lock();
        if let Some(known) = known() {
            return known;
        }
        let taken = match self.load(at_fault.map(|(_, fault)| fault)) {
            Ok(taken) => Ok(taken),
            Err(RebuildError::Corruption(damage)) => Err(damage),
            Err(error @ RebuildError::Io(_)) => return Err(error),
        };
        *self.taken.write() = Some(taken.clone());
        Ok(taken?)
    }

    fn load(&self, fault: Option<IndexFault>) -> Result<Taken, RebuildError> {
        let saved = fault.map_or_else(|| self.saved(ReadOrder::Random), |fault| Err(fault.into()));
        let problem = match saved {
            Ok(file) => return Ok(Taken { file: Arc::new(file), is_rebuilt: false }),
            Err(problem) => problem.unless_lack()?,
        };
        self.build(&problem).map_err(|error| self.without_index(&problem, error))
    }

    fn saved(&self, order: ReadOrder) -> Result<IndexFile, Unusable> {
        if order == ReadOrder::Random {
            self.read_sums_ahead()?;
        }
        let bytes = self.storage.map(&index_name(self.header.number), order)?;
        let file = IndexFile::check(bytes, self.header.segment_id, self.seal.sum)?;
        if seeded(Bug::TakesAnUncheckedIndex) {
            file.trust();
        }
        Ok(file)
    }

    fn build(&self, problem: &Unusable) -> Result<Taken, RebuildError> {
        let number = self.header.number;
        tell!(warn, segment = number, %problem, "building an index again");
        let hasher = KeyHasher::new(self.header.log_id);
        let built = rebuild::build(&*self.storage, hasher, &self.header)?;
        // A map of what was saved costs no memory. It is checked whole: `ask` must come to an end.
        let saved = self.saves && rebuild::save(&*self.storage, number, &built);
        let saved = saved.then(|| self.saved(ReadOrder::Sequential).ok()).flatten();
        let file = saved.filter(|saved| saved.check_all().is_ok()).unwrap_or(built);
        Ok(Taken { file: Arc::new(file), is_rebuilt: true })
    }

    /// Without its index none of a segment's records is found.
    fn without_index(&self, problem: &Unusable, error: RebuildError) -> RebuildError {
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
