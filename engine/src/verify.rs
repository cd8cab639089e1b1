//! Checks a whole log without opening it: every header, group and record, the chain between them,
//! and, if asked, what the engine promises beyond the format. Writes nothing.

use std::io::ErrorKind;
use std::sync::Arc;

use quipu_types::{Corruption, Position, Record, Timestamp, Uuid, Version};

use crate::error::OpenError;
use crate::format::BLOCK_BYTES;
use crate::format::index_file::IndexFile;
use crate::format::run_file::Span;
use crate::format::sum::crc64;
use crate::index::builder::IndexBuilder;
use crate::index::keys::KeyHasher;
use crate::index::rebuild::unindexable;
use crate::recovery::chain::{Chain, Placed, place_from};
use crate::recovery::create::read_marker;
use crate::recovery::judge::{Behind, damage_in};
use crate::recovery::tail::scan_beside_writer;
use crate::segment::scanner::{ScanEnd, Scanner, Source, WholeGroup};
use crate::storage::{FileKind, ReadOrder, Storage, StorageFile, index_name, segment_name};
use patched_file::PatchedFile;
use runs::{Held, HeldAggregate};

mod patched_file;
mod runs;

/// How far a verification has come.
#[derive(Clone, Copy, Debug)]
pub struct VerifyProgress {
    /// Bytes of segments checked.
    pub bytes_done: u64,
    /// Bytes of segments in all.
    pub bytes_total: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Segments checked.
    pub segments: u64,
    /// Valid records.
    pub events: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// What is damaged, in order.
    pub damage: Vec<Corruption>,
    /// Index files that are missing or wrong, by segment; they are built again at the next start,
    /// or when they are needed.
    pub indexes: Vec<(u64, String)>,
    /// Runs of the index that are wrong; they are made again at the next start, or when they are
    /// needed.
    pub runs: Vec<String>,
    /// Bytes behind the last proven group of the active segment: writes under way, or a torn tail.
    pub unproven_bytes: u64,
}

/// Checks a log, up to the segment that is the last one when this begins. `deep` also compares each
/// index file and run with the segments, and checks that versions are contiguous, ids unique, and
/// `recorded_at` never decreases (in memory: about 200 bytes an event).
///
/// # Errors
/// That there is no log to check, or the disk refuses.
pub fn verify(
    storage: &Arc<dyn Storage>,
    deep: bool,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, OpenError> {
    let folder = Folder::read(&**storage)?;
    if folder.numbers.is_empty() && folder.log_id.is_none() {
        return Err(OpenError::NoLog);
    }
    let bytes_total = folder.bytes;
    let chains = folder.chains(&**storage)?;
    if folder.log_id.is_none() && chains.first().is_some_and(Chain::is_half_made) {
        return Err(OpenError::NoLog);
    }
    let log_id = chains.iter().find_map(|it| it.placed.first()).map(|first| first.header.log_id);
    let mut verifier = Verifier {
        storage,
        deep: log_id.filter(|_| deep).map(Deep::new),
        report: VerifyReport::default(),
        number: 0,
        ends_sealed: false,
        next_position: Position::FIRST,
        runs: folder.runs.clone(),
        missing_indexes: Vec::new(),
    };
    let mut chains = chains.into_iter().peekable();
    while let Some(chain) = chains.next() {
        for (at, placed) in chain.placed.iter().enumerate() {
            progress(VerifyProgress { bytes_done: verifier.report.bytes, bytes_total });
            verifier.segment(placed)?;
            verifier.runs_up_to(&chain.placed[..=at]);
        }
        match chains.peek() {
            Some(next) => verifier.note_break(chain, next),
            None => verifier.judge_end(chain)?,
        }
    }
    verifier.look_again_at_indexes();
    progress(VerifyProgress { bytes_done: bytes_total, bytes_total });
    Ok(verifier.report)
}

/// The segments that a folder has now.
struct Folder {
    numbers: Vec<u64>,
    /// First and last segments of runs.
    runs: Vec<(u64, u64)>,
    bytes: u64,
    log_id: Option<Uuid>,
}

impl Folder {
    fn read(storage: &dyn Storage) -> Result<Self, OpenError> {
        let files = storage.list().map_err(OpenError::io("list the folder"))?;
        let mut folder = Self { numbers: Vec::new(), runs: Vec::new(), bytes: 0, log_id: None };
        for file in &files {
            match FileKind::of(&file.name) {
                FileKind::Segment(number) => {
                    folder.numbers.push(number);
                    folder.bytes += file.bytes;
                }
                FileKind::Run(first, last) => folder.runs.push((first, last)),
                FileKind::Marker => folder.log_id = Some(read_marker(storage)?),
                _ => {}
            }
        }
        folder.numbers.sort_unstable();
        Ok(folder)
    }

    /// The chain of its segments, and behind each break the one that goes on.
    fn chains(&self, storage: &dyn Storage) -> Result<Vec<Chain>, OpenError> {
        let mut chain = place_from(storage, 1, &self.numbers, self.log_id)?;
        let first = chain.placed.first().map(|first| first.header.log_id);
        let log_id = self.log_id.or(first);
        let mut chains: Vec<Chain> = Vec::new();
        while let Some(broken) = chain.damage.as_ref().map(|damage| damage.segment) {
            // A segment that does not fit the one before it may be sound by itself.
            let is_known = |it: &Chain| it.damage.as_ref().is_some_and(|it| it.segment == broken);
            let was_known = chains.last().is_some_and(is_known);
            let first = if was_known { broken + 1 } else { broken };
            if !was_known {
                chains.push(chain);
            }
            let at = self.numbers.partition_point(|number| *number < first);
            let Some(first) = self.numbers.get(at) else { return Ok(chains) };
            chain = place_from(storage, *first, &self.numbers[at..], log_id)?;
        }
        chains.push(chain);
        Ok(chains)
    }
}

struct Verifier<'a> {
    storage: &'a Arc<dyn Storage>,
    deep: Option<Deep>,
    report: VerifyReport,
    /// Number of the segment that is or was last checked, or is known to be damaged.
    number: u64,
    /// The last segment checked ends with SEAL, and was not known to be followed by another.
    ends_sealed: bool,
    next_position: Position,
    /// First and last segments of the runs to check.
    runs: Vec<(u64, u64)>,
    /// Segments whose index was not there, with the sum of what it holds: a writer may be at it.
    missing_indexes: Vec<(u64, u64)>,
}

impl Verifier<'_> {
    fn segment(&mut self, placed: &Placed) -> Result<(), OpenError> {
        self.ends_sealed = false;
        let number = placed.header.number;
        let action = format!("read {}", segment_name(number));
        self.number = number;
        self.report.segments += 1;
        let file = placed.open(&**self.storage).map_err(OpenError::io(action.clone()))?;
        self.report.bytes += file.len().map_err(OpenError::io(action.clone()))?;
        let file = PatchedFile::new(file);
        let is_sealed = placed.seal.is_some();
        let checked =
            if is_sealed { self.sealed(placed, &file) } else { self.active(placed, &file) };
        checked.map_err(OpenError::io(action))
    }

    /// Checks the runs that end with the last of these segments.
    fn runs_up_to(&mut self, segments: &[Placed]) {
        let Some(Placed { header, seal: Some(seal), .. }) = segments.last() else { return };
        let ending: Vec<(u64, u64)> =
            self.runs.iter().filter(|run| run.1 == header.number).copied().collect();
        for (first_segment, last_segment) in ending {
            let before = first_segment.checked_sub(segments[0].header.number);
            let at = before.and_then(|before| usize::try_from(before).ok());
            let Some(first) = at.and_then(|at| segments.get(at)) else { continue };
            let span = Span::of_segment(first_segment, first.header.first_position, seal);
            let span = Span { last_segment, ..span };
            // Where segments are damaged there is nothing to compare with.
            let held = self.deep.as_ref().filter(|_| self.report.damage.is_empty());
            let held = held.map(|deep| &deep.held);
            let problem = runs::problem(&**self.storage, header.log_id, &span, held);
            self.report.runs.extend(problem);
        }
    }

    fn sealed(&mut self, placed: &Placed, file: &Arc<PatchedFile>) -> std::io::Result<()> {
        let header = &placed.header;
        // Not mapped: under a map an unreadable sector would end the process.
        let source = Source::File(Arc::<PatchedFile>::clone(file));
        let mut scanner = Scanner::new(source, header.clone());
        let hasher = KeyHasher::new(header.log_id);
        let mut index = IndexBuilder::new(hasher, header.first_position);
        let mut is_whole = true;
        loop {
            match scanner.next_group()? {
                Ok(whole) => {
                    index.push_group(&whole);
                    self.records(&whole.records);
                }
                Err(ScanEnd::Sealed) => break,
                Err(end) => {
                    is_whole = false;
                    if !self.note_damage(placed, file, &mut scanner, &end)? {
                        break;
                    }
                }
            }
        }
        if is_whole && self.deep.is_some() {
            match index.finish(header.segment_id, scanner.point().chain) {
                Ok(built) => self.compare_index(placed, &built),
                Err(fault) => self.report.damage.push(unindexable(header, fault)),
            }
        }
        Ok(())
    }

    /// Reports damage at the scanner's place and goes on behind it; false if nothing valid
    /// follows.
    fn note_damage(
        &mut self,
        placed: &Placed,
        file: &PatchedFile,
        scanner: &mut Scanner,
        end: &ScanEnd,
    ) -> std::io::Result<bool> {
        let (offset, first) = (scanner.point().offset, scanner.point().next_position);
        let next = scanner.skip_damage()?;
        let last = match (&next, &placed.seal) {
            (Some(group), _) => group.first_position.previous(),
            (None, Some(seal)) => seal.first_position.previous(),
            (None, None) => Position::MAX,
        };
        let behind = next.as_ref().or(placed.seal.as_ref()).map_or(u64::MAX, |it| it.offset);
        let problem = match file.unreadable_in(offset..behind.max(offset)) {
            Some(unreadable) => unreadable.to_string(),
            None => format!("at offset {offset}: {end}"),
        };
        let segment = placed.header.number;
        self.report.damage.push(Corruption { segment, first, last, problem });
        Ok(next.is_some())
    }

    fn active(&mut self, placed: &Placed, file: &Arc<PatchedFile>) -> std::io::Result<()> {
        let take = &mut |whole: WholeGroup| self.records(&whole.records);
        let source: Arc<dyn StorageFile> = Arc::<PatchedFile>::clone(file);
        let tail = scan_beside_writer(&placed.header, &source, take)?;
        let segment = placed.header.number;
        let damage = match file.unreadable_in(0..u64::MAX) {
            Some(unreadable) => {
                let (first, last) = (tail.next_position, Position::MAX);
                Some(Corruption { segment, first, last, problem: unreadable.to_string() })
            }
            None => damage_in(segment, &tail),
        };
        match (damage, tail.facts.last_nonzero) {
            (Some(damage), _) => self.report.damage.push(damage),
            (None, Some(last)) => {
                self.report.unproven_bytes = last + BLOCK_BYTES as u64 - tail.facts.end;
            }
            (None, None) => {}
        }
        self.ends_sealed = tail.end == ScanEnd::Sealed;
        self.next_position = tail.next_position;
        Ok(())
    }

    /// Reports where a chain is broken, and goes on behind it.
    fn note_break(&mut self, chain: Chain, next: &Chain) {
        let Some(mut damage) = chain.damage else { return };
        damage.first = damage.first.max(self.next_position);
        if let Some(next) = next.placed.first() {
            let first_position = next.header.first_position;
            damage.last = first_position.previous().max(damage.first);
            self.next_position = first_position;
            if let Some(deep) = &mut self.deep {
                deep.goes_on_at = first_position;
            }
        }
        self.number = damage.segment;
        self.report.damage.push(damage);
    }

    /// Judges what stands, or does not stand, behind the last segment.
    fn judge_end(&mut self, mut chain: Chain) -> Result<(), OpenError> {
        // A writer may have rolled since the folder was read: what looks like a missing file is
        // judged by what is there now. What the writer adds meanwhile is not checked: it might
        // never end.
        for _ in 0..2 {
            if self.damage_behind(&chain).is_some() {
                let chains = Folder::read(&**self.storage)?.chains(&**self.storage)?;
                chain = chains.into_iter().next_back().unwrap_or(chain);
            }
        }
        self.report.damage.extend(self.damage_behind(&chain));
        if let Some(mut damage) = chain.damage {
            damage.first = damage.first.max(self.next_position);
            self.report.damage.push(damage);
        }
        Ok(())
    }

    fn damage_behind(&self, chain: &Chain) -> Option<Corruption> {
        let has_rolled = chain.placed.last().is_some_and(|it| it.header.number > self.number);
        if has_rolled || chain.damage.is_some() {
            return None;
        }
        let (last, is_sealed) = (self.number, self.ends_sealed);
        let file = chain.last_file.as_ref().map(|(_, file)| file);
        Behind { last, is_sealed, next_position: self.next_position, file }.damage()
    }

    fn records(&mut self, records: &[Record]) {
        let segment = self.number;
        for record in records {
            self.report.events += 1;
            if let Some(deep) = &mut self.deep
                && let Some(problem) = deep.record(record, segment)
            {
                let (first, last) = (record.position(), record.position());
                self.report.damage.push(Corruption { segment, first, last, problem });
            }
        }
    }

    fn compare_index(&mut self, placed: &Placed, built: &IndexFile) {
        let number = placed.header.number;
        let problem = match self.storage.map(&index_name(number), ReadOrder::Sequential) {
            Ok(saved) if saved == built.as_bytes() => return,
            Ok(saved) => {
                let header = built.header();
                IndexFile::check(saved, header.segment_id, header.seal_sum)
                    .and_then(|saved| saved.check_all())
                    .err()
                    .map_or("it differs from one built anew".to_owned(), |it| it.to_string())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return self.missing_indexes.push((number, crc64(built.as_bytes())));
            }
            Err(error) => error.to_string(),
        };
        self.report.indexes.push((number, problem));
    }

    /// The index of a segment that a writer has just sealed is written a little later.
    fn look_again_at_indexes(&mut self) {
        for (number, sum) in std::mem::take(&mut self.missing_indexes) {
            match self.storage.map(&index_name(number), ReadOrder::Sequential) {
                Ok(saved) if crc64(&saved) == sum => {}
                Ok(_) => {
                    let problem = "it differs from one built anew".to_owned();
                    self.report.indexes.push((number, problem));
                }
                Err(error) => self.report.indexes.push((number, error.to_string())),
            }
        }
        self.report.indexes.sort();
    }
}

/// What the engine promises beyond the format.
struct Deep {
    hasher: KeyHasher,
    held: Held,
    last_recorded_at: Option<Timestamp>,
    /// First position behind the last break of the chain: what stood before it may have gone on in
    /// what is lost.
    goes_on_at: Position,
}

impl Deep {
    fn new(log_id: Uuid) -> Self {
        let (hasher, held) = (KeyHasher::new(log_id), Held::default());
        Self { hasher, held, last_recorded_at: None, goes_on_at: Position::START }
    }

    fn record(&mut self, record: &Record, segment: u64) -> Option<String> {
        let (version, position) = (record.version(), record.position());
        let key = self.hasher.wide(record.aggregate_type(), record.aggregate_id()).key;
        let aggregate = self.held.aggregates.entry(key).or_insert(HeldAggregate {
            version: Version::NONE,
            first: position,
            last: Position::START,
            segments: Vec::new(),
        });
        if aggregate.segments.last() != Some(&segment) {
            aggregate.segments.push(segment);
        }
        let before = std::mem::replace(&mut aggregate.version, version);
        let is_interrupted = aggregate.last < self.goes_on_at && version > before;
        aggregate.last = position;
        if version != before.next() && !is_interrupted {
            let key = record.aggregate();
            return Some(format!("{key} goes from version {before} to {version}"));
        }
        let id = record.event_id();
        if self.held.ids.insert(id.into_bytes(), position).is_some() {
            return Some(format!("event id {id} is stored twice"));
        }
        let recorded_at = record.recorded_at();
        match self.last_recorded_at.replace(recorded_at) {
            Some(last) if last > recorded_at => {
                Some(format!("recorded at {recorded_at}, after one recorded at {last}"))
            }
            _ => None,
        }
    }
}
