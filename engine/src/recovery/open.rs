//! Opening a log, from the folder to a sequencer that may start.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use quipu_types::{Corruption, Position, Uuid};

use super::chain::{Chain, LastFile, place};
use super::create::{create, read_marker, write_marker};
use super::decide::{TailCase, TailFacts, decide};
use super::folder::Folder;
use super::follow::Follower;
use super::gather::{Gathered, Gathering};
use super::judge::{Behind, damage_in};
use super::load;
use super::repair::{self, Barrier};
use super::report::{RecoveryReport, TornTail};
use super::tail::{ScannedTail, scan};
use crate::commit::head::Head;
use crate::commit::preparer::{PrepareError, Spare};
use crate::commit::sequencer::Start;
use crate::commit::watermark::CommitWatermark;
use crate::error::OpenError;
use crate::format::group::{GroupHeader, GroupKind};
use crate::format::run_file::Span;
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, IN_FLIGHT_BYTES_MAX};
use crate::host::tell;
use crate::index::generation::Generation;
use crate::index::indexer::IndexWork;
use crate::index::keys::KeyHasher;
use crate::index::rebuild::RebuildError;
use crate::index::sealed::{Part, SealedSet, Waiting};
use crate::index::sealed_index::SealedIndex;
use crate::options::LogOptions;
use crate::segment::scanner::ScanEnd;
use crate::segment::{Segment, Segments};
use crate::shared::{Environment, LogState, Shared};
use crate::storage::{LockError, LockGuard, StorageFile, is_no_space, segment_name};

mod read_only;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A log that is open.
pub struct Opened {
    /// What its parts share.
    pub shared: Arc<Shared>,
    /// Where its sequencer begins, if it takes appends.
    pub start: Option<Start>,
    /// Follows the writer, if it was opened read-only.
    pub follower: Option<Follower>,
    /// What was found and done.
    pub report: RecoveryReport,
    /// The folder's lock, if it was taken.
    pub lock: Option<LockGuard>,
}

/// How far opening has come: (segments done, segments in all).
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize);

/// Opens a log for writing, making it if the folder is empty.
///
/// # Errors
/// Why it cannot be opened. A damaged log is no error: it opens read-only.
pub fn open(
    env: Environment,
    options: LogOptions,
    progress: Progress<'_>,
) -> Result<Opened, OpenError> {
    options.check()?;
    // Not even a lock is left in a folder of other things.
    Folder::read(&env)?.refuse_foreign()?;
    let lock = env.storage.lock().map_err(|error| match error {
        LockError::Held(holder) => OpenError::Locked { holder },
        LockError::Io(error) => OpenError::Io { action: "lock the folder".to_owned(), error },
    })?;
    let mut folder = Folder::read(&env)?;
    folder.remove_temporary(&env)?;
    let mut created = false;
    if folder.is_new(&env)? {
        create(&env, &options)?;
        created = true;
        folder = Folder::read(&env)?;
    }
    let mut opening = Opening::begin(env, options, folder)?;
    opening.report.created = created;
    let mut opened = opening.finish(progress)?;
    opened.lock = Some(lock);
    Ok(opened)
}

/// Opens a log for reading: takes no lock, writes nothing, and shows what is proven durable.
///
/// # Errors
/// Why it cannot be opened.
pub fn open_read_only(
    env: Environment,
    options: LogOptions,
    progress: Progress<'_>,
) -> Result<Opened, OpenError> {
    options.check()?;
    let folder = Folder::read(&env)?;
    if folder.is_new(&env)? {
        return Err(OpenError::NoLog);
    }
    Opening::begin(env, options, folder)?.finish_read_only(progress)
}

struct Opening {
    env: Environment,
    options: LogOptions,
    log_id: Uuid,
    hasher: KeyHasher,
    chain: Chain,
    runs: Vec<(u64, u64)>,
    has_marker: bool,
    report: RecoveryReport,
}

/// The last segment of a log, which may be active.
struct Last {
    header: SegmentHeader,
    file: Arc<dyn StorageFile>,
}

impl Opening {
    fn begin(env: Environment, options: LogOptions, folder: Folder) -> Result<Self, OpenError> {
        let marker = if folder.has_marker { Some(read_marker(&*env.storage)?) } else { None };
        let chain = place(&*env.storage, &folder.segments, marker)?;
        let Some(first) = chain.placed.first() else {
            let problem = chain
                .damage
                .as_ref()
                .map_or_else(|| "segment 1 has no valid header".to_owned(), ToString::to_string);
            return Err(OpenError::Unreadable(problem));
        };
        let log_id = first.header.log_id;
        let report = RecoveryReport { log_id, unknown_files: folder.unknown, ..Default::default() };
        let hasher = KeyHasher::new(log_id);
        let Folder { runs, has_marker, .. } = folder;
        Ok(Self { env, options, log_id, hasher, chain, runs, has_marker, report })
    }

    /// The last segment of the chain.
    fn last(&mut self) -> Result<Last, OpenError> {
        let placed = self.chain.placed.pop().ok_or(OpenError::NoLog)?;
        let action = format!("open {}", segment_name(placed.header.number));
        let file = placed.open(&*self.env.storage).map_err(OpenError::io(action))?;
        Ok(Last { header: placed.header, file })
    }

    /// Loads every segment but the last; cuts the chain at the first that is damaged.
    fn load_sealed(
        &mut self,
        mut gathering: Option<&mut Gathering>,
        save: bool,
        progress: Progress<'_>,
    ) -> Result<Vec<Arc<Segment>>, OpenError> {
        let total = self.chain.placed.len();
        let mut segments = Vec::with_capacity(total);
        for (done, placed) in self.chain.placed.iter().enumerate() {
            progress(done, total);
            let Some(seal) = placed.seal else { break };
            let header = placed.header.clone();
            let number = header.number;
            let index = SealedIndex::new(&self.env.storage, header.clone(), seal, save);
            let known = index.look().and_then(|()| match &mut gathering {
                Some(gathering) => gathering.take(&self.chain.placed, done, &index),
                None => Ok(()),
            });
            match known {
                Ok(()) => {
                    self.report.rebuilt_indexes.extend(index.is_rebuilt().then_some(number));
                    segments.push(Arc::new(Segment::sealed(header, index)));
                }
                Err(RebuildError::Io(error)) => {
                    return Err(OpenError::Io { action: format!("read segment {number}"), error });
                }
                Err(RebuildError::Corruption(damage)) => {
                    // Without this segment's ids and versions no append can be checked.
                    self.chain.damage = Some(damage);
                    self.chain.placed.truncate(done + 1);
                    self.chain.placed[done].seal = None;
                    break;
                }
            }
        }
        progress(segments.len().min(total), total);
        Ok(segments)
    }

    fn finish(mut self, progress: Progress<'_>) -> Result<Opened, OpenError> {
        if !self.has_marker {
            write_marker(&*self.env.storage, self.log_id)?;
        }
        let runs = std::mem::take(&mut self.runs);
        let storage = &self.env.storage;
        let mut gathering = Gathering::new(storage, self.log_id, &self.options, runs);
        let segments = self.load_sealed(Some(&mut gathering), true, progress)?;
        let last = self.last()?;
        // What a process that died has written may still be in flight to the disk: no decision
        // may rest on what a power cut could yet take away.
        last.file.sync().map_err(OpenError::io("sync the active segment"))?;
        self.env.storage.sync_dir().map_err(OpenError::io("sync the folder"))?;
        let active =
            Segment::live(last.header.clone(), Arc::clone(&last.file), self.options.tail_bytes);
        let mut generation = Generation::new(self.hasher);
        let bytes = last.file.len().map_err(OpenError::io("measure the active segment"))?;
        let tail = load::while_scanning(&active, bytes, self.hasher, &mut generation, |take| {
            scan(&last.header, &last.file, take)
        })
        .map_err(OpenError::io(format!("read segment {}", last.header.number)))?;
        self.report.clean = tail.clean;
        self.report.last_position = tail.next_position.previous();
        self.judge(&last, &tail);
        if let Some(damage) = self.chain.damage.clone() {
            return Ok(self.read_only(segments, active, &tail, damage));
        }
        let gathered = gathering.finish();
        self.writable((segments, active), last, &tail, (gathered, generation))
    }

    /// Finds damage in the active segment and behind it.
    fn judge(&mut self, last: &Last, tail: &ScannedTail) {
        let number = last.header.number;
        let file = self.chain.last_file.as_ref().map(|(_, file)| file);
        let damage =
            damage_in(number, tail).or_else(|| Behind::scanned(number, tail, file).damage());
        if self.chain.damage.is_none() {
            self.chain.damage = damage;
        }
    }

    /// A damaged log: everything before the damage, for reading.
    fn read_only(
        mut self,
        mut segments: Vec<Arc<Segment>>,
        active: Segment,
        tail: &ScannedTail,
        mut damage: Corruption,
    ) -> Opened {
        damage.first = damage.first.max(tail.next_position);
        self.report.damage = Some(damage.clone());
        segments.push(Arc::new(active));
        self.opened(segments, tail.next_position, LogState::Damaged(damage), None)
    }

    fn writable(
        mut self,
        (mut segments, active): (Vec<Arc<Segment>>, Segment),
        last: Last,
        tail: &ScannedTail,
        (gathered, mut generation): (Gathered, Generation),
    ) -> Result<Opened, OpenError> {
        let Gathered { set: mut sealed, made, useless } = gathered;
        self.report.made_runs = made;
        let epoch = tail
            .epoch
            .checked_add(1)
            .ok_or_else(|| OpenError::Unreadable(format!("no epoch comes after {}", tail.epoch)))?;
        let (next, head, spare) = match self.begin_epoch(&last, tail, epoch) {
            Ok(Barriered::Started(start, spare)) => {
                let length = last.file.len().map_err(OpenError::io("measure a segment"))?;
                // A copy may end within a block of zeros: what is written ends with a block.
                let allocated = length / BLOCK * BLOCK;
                let active = Arc::new(active);
                let (end, segment) = (start.end(), Arc::clone(&active));
                let head =
                    Head::new(segment, Arc::clone(&last.file), end, start.sum, allocated, end);
                (active, head, spare)
            }
            Ok(Barriered::Rolled(seal, header, spare)) => {
                self.report.finished_roll = true;
                let first_position = last.header.first_position;
                let span = Span::of_segment(last.header.number, first_position, &seal);
                let next = generation.next(self.hasher);
                let generation = std::mem::replace(&mut generation, next);
                sealed.push(Part::Waiting(Arc::new(Waiting { span, generation })));
                segments.push(self.seal_active(active, last, &seal)?);
                let tail_bytes = self.options.tail_bytes;
                let next = Segment::live(header, Arc::clone(&spare.file), tail_bytes);
                let next = Arc::new(next);
                (Arc::clone(&next), Head::of_spare(next, &spare), None)
            }
            Err(OpenError::Io { action, error }) if is_no_space(&error) => {
                segments.push(Arc::new(active));
                let reason =
                    format!("cannot {action}: {error}; open the log again when there is space");
                let state = LogState::NoSpace(reason);
                return Ok(self.opened(segments, tail.next_position, state, None));
            }
            Err(error) => return Err(error),
        };
        segments.push(next);
        self.report.epoch = epoch;
        let start = Start {
            head,
            spare,
            active: generation,
            next_position: tail.next_position,
            last_recorded_at: tail.last_recorded_at,
            epoch,
        };
        for name in useless {
            // Nothing rests on it: one that stays is found useless again.
            if let Err(error) = self.env.storage.remove(&name)
                && error.kind() != ErrorKind::NotFound
            {
                tell!(warn, name, %error, "cannot remove a run that is of no use");
            }
        }
        Ok(self.opened(segments, tail.next_position, LogState::Writable, Some((start, sealed))))
    }

    /// Clears what a crash has left, and makes the new epoch durable.
    fn begin_epoch(
        &mut self,
        last: &Last,
        tail: &ScannedTail,
        epoch: u64,
    ) -> Result<Barriered, OpenError> {
        if decide(&tail.facts) == TailCase::Torn {
            self.cut_torn_tail(last, tail, epoch)?;
        }
        let spare_file = self.take_spare_file(last.header.number + 1, epoch)?;
        self.barrier(last, tail, epoch, spare_file).map_err(|error| {
            let error = match error {
                PrepareError::NoSpace(reason) => io::Error::new(ErrorKind::StorageFull, reason),
                PrepareError::Io(error) => error,
            };
            OpenError::Io { action: "write the start barrier".to_owned(), error }
        })
    }

    fn cut_torn_tail(
        &mut self,
        last: &Last,
        tail: &ScannedTail,
        epoch: u64,
    ) -> Result<(), OpenError> {
        let end = tail.facts.last_nonzero.unwrap_or(tail.facts.end) + BLOCK;
        let (segment, offset) = (last.header.number, tail.facts.end);
        let storage = &*self.env.storage;
        let copy = repair::keep_copy(storage, &*last.file, segment, (offset, end), epoch);
        repair::zero_tail(&*last.file, &tail.facts).map_err(OpenError::io("cut a torn tail"))?;
        let (bytes, groups, problem) = (end - offset, tail.strays, tail.end.to_string());
        self.report.torn = Some(TornTail { segment, offset, bytes, groups, problem, copy });
        Ok(())
    }

    /// The file prepared for the next segment, made zeros again if its header was torn.
    fn take_spare_file(
        &mut self,
        number: u64,
        epoch: u64,
    ) -> Result<Option<Arc<dyn StorageFile>>, OpenError> {
        match self.chain.last_file.take() {
            None => Ok(None),
            Some((_, LastFile::Spare(file))) => Ok(Some(file)),
            Some((_, LastFile::NoHeader { file, nonzero_end, .. })) => {
                self.clear_torn_header(&*file, number, nonzero_end, epoch)?;
                Ok(Some(file))
            }
        }
    }

    /// Only once all of it is in a copy: nobody knows what it is.
    fn clear_torn_header(
        &mut self,
        file: &dyn StorageFile,
        number: u64,
        nonzero_end: u64,
        epoch: u64,
    ) -> Result<(), OpenError> {
        let bytes = file.len().map_err(OpenError::io("measure a segment"))?;
        let copy = (nonzero_end <= IN_FLIGHT_BYTES_MAX)
            .then(|| repair::keep_copy(&*self.env.storage, file, number, (0, nonzero_end), epoch))
            .flatten();
        let copy = copy.ok_or_else(|| {
            let name = segment_name(number);
            OpenError::Unreadable(format!(
                "{name} was never a segment of the log, and no copy of what stands in it can be \
                 kept: move it out of the folder, and put an empty file in its place"
            ))
        })?;
        let facts = TailFacts {
            end: 0,
            durable_upto: 0,
            last_nonzero: Some(bytes.next_multiple_of(BLOCK).saturating_sub(BLOCK)),
        };
        repair::zero_tail(file, &facts).map_err(OpenError::io("clear a torn header"))?;
        self.report.torn_header = Some(copy);
        Ok(())
    }

    /// Makes the new epoch durable: START, or the next segment's header.
    fn barrier(
        &self,
        last: &Last,
        tail: &ScannedTail,
        epoch: u64,
        spare_file: Option<Arc<dyn StorageFile>>,
    ) -> Result<Barriered, PrepareError> {
        let barrier = Barrier {
            header: &last.header,
            file: &last.file,
            offset: tail.facts.end,
            chain: tail.chain,
            next_position: tail.next_position,
            epoch,
        };
        let storage = &*self.env.storage;
        let number = last.header.number + 1;
        if tail.end != ScanEnd::Sealed && barrier.start_fits() {
            let start = barrier.write(GroupKind::Start)?;
            let spare = spare_file
                .map(|file| repair::next_spare(storage, &self.options, number, Some(file)));
            return Ok(Barriered::Started(start, spare.transpose()?));
        }
        let spare = repair::next_spare(storage, &self.options, number, spare_file)?;
        let seal = match tail.last.filter(|_| tail.end == ScanEnd::Sealed) {
            Some(seal) => seal,
            None => barrier.write(GroupKind::Seal)?,
        };
        let of_epoch = (epoch, tail.last_recorded_at);
        let sealed = (&last.header, &seal);
        let header = repair::activate_next(&self.env, &self.options, sealed, &spare, of_epoch)?;
        Ok(Barriered::Rolled(seal, header, spare))
    }

    /// Turns the segment that was active, and is sealed now, over to its index.
    fn seal_active(
        &mut self,
        active: Segment,
        last: Last,
        seal: &GroupHeader,
    ) -> Result<Arc<Segment>, OpenError> {
        let index = SealedIndex::new(&self.env.storage, last.header.clone(), *seal, true);
        match index.look() {
            Ok(()) => Ok(Arc::new(Segment::sealed(last.header, index))),
            Err(RebuildError::Corruption(damage)) => {
                tell!(error, %damage, "cannot index a segment that was just scanned");
                Ok(Arc::new(active))
            }
            Err(RebuildError::Io(error)) => {
                let action = format!("read segment {}", last.header.number);
                Err(OpenError::Io { action, error })
            }
        }
    }

    fn opened(
        mut self,
        segments: Vec<Arc<Segment>>,
        next_position: Position,
        state: LogState,
        start: Option<(Start, SealedSet)>,
    ) -> Opened {
        self.report.segments = segments.len();
        let watermark = CommitWatermark::new(next_position.previous());
        let (start, sealed) = start.unzip();
        let content = (Segments::new(segments), sealed.unwrap_or_default());
        let Self { env, options, log_id, .. } = self;
        let shared = Arc::new(Shared::new(env, options, log_id, content, watermark, state));
        // Segments may wait for their runs since before.
        shared.index_queue.push(IndexWork::Tidy);
        Opened { shared, start, follower: None, report: self.report, lock: None }
    }
}

/// What the start barrier became.
enum Barriered {
    /// START in the active segment; the spare that was there.
    Started(GroupHeader, Option<Spare>),
    /// The segment is sealed, and the next one active under this header.
    Rolled(GroupHeader, SegmentHeader, Spare),
}
