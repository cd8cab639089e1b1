//! The sorted runs of the index: whatever becomes of their files, ids and versions are known, and
//! the files are made again.
#![expect(clippy::unwrap_used, reason = "a failure is a panic with its reason")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quipu_engine::commit::outcome::Answer;
use quipu_engine::format::BLOCK_BYTES;
use quipu_engine::format::run_file::RunFault;
use quipu_engine::index::indexer::IndexWork;
use quipu_engine::storage::{
    Access, Backend, DiskStorage, FileKind, Mapping, index_name, run_name, segment_name,
};
use quipu_engine::{
    Environment, EventLog, LogOptions, OpenError, Origin, Storage, VerifyReport, verify,
};
use quipu_tests::events::event;
use quipu_tests::faulty_disk::{Fault, Faults, FaultyDisk, Operation};
use quipu_tests::memory_disk::{MemoryDisk, SetClock, environment};
use quipu_tests::stepped_log::SteppedLog;
use quipu_tests::tamper::Folder;
use quipu_types::{AggregateKey, Append, AppendError, ExpectedVersion, NewEvent, Version};

const EVENTS: u64 = 200;
const AGGREGATES: u64 = 40;

/// Segments of a few events each.
fn options() -> LogOptions {
    let mut options =
        LogOptions { segment_bytes: 32 * 1024, index_fan_in: 3, ..Default::default() };
    options.limits.append_bytes_max = 8 * 1024;
    options.limits.event_bytes_max = 4 * 1024;
    options
}

fn open(disk: &MemoryDisk) -> SteppedLog {
    SteppedLog::open(disk.environment(), options()).expect("the log opens")
}

/// The event with this number, of one of the aggregates.
fn numbered(number: u64) -> NewEvent {
    let key = AggregateKey::new("Call", (number % AGGREGATES).to_string());
    let mut event = event(number.into(), &key, "Created");
    event.payload = format!("{{\"n\":{number},\"x\":\"{}\"}}", "x".repeat(1_000)).into_bytes();
    event
}

/// A log with runs of several sizes, closed in order.
fn filled() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let log = open(&disk);
    for number in 1..=EVENTS {
        log.append_each(&[Append::any(vec![numbered(number)])]);
    }
    log.close();
    disk
}

/// Runs by their first and last segments, with their files.
fn runs(disk: &MemoryDisk) -> BTreeMap<(u64, u64), Vec<u8>> {
    let run = |name: String| match FileKind::of(&name) {
        FileKind::Run(first, last) => Some(((first, last), disk.content(&name))),
        _ => None,
    };
    disk.names().into_iter().filter_map(run).collect()
}

/// Every id is known, every aggregate's version is what it was, and nothing else is.
fn knows_everything(log: &SteppedLog) {
    let answer = |append: Append| {
        log.append_together(&[append], Origin::Client).pop().expect("one append, one answer")
    };
    for number in 1..=EVENTS {
        let outcome = answer(Append::any(vec![numbered(number)])).expect("it is stored already");
        assert!(outcome.duplicate && outcome.positions[0].0 == number, "{number}: {outcome:?}");
    }
    for aggregate in 0..AGGREGATES {
        let expected = ExpectedVersion::Exact(Version(7_777));
        let refused = answer(Append::one(numbered(AGGREGATES * 1_000 + aggregate), expected));
        let Err(AppendError::Conflict(conflicts)) = refused else {
            panic!("{aggregate}: {refused:?}")
        };
        assert_eq!(conflicts[0].actual, Version(EVENTS / AGGREGATES), "{aggregate}");
    }
    assert_eq!(log.log().known(), (AGGREGATES, EVENTS));
}

fn verified(disk: &MemoryDisk, deep: bool) -> VerifyReport {
    let storage = disk.environment().storage;
    verify(&storage, deep, &mut |_| {}).expect("there is a log")
}

#[test]
fn runs_are_few_and_the_next_opening_takes_them_as_they_are() {
    let disk = filled();
    let found = runs(&disk);
    let sizes: Vec<u64> = found.keys().map(|(first, last)| last - first + 1).collect();
    assert!(sizes.contains(&9) && sizes.len() <= 6, "{sizes:?}");
    let log = open(&disk);
    assert_eq!(log.log().recovery_report().made_runs, 0);
    knows_everything(&log);
    assert_eq!(log.log().status().unwrap().index.runs, found.len());
    drop(log);
    assert!(runs(&disk) == found, "nothing was written anew");
    let report = verified(&disk, true);
    assert!(report.runs.is_empty() && report.damage.is_empty(), "{report:?}");
}

#[test]
fn runs_that_are_missing_cut_or_of_other_segments_are_made_again() {
    let disk = filled();
    let original = runs(&disk);
    let (first, other) = (original.keys().next().unwrap(), original.keys().last().unwrap());
    let name = run_name(first.0, first.1);
    let content = &original[first];
    let half = content[..content.len() / 2].to_vec();
    let longer = [content.as_slice(), &[0; 4_096]].concat();
    for broken in [None, Some(Vec::new()), Some(half), Some(longer), Some(original[other].clone())]
    {
        let disk = disk.copy();
        match broken {
            Some(broken) => disk.put(&name, &broken),
            None => disk.remove(&name).unwrap(),
        }
        let log = open(&disk);
        let made = log.log().recovery_report().made_runs as u64;
        assert_eq!(made, first.1 - first.0 + 1, "one of each of its segments");
        knows_everything(&log);
        drop(log);
        assert!(runs(&disk) == original, "merged again, they are what they were");
    }
    for name in original.keys().map(|run| run_name(run.0, run.1)) {
        disk.remove(&name).unwrap();
    }
    let log = SteppedLog::open_untouched(disk.environment(), options()).unwrap();
    assert!(runs(&disk) == original, "an opening does not make more of them than there were");
    knows_everything(&log);
}

#[test]
fn a_damaged_run_is_not_made_again_in_the_space_that_is_kept_free() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let (access, backend) = (Access::ReadWrite, Backend::Buffered);
    let disk = DiskStorage::open(folder.path(), access, backend, Mapping::Mapped).unwrap();
    let disk = Arc::new(FaultyDisk::new(disk, Arc::clone(&faults)));
    let log = SteppedLog::open(environment(disk, Arc::default()), options()).unwrap();
    (1..=EVENTS).for_each(|number| log.append_each(&[Append::any(vec![numbered(number)])]));
    let damaged = || {
        let set = log.log().shared().sealed.snapshot();
        set.runs().filter(|run| run.is_damaged()).count()
    };
    let set = log.log().shared().sealed.snapshot();
    let run = set.runs().next().unwrap();
    assert!(run.span().segments() > 1 && run.note_damage(&RunFault::Sum.into()));
    let names = || Folder(folder.path()).names();
    let before = names();
    faults.fail_all(Operation::Space, Fault::Refused(ErrorKind::StorageFull));
    log.indexer().take(IndexWork::Tidy);
    assert!(damaged() == 1 && names() == before);
    faults.heal();
    log.indexer().take(IndexWork::Tidy);
    assert!(damaged() == 0 && names() == before);
    knows_everything(&log);
}

/// A disk in memory behind a switchboard.
fn faulty(disk: &MemoryDisk) -> (Arc<Faults>, Environment) {
    let (faults, env) = (Arc::<Faults>::default(), disk.environment());
    let storage = Arc::new(FaultyDisk::before(env.storage, Arc::clone(&faults)));
    (faults, Environment { storage, ..env })
}

#[test]
fn a_want_of_files_is_not_taken_for_damage_when_a_log_is_opened() {
    let disk = filled();
    let before = disk.names();
    let mut refused = 0;
    for nth in 1.. {
        let (faults, env) = faulty(&disk);
        faults.fail_nth(Operation::Open, nth, Fault::OutOfFiles);
        match EventLog::open_stepped(env, options(), &mut |_, _| {}) {
            Err(OpenError::Io { .. }) => refused += 1,
            Err(other) => panic!("{nth}: {other}"),
            Ok(log) => {
                let report = log.recovery_report();
                assert_eq!((report.made_runs, &report.rebuilt_indexes[..]), (0, &[][..]), "{nth}");
                if faults.is_pending(Operation::Open) {
                    break;
                }
            }
        }
        assert_eq!(disk.names(), before, "{nth}");
    }
    assert!(refused > 20, "each segment and each run is opened: {refused}");
    knows_everything(&open(&disk));
}

#[test]
fn a_want_of_files_while_runs_are_merged_costs_no_run_and_no_index() {
    let disk = filled();
    let (faults, env) = faulty(&disk);
    let log = SteppedLog::open(env, options()).unwrap();
    let indexes = |disk: &MemoryDisk| {
        disk.names().iter().filter(|name| matches!(FileKind::of(name), FileKind::Index(_))).count()
    };
    let sealed = || log.log().shared().segments.snapshot().len() - 1;
    let damaged = || log.log().shared().sealed.snapshot().runs().any(|run| run.is_damaged());
    assert_eq!(indexes(&disk), sealed());
    // The active segment was begun before: its index is built by reading it, once it is sealed.
    faults.fail_all(Operation::Open, Fault::OutOfFiles);
    let mut fresh = (EVENTS + 1..).map(|number| Append::any(vec![numbered(number)]));
    let before = sealed();
    while sealed() < before + 4 {
        log.append_each(&[fresh.next().unwrap()]);
        assert!(!damaged(), "no run is at fault");
    }
    assert_eq!(indexes(&disk), sealed() - 1, "that one is not there");
    faults.heal();
    let runs_before = log.log().status().unwrap().index.runs;
    while sealed() == before + 4 {
        log.append_each(&[fresh.next().unwrap()]);
    }
    assert_eq!(indexes(&disk), sealed(), "and is made with the next");
    assert!(!damaged() && log.log().status().unwrap().index.runs < runs_before, "merges go on");
}

#[test]
fn a_repetition_is_not_denied_when_the_index_cannot_be_searched_for_another_append() {
    let disk = filled();
    let log = open(&disk);
    let newest = numbered(EVENTS + 1);
    log.append_each(&[Append::any(vec![newest.clone()])]);
    make_unsearchable(&disk);
    let both = [newest, numbered(1)].map(|event| Append::any(vec![event]));
    let answers = log.append_together(&both, Origin::Client);
    assert!(matches!(answers[0], Err(AppendError::OutcomeUnknown(_))), "{answers:?}");
    assert!(matches!(answers[1], Err(AppendError::NotWritten(_))), "{answers:?}");
}

#[test]
fn what_is_in_flight_is_answered_when_the_index_fails_while_the_log_closes() {
    let disk = filled();
    let log = open(&disk);
    let shared = log.log().shared();
    let mut fresh = (EVENTS + 1..).map(numbered);
    // There is room for two groups in a segment that has begun.
    let segments = shared.segments.snapshot().len();
    while shared.segments.snapshot().len() == segments {
        log.append_each(&[Append::any(vec![fresh.next().unwrap()])]);
    }
    make_unsearchable(&disk);
    let answered = Arc::new(AtomicUsize::new(0));
    let submit = |event| {
        let append = log.log().prepare(&Append::any(vec![event]), Origin::Client).unwrap();
        let answered = Arc::clone(&answered);
        let reply = Box::new(move |_| {
            answered.fetch_add(1, Ordering::Relaxed);
        });
        log.log().try_submit(append, reply).unwrap();
    };
    submit(fresh.next().unwrap());
    let in_flight = log.log().step().unwrap();
    assert!(in_flight.write.is_some() && in_flight.answers.is_empty());
    if let Some(job) = in_flight.prepare {
        shared.inbox.prepared(job.run(&*shared.env.storage));
    }
    submit(numbered(1));
    shared.inbox.close();
    let step = log.log().step().unwrap();
    assert!(step.closed, "nothing can be written any more");
    step.answers.into_iter().for_each(Answer::send);
    assert_eq!(answered.load(Ordering::Relaxed), 2);
}

/// Neither the run of the oldest segments nor they themselves can be read any more.
fn make_unsearchable(disk: &MemoryDisk) {
    let (first, last) = *runs(disk).keys().next().unwrap();
    let break_file = |name: &str| {
        let broken = vec![1; disk.content(name).len() - BLOCK_BYTES];
        disk.open(name).unwrap().write_durable(BLOCK_BYTES as u64, &broken).unwrap();
    };
    break_file(&run_name(first, last));
    for segment in first..=last {
        break_file(&segment_name(segment));
        disk.remove(&index_name(segment)).unwrap();
    }
}

#[test]
fn runs_that_another_has_replaced_are_removed() {
    let disk = filled();
    let original = runs(&disk);
    // As a crash in the middle of a swap leaves it: a small run made anew beside the merged one.
    let (first, last) = *original.keys().next().unwrap();
    assert!(last > first);
    let merged = disk.content(&run_name(first, last));
    disk.remove(&run_name(first, last)).unwrap();
    let wide = LogOptions { index_fan_in: 16, ..options() };
    drop(EventLog::open_stepped(disk.environment(), wide, &mut |_, _| {}).unwrap());
    assert!(runs(&disk).contains_key(&(last, last)), "smaller ones were made");
    disk.put(&run_name(first, last), &merged);
    let log = open(&disk);
    assert_eq!(log.log().recovery_report().made_runs, 0);
    knows_everything(&log);
    drop(log);
    let left = runs(&disk);
    assert_eq!(left.get(&(first, last)), original.get(&(first, last)));
    assert!(left.keys().all(|run| run.0 > last || run.1 >= last), "{:?}", left.keys());
}

#[test]
fn every_byte_of_a_run_may_be_damaged_and_nothing_is_answered_wrongly() {
    let disk = filled();
    let original = runs(&disk);
    let ((first, last), content) = original.iter().next_back().unwrap();
    let name = run_name(*first, *last);
    for at in (0..content.len()).step_by(7) {
        let disk = disk.copy();
        disk.change(&name, |bytes| bytes[at] ^= 1 << (at % 8));
        let is_padding = verified(&disk, false).runs.is_empty();
        let log = open(&disk);
        // An id of every run, so that every block is met.
        let before = log.log().recovery_report().made_runs;
        knows_everything(&log);
        log.run();
        drop(log);
        let mended = runs(&disk) == original;
        assert!(mended || is_padding, "byte {at}: it was {before} times made at start");
        assert!(is_padding || verified(&disk, true).runs.is_empty(), "byte {at}");
    }
}

/// Told of the damage only when a merge has read what was still whole, and has ended.
#[test]
fn damage_to_a_run_that_was_merged_meanwhile_takes_nothing_from_what_is_known() {
    let disk = MemoryDisk::default();
    let wide = LogOptions { index_fan_in: 16, ..options() };
    let log = SteppedLog::open(disk.environment(), wide).expect("the log opens");
    (1..=EVENTS).for_each(|number| log.append_each(&[Append::any(vec![numbered(number)])]));
    log.close();
    let (first, last) = *runs(&disk).keys().next().unwrap();
    assert!(last > first && runs(&disk).len() > 3);
    let log = SteppedLog::open_untouched(disk.environment(), options()).expect("the log opens");
    let queue = &log.log().shared().index_queue;
    log.indexer().take(queue.try_pop().expect("an opening has the index tidied"));
    log.indexer().merge_some(1);
    let file = disk.open(&run_name(first, last)).unwrap();
    file.write_durable(BLOCK_BYTES as u64, &[1; BLOCK_BYTES]).unwrap();
    let known = log.log().prepare(&Append::any(vec![numbered(1)]), Origin::Client).unwrap();
    log.log().try_submit(known, Box::new(|_| {})).unwrap();
    log.commit();
    let told = queue.try_pop().expect("the damage was met, and the indexer is told");
    while log.indexer().is_merging() {
        log.indexer().merge_some(usize::MAX);
    }
    assert!(!runs(&disk).contains_key(&(first, last)), "it was merged");
    log.indexer().take(told);
    knows_everything(&log);
}

#[test]
fn runs_are_not_merged_into_the_space_that_is_kept_free() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let env = || {
        let (access, backend) = (Access::ReadWrite, Backend::Buffered);
        let disk = DiskStorage::open(folder.path(), access, backend, Mapping::Mapped).unwrap();
        let disk = FaultyDisk::new(disk, Arc::clone(&faults));
        environment(Arc::new(disk), Arc::new(SetClock::default()))
    };
    let log = SteppedLog::open(env(), LogOptions { index_fan_in: 16, ..options() }).unwrap();
    (1..=EVENTS).for_each(|number| log.append_each(&[Append::any(vec![numbered(number)])]));
    log.close();
    let log = SteppedLog::open_untouched(env(), options()).unwrap();
    faults.fail_all(Operation::Space, Fault::Refused(ErrorKind::StorageFull));
    log.indexer().take(IndexWork::Tidy);
    assert!(!log.indexer().is_merging());
    faults.heal();
    log.indexer().take(IndexWork::Tidy);
    assert!(log.indexer().is_merging());
    knows_everything(&log);
}

#[test]
fn verify_says_which_run_is_wrong_and_deep_compares_it_with_its_segments() {
    let disk = filled();
    let ((first, last), content) = runs(&disk).into_iter().next_back().unwrap();
    let name = run_name(first, last);
    for at in [0, 4_096 + 20, content.len() / 2] {
        let disk = disk.copy();
        disk.change(&name, |bytes| bytes[at] ^= 1);
        let report = verified(&disk, false);
        assert_eq!(report.runs.len(), 1, "byte {at}: {report:?}");
        assert!(report.runs[0].starts_with(&name) && report.damage.is_empty(), "{report:?}");
    }
    // A run of another log with the same segments: its sums are right, its content is not.
    let other = MemoryDisk::default();
    let log = open(&other);
    for number in 1..=EVENTS {
        log.append_each(&[Append::any(vec![numbered(number + EVENTS)])]);
    }
    log.close();
    disk.put(&name, &other.content(&name));
    assert_eq!(verified(&disk, false).runs.len(), 1, "it ends with another SEAL");
}

#[test]
fn with_no_memory_for_filters_everything_is_found_by_reading() {
    let disk = filled();
    let small = LogOptions { index_memory: 0, ..options() };
    let log = SteppedLog::open(disk.environment(), small).expect("the log opens");
    knows_everything(&log);
    let status = log.log().status().unwrap();
    assert!(status.index.reads > EVENTS, "{:?}", status.index);
    let log = open(&disk);
    let fresh = (1..=100).map(|number| Append::any(vec![numbered(EVENTS * 10 + number)]));
    log.append_together(&fresh.collect::<Vec<_>>(), Origin::Client);
    let status = log.log().status().unwrap();
    let reads = status.index.reads;
    assert!(reads < 100 + 20, "{reads} reads for 100 aggregates known and 100 ids that are new");
}
