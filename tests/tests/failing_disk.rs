//! A disk that fails: what is answered, what still works, and what a new opening finds; and all of
//! it where the host's log panics, for it is often on the same disk.
#![expect(clippy::unwrap_used, reason = "a failure is a panic with its reason")]

use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{BoxFuture, Either, join_all, select};
use futures::task::noop_waker;
use futures::{FutureExt, StreamExt};
use futures_timer::Delay;
use quipu_client::{Embedded, EventStore, LogState, OpenError, Options};
use quipu_engine::{Access, Clock, DiskStorage, Environment, Origin, System};
use quipu_tests::events::event;
use quipu_tests::faulty_disk::{Fault, Faults, FaultyDisk, Operation};
use quipu_tests::host_log;
use quipu_tests::memory_disk::{MemoryDisk, SetClock, environment};
use quipu_tests::stepped_log::SteppedLog;
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, ReadRequest, Record, SubscribeRequest,
    Timestamp,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const FULL: Fault = Fault::Refused(ErrorKind::StorageFull);
const BROKEN: Fault = Fault::Refused(ErrorKind::Other);

type Outcome = Result<AppendOutcome, AppendError>;

/// The system's clock, which counts how often it is asked, and may panic once.
#[derive(Default)]
struct CountingClock {
    asked: AtomicU64,
    panics: AtomicBool,
}

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        if self.panics.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("injected panic"));
        }
        System.now()
    }

    fn monotonic(&self) -> Duration {
        self.asked.fetch_add(1, Ordering::Relaxed);
        System.monotonic()
    }
}

struct Subject {
    faults: Arc<Faults>,
    clock: Arc<CountingClock>,
    log: Embedded,
    options: Options,
    folder: TempDir,
}

impl Subject {
    fn open(options: &Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (faults, clock) = (Arc::default(), Arc::default());
        let log = open(folder.path(), options, &faults, &clock);
        Self { faults, clock, log, options: options.clone(), folder }
    }

    /// Closes the log and opens it again on a disk that works.
    fn reopen(mut self) -> Self {
        self.faults.heal();
        self.log.close();
        self.log = open(self.folder.path(), &self.options, &self.faults, &self.clock);
        self
    }

    fn state(&self) -> LogState {
        self.log.status().unwrap().state
    }

    fn append(&self, number: u64) -> Outcome {
        within(self.log.append(numbered(number)))
    }

    fn submit(&self, number: u64) -> BoxFuture<'_, Outcome> {
        self.log.try_append(&numbered(number)).unwrap()
    }

    fn ids(&self) -> Vec<u128> {
        all(&self.log).iter().map(|record| record.event_id().as_u128()).collect()
    }

    /// Appends from `first` on until one is refused; says which.
    fn fill(&self, first: u64) -> (u64, AppendError) {
        for number in first..first + 100_000 {
            if let Err(error) = self.append(number) {
                return (number, error);
            }
        }
        panic!("the disk is never full")
    }

    /// Waits, at most some seconds, until an append is taken again.
    fn wait_until_taken(&self, number: u64) {
        let until = System.monotonic() + Duration::from_secs(10);
        loop {
            match self.append(number) {
                Ok(outcome) => return assert!(!outcome.duplicate),
                Err(AppendError::NoSpace(_)) if System.monotonic() < until => {
                    block_on(Delay::new(Duration::from_millis(20)));
                }
                Err(other) => panic!("there is space again, yet: {other}"),
            }
        }
    }
}

impl Drop for Subject {
    /// A log on a held disk cannot be closed: a failed test would hang.
    fn drop(&mut self) {
        self.faults.resume();
    }
}

fn open(
    folder: &Path,
    options: &Options,
    faults: &Arc<Faults>,
    clock: &Arc<CountingClock>,
) -> Embedded {
    try_open(folder, options, faults, clock).unwrap()
}

fn try_open(
    folder: &Path,
    options: &Options,
    faults: &Arc<Faults>,
    clock: &Arc<CountingClock>,
) -> Result<Embedded, OpenError> {
    host_log::panics();
    let disk = DiskStorage::open(folder, Access::ReadWrite, options.backend, options.mapping);
    let storage = FaultyDisk::new(disk.unwrap(), Arc::clone(faults));
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    let env = Environment { storage: Arc::new(storage), clock, entropy: Arc::new(System) };
    Embedded::open_on(env, options.clone())
}

/// Without WITNESS groups, so that every group write is one of the test's.
fn small() -> Options {
    let mut options = Options::default().with_segment_bytes(64 * 1024);
    options.log.witness_after_us = 60_000_000;
    options
}

/// Two events, ids 2n and 2n + 1, so that half an append would show.
fn numbered(number: u64) -> Append {
    let id = u128::from(2 * number);
    let key = |id: u128| AggregateKey::new("Call", (id % 5).to_string());
    Append::any(vec![event(id, &key(id), "Created"), event(id + 1, &key(id + 1), "Created")])
}

fn ids_of(numbers: impl IntoIterator<Item = u64>) -> Vec<u128> {
    numbers.into_iter().flat_map(|number| [2 * number, 2 * number + 1]).map(u128::from).collect()
}

fn all(log: &Embedded) -> Vec<Record> {
    block_on(log.read(ReadRequest::default()).map(Result::unwrap).collect())
}

/// What `future` gives; a hang is a failure.
fn within<T>(future: impl Future<Output = T>) -> T {
    match block_on(select(Box::pin(future), Delay::new(PATIENCE))) {
        Either::Left((value, _)) => value,
        Either::Right(_) => panic!("nothing came within {PATIENCE:?}"),
    }
}

fn is_outcome_unknown(outcome: &Outcome) -> bool {
    matches!(outcome, Err(AppendError::OutcomeUnknown(_)))
}

fn is_not_written(outcome: &Outcome) -> bool {
    matches!(outcome, Err(AppendError::NotWritten(_)))
}

fn is_no_space(error: &AppendError) -> bool {
    matches!(error, AppendError::NoSpace(_))
}

mod failed_write {
    use super::*;

    /// Appends 1 to 3 are stored; 4 and 5 are in flight and one of them fails; 6 to 8 are queued.
    fn fail_in_flight(nth: u64, fault: Fault) {
        let subject = Subject::open(&small());
        for number in 1..=3 {
            subject.append(number).unwrap();
        }
        let mut follower = subject.log.subscribe(SubscribeRequest::default()).unwrap();
        subject.faults.fail_nth(Operation::Submit, nth, fault);
        subject.faults.pause();
        let in_flight: Vec<_> = (4..=5)
            .map(|number| {
                let append = subject.submit(number);
                subject.faults.wait_for_paused(usize::try_from(number - 3).unwrap());
                append
            })
            .collect();
        let queued: Vec<_> = (6..=8).map(|number| subject.submit(number)).collect();
        let again = subject.submit(4);
        subject.faults.resume();
        let in_flight = within(join_all(in_flight));
        // The first may have been durable before the second failed.
        let acknowledged = in_flight.iter().take_while(|outcome| outcome.is_ok()).count();
        assert!(acknowledged < usize::try_from(nth).unwrap(), "{in_flight:?}");
        assert!(in_flight[acknowledged..].iter().all(is_outcome_unknown), "{in_flight:?}");
        let queued: Vec<Outcome> =
            within(join_all(queued)).into_iter().chain([within(again)]).collect();
        // Once the first was durable, what was queued may have gone in flight behind the second.
        let submitted = acknowledged > 0 && queued.iter().all(is_outcome_unknown);
        assert!(submitted || queued.iter().all(is_not_written), "{queued:?}");
        let last = if submitted { 8 } else { 5 };

        assert!(matches!(subject.state(), LogState::Failed(_)), "{}", subject.state());
        let later = [subject.append(9), subject.append(1)];
        assert!(later.iter().all(is_not_written), "{later:?}");
        let visible = 3 + acknowledged as u64;
        assert_eq!(subject.ids(), ids_of(1..=visible), "reads go on");
        let items = within(follower.next_batch()).unwrap();
        assert!(items.len() as u64 >= 2 * visible, "subscriptions too");
        assert!(matches!(subject.state(), LogState::Failed(_)), "nothing is retried");

        let subject = subject.reopen();
        let found = subject.ids();
        let whole: Vec<Vec<u128>> = (visible..=last).map(|last| ids_of(1..=last)).collect();
        assert!(whole.contains(&found), "{found:?} after {nth} {fault:?}");
        assert_eq!(subject.state(), LogState::Writable);
        for number in 1..=9 {
            let known = found.contains(&u128::from(2 * number));
            assert_eq!(subject.append(number).unwrap().duplicate, known, "{number}");
        }
        assert_eq!(subject.ids(), ids_of(1..=9));
    }

    #[test]
    fn in_flight_is_unknown_queued_is_not_written_and_reads_go_on() {
        for fault in [BROKEN, FULL, Fault::Short, Fault::WrittenButFailed] {
            for nth in [1, 2] {
                fail_in_flight(nth, fault);
            }
        }
    }

    #[test]
    fn an_answer_that_rests_on_a_failed_group_does_not_deny_what_may_be_stored() {
        let mut options = small();
        options.log.groups_in_flight = 2;
        let subject = Subject::open(&options);
        subject.faults.fail_nth(Operation::Submit, 1, Fault::WrittenButFailed);
        subject.faults.pause();
        let first = subject.submit(1);
        subject.faults.wait_for_paused(1);
        // Taken up by the second committer, which finds nothing to write.
        let again = subject.submit(1);
        let until = System.monotonic() + PATIENCE;
        while subject.log.status().unwrap().queued.1 > 0 {
            assert!(System.monotonic() < until, "nobody takes up the second append");
            block_on(Delay::new(Duration::from_millis(1)));
        }
        subject.faults.resume();
        let outcomes = [within(first), within(again)];
        assert!(outcomes.iter().all(is_outcome_unknown), "it is stored: {outcomes:?}");
        let subject = subject.reopen();
        assert_eq!(subject.ids(), ids_of([1]));
    }

    /// Many appends, pipelined over rolls; the n-th group write (also SEAL or a header) fails.
    fn fail_somewhere(nth: u64, fault: Fault) {
        let mut options = small();
        options.log.group_bytes = 4_096;
        let subject = Subject::open(&options);
        subject.faults.fail_nth(Operation::Submit, nth, fault);
        let appends = (1..=300).map(|number| subject.log.append(numbered(number)));
        let outcomes = within(join_all(appends));
        assert!(!subject.faults.is_pending(Operation::Submit), "write {nth} happened");
        let acknowledged = outcomes.iter().take_while(|outcome| outcome.is_ok()).count() as u64;
        let rest = outcomes.iter().skip_while(|outcome| outcome.is_ok());
        let certain = rest.clone().skip_while(|outcome| is_outcome_unknown(outcome));
        assert!(certain.clone().count() > 0, "write {nth} comes before the last append");
        assert!(certain.clone().all(is_not_written), "in order: stored, unknown, not written");
        let unknown = (rest.count() - certain.count()) as u64;
        assert_eq!(subject.ids(), ids_of(1..=acknowledged));
        let subject = subject.reopen();
        let found = subject.ids().len() as u64 / 2;
        assert_eq!(subject.ids(), ids_of(1..=found), "whole appends in the order submitted");
        assert!((acknowledged..=acknowledged + unknown).contains(&found), "{found} are found");
    }

    #[test]
    fn what_is_acknowledged_outlives_a_failed_write_anywhere() {
        for fault in [BROKEN, Fault::Short, Fault::WrittenButFailed] {
            for nth in [1, 2, 7, 10, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27] {
                fail_somewhere(nth, fault);
            }
        }
    }
}

mod no_space {
    use quipu_tests::tamper::{Folder, change, flip};

    use super::*;

    /// A segment larger than the space that is prepared ahead, so that the active one must grow.
    fn large() -> Options {
        let mut options = small().with_limits(quipu_types::Limits {
            append_bytes_max: 1 << 20,
            ..quipu_types::Limits::default()
        });
        options.log.segment_bytes = 8 << 20;
        options
    }

    fn refuses_reads_on_and_recovers(options: &Options, operation: Operation, fault: Fault) {
        let subject = Subject::open(options);
        subject.append(1).unwrap();
        subject.faults.fail_all(operation, fault);
        let (refused, error) = subject.fill(2);
        assert!(is_no_space(&error), "{operation:?}: {error}");
        assert!(matches!(subject.state(), LogState::NoSpace(_)), "{}", subject.state());
        for number in refused..refused + 5 {
            let error = subject.append(number).unwrap_err();
            assert!(is_no_space(&error) && error.is_retryable(), "{error}");
        }
        assert_eq!(subject.ids(), ids_of(1..refused), "reads go on");
        subject.faults.heal();
        subject.wait_until_taken(refused);
        for number in refused + 1..refused + 40 {
            subject.append(number).unwrap();
        }
        assert_eq!(subject.state(), LogState::Writable);
        let subject = subject.reopen();
        assert!(subject.log.recovery_report().clean, "{}", subject.log.recovery_report());
        assert_eq!(subject.ids(), ids_of(1..refused + 40), "refused appends left nothing");
    }

    #[test]
    fn the_next_segment_cannot_be_made() {
        for operation in
            [Operation::Create, Operation::Allocate, Operation::Write, Operation::Space]
        {
            refuses_reads_on_and_recovers(&small(), operation, FULL);
        }
    }

    #[test]
    fn the_active_segment_cannot_grow() {
        for operation in [Operation::Allocate, Operation::Space] {
            refuses_reads_on_and_recovers(&large(), operation, FULL);
        }
    }

    #[test]
    fn space_ahead_cannot_be_zeroed() {
        refuses_reads_on_and_recovers(&large(), Operation::Write, FULL);
    }

    /// As where a quota, or a limit for files, ends in the middle of the zeros.
    #[test]
    fn space_ahead_that_is_zeroed_in_part_is_none() {
        refuses_reads_on_and_recovers(&large(), Operation::Write, Fault::Short);
    }

    #[test]
    fn the_last_group_is_witnessed_while_a_roll_waits_for_space() {
        let mut subject = Subject::open(&small());
        subject.faults.fail_all(Operation::Create, FULL);
        let (refused, _) = subject.fill(1);
        subject.log.close();
        let folder = Folder(subject.folder.path());
        let last = folder.data_groups(1).pop().unwrap();
        flip(&folder.segment(1), usize::try_from(last.offset).unwrap() + 100);
        subject.faults.heal();
        subject.log =
            open(subject.folder.path(), &subject.options, &subject.faults, &subject.clock);
        let state = subject.state();
        assert!(matches!(state, LogState::Damaged(_)), "{state}: {refused} was refused");
    }

    #[test]
    fn a_place_that_was_not_zeroed_is_used_all_the_same() {
        let mut subject = Subject::open(&small());
        subject.append(1).unwrap();
        subject.log.close();
        // The first plain write of an opening is START, the second zeros ahead of it.
        subject.faults.fail_nth(Operation::Write, 2, FULL);
        subject.log =
            open(subject.folder.path(), &subject.options, &subject.faults, &subject.clock);
        for number in 2..60 {
            subject.wait_until_taken(number);
        }
        assert!(!subject.faults.is_pending(Operation::Write), "the zeroing failed");
        let subject = subject.reopen();
        assert!(subject.log.recovery_report().clean, "{}", subject.log.recovery_report());
        assert_eq!(subject.ids(), ids_of(1..60));
    }

    #[test]
    fn a_log_without_space_closes_and_opens() {
        for (options, operation) in [
            (small(), Operation::Create),
            (small(), Operation::Allocate),
            (large(), Operation::Allocate),
            (large(), Operation::Write),
        ] {
            let subject = Subject::open(&options);
            subject.faults.fail_all(operation, FULL);
            let (refused, _) = subject.fill(1);
            subject.log.close();
            let subject = subject.reopen();
            assert_eq!(subject.ids(), ids_of(1..refused));
            subject.append(refused).unwrap();
        }
    }

    /// Found by the simulator after 68,193 crashes with faults: appends and close waited for ever.
    #[test]
    fn a_roll_that_finds_no_room_for_seal_refuses_and_closes() {
        let mut subject = Subject::open(&small());
        for number in 1..=11 {
            subject.append(number).unwrap();
        }
        subject.log.close();
        // A crash has taken the space behind CLEAN; only START and SEAL have room there.
        let segment = Folder(subject.folder.path()).segment(1);
        change(&segment, |bytes| bytes.truncate(14 * 4_096));
        subject.faults.fail_all(Operation::Space, FULL);
        subject.log =
            open(subject.folder.path(), &subject.options, &subject.faults, &subject.clock);
        assert!(is_no_space(&subject.append(12).unwrap_err()));
        subject.log.close();
        let subject = subject.reopen();
        assert_eq!(subject.ids(), ids_of(1..12));
        subject.append(12).unwrap();
    }

    #[test]
    fn a_copy_that_ends_within_a_block_of_zeros_takes_appends() {
        let mut subject = Subject::open(&large());
        subject.append(1).unwrap();
        subject.log.close();
        let segment = Folder(subject.folder.path()).segment(1);
        change(&segment, |bytes| bytes.truncate(700_000));
        subject.log =
            open(subject.folder.path(), &subject.options, &subject.faults, &subject.clock);
        for number in 2..400 {
            subject.append(number).unwrap();
        }
        let subject = subject.reopen();
        assert_eq!(subject.ids(), ids_of(1..400));
    }

    #[test]
    fn a_hosts_log_is_told_once_however_long_there_is_none() {
        let (faults, clock) = (Arc::<Faults>::default(), Arc::<SetClock>::default());
        let disk = MemoryDisk::default().environment().storage;
        let storage = Arc::new(FaultyDisk::before(disk, Arc::clone(&faults)));
        let env = environment(storage, Arc::clone(&clock));
        let log = SteppedLog::open(env, small().log).unwrap();
        let told = Arc::<AtomicU64>::default();
        let counts = Arc::clone(&told);
        let host = host_log::that_calls(move || {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        faults.fail_all(Operation::Allocate, FULL);
        tracing::subscriber::with_default(host, || {
            let refused = |number| {
                let answers = log.append_together(&[numbered(number)], Origin::Client);
                matches!(&answers[..], [Err(error)] if is_no_space(error))
            };
            assert!((1..1_000).any(refused), "the disk is full");
            assert_eq!(told.load(Ordering::Relaxed), 1);
            for number in 2_000..2_010 {
                clock.advance(300_000);
                log.run();
                assert!(refused(number), "and stays so");
            }
        });
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn waiting_for_space_costs_no_processor_time() {
        let mut witnessed = small();
        witnessed.log.witness_after_us = 2_000;
        for (options, operation) in [
            (small(), Operation::Create),
            (witnessed, Operation::Create),
            (large(), Operation::Allocate),
        ] {
            let subject = Subject::open(&options);
            subject.faults.fail_all(operation, FULL);
            let (refused, _) = subject.fill(1);
            assert_idle(&subject);
            // A large append is refused sooner than small ones, which still find room.
            subject.faults.heal();
            subject.wait_until_taken(refused);
        }
        let subject = Subject::open(&large());
        subject.append(1).unwrap();
        block_on(Delay::new(Duration::from_millis(200)));
        subject.faults.fail_all(Operation::Allocate, FULL);
        let mut large = numbered(2);
        large.events[0].payload = format!("\"{}\"", "x".repeat(1_040_000)).into_bytes();
        let refused = within(subject.log.append(large)).unwrap_err();
        assert!(is_no_space(&refused), "{refused}");
        assert_idle(&subject);
        subject.append(3).unwrap();
    }

    fn assert_idle(subject: &Subject) {
        // Long enough to look for space again, more than once.
        block_on(Delay::new(Duration::from_millis(300)));
        let before = subject.clock.asked.load(Ordering::Relaxed);
        block_on(Delay::new(Duration::from_millis(600)));
        let asked = subject.clock.asked.load(Ordering::Relaxed) - before;
        assert!(asked < 500, "the clock was asked {asked} times in 600 ms: something spins");
    }
}

mod other_faults {
    use super::*;

    #[test]
    fn an_index_that_cannot_be_saved_fails_no_append() {
        for fault in [FULL, BROKEN] {
            let subject = Subject::open(&small());
            subject.faults.fail_all(Operation::WriteAtomic, fault);
            for number in 1..=60 {
                subject.append(number).unwrap();
            }
            let status = subject.log.status().unwrap();
            assert!(status.segments.len() > 3, "several segments were sealed");
            assert_eq!(status.state, LogState::Writable);
            assert_eq!(subject.ids(), ids_of(1..=60));
            let subject = subject.reopen();
            assert!(subject.log.recovery_report().clean);
            assert_eq!(subject.ids(), ids_of(1..=60));
            assert!(subject.append(7).unwrap().duplicate);
        }
    }

    /// Not for lack of space: the disk is broken, and nothing is tried twice.
    #[test]
    fn a_disk_that_breaks_while_space_is_prepared_fails_the_log() {
        for operation in
            [Operation::Create, Operation::Allocate, Operation::Write, Operation::SyncDir]
        {
            let subject = Subject::open(&small());
            subject.faults.fail_nth(operation, 1, BROKEN);
            let (refused, error) = subject.fill(1);
            let outcome = Err(error);
            assert!(is_not_written(&outcome) || is_outcome_unknown(&outcome), "{outcome:?}");
            assert!(matches!(subject.state(), LogState::Failed(_)), "{operation:?}");
            assert_eq!(subject.ids(), ids_of(1..refused));
            let subject = subject.reopen();
            let found = subject.ids();
            assert!(found == ids_of(1..refused) || found == ids_of(1..=refused), "{found:?}");
            for number in refused..refused + 40 {
                subject.append(number).unwrap();
            }
        }
    }
}

/// Of a storage, or a clock, that a host brings.
mod a_panic {
    use super::*;

    #[test]
    fn of_a_storage_fails_the_log_and_leaves_nobody_without_an_answer() {
        for operation in [Operation::Submit, Operation::Allocate, Operation::Create] {
            for groups_in_flight in [1, 2] {
                let mut options = small();
                options.log.groups_in_flight = groups_in_flight;
                let subject = Subject::open(&options);
                subject.faults.fail_nth(operation, 1, Fault::Panics);
                let (refused, error) = subject.fill(1);
                let outcome = Err(error);
                assert!(is_not_written(&outcome) || is_outcome_unknown(&outcome), "{outcome:?}");
                assert!(is_not_written(&subject.append(refused + 1)), "{operation:?}");
                assert!(matches!(subject.state(), LogState::Failed(_)), "{operation:?}");
                assert_eq!(subject.ids(), ids_of(1..refused));
                let subject = subject.reopen();
                let was_stored = subject.ids() == ids_of(1..=refused);
                assert!(was_stored || subject.ids() == ids_of(1..refused), "{operation:?}");
                assert!(!(was_stored && is_not_written(&outcome)), "{operation:?}");
                assert_eq!(subject.append(refused).unwrap().duplicate, was_stored);
            }
        }
    }

    #[test]
    fn of_a_clock_keeps_no_subscriber_from_hearing_what_is_durable() {
        let mut options = small();
        options.log.groups_in_flight = 1;
        let subject = Subject::open(&options);
        subject.append(1).unwrap();
        let mut follower = subject.log.subscribe(SubscribeRequest::default()).unwrap();
        assert_eq!(within(follower.next_batch()).unwrap().len(), 3, "two events, caught up");
        let mut next = follower.next_batch().boxed();
        assert!(next.poll_unpin(&mut Context::from_waker(&noop_waker())).is_pending());
        subject.faults.pause();
        let in_flight = subject.submit(2);
        subject.faults.wait_for_paused(1);
        let queued = subject.submit(3);
        subject.clock.panics.store(true, Ordering::Relaxed);
        subject.faults.resume();
        let outcomes = [within(in_flight), within(queued)];
        assert!(is_outcome_unknown(&outcomes[0]) && outcomes[1].is_err(), "{outcomes:?}");
        assert!(matches!(subject.state(), LogState::Failed(_)));
        assert_eq!(within(next).unwrap().len(), 2, "the second append");
        assert_eq!(subject.ids(), ids_of(1..=2));
    }
}

mod failed_opening {
    use quipu_tests::tamper::{Folder, write};

    use super::*;

    /// SEAL is durable, the next segment's file is there, and a crash has taken its space.
    fn crashed_in_a_roll() -> (Subject, Vec<u128>) {
        let subject = Subject::open(&small());
        for number in 1..=40 {
            subject.append(number).unwrap();
        }
        subject.log.close();
        let folder = Folder(subject.folder.path());
        let active = folder.active();
        assert!(active > 2, "small segments roll");
        let kept = folder.header(active).first_position.0 / 2;
        write(&folder.segment(active), "");
        (subject, ids_of(1..=kept))
    }

    /// Found by the simulator after 197,564 crashes: the file was removed and made again, and a
    /// crash in between looked like a lost segment.
    #[test]
    fn whatever_fails_the_next_segments_file_stays_and_the_next_opening_is_sound() {
        let operations = [
            Operation::Create,
            Operation::Write,
            Operation::Allocate,
            Operation::Sync,
            Operation::SyncDir,
            Operation::WriteAtomic,
            Operation::Space,
        ];
        let mut failed = 0;
        for operation in operations {
            for nth in 1..=3 {
                let (subject, expected) = crashed_in_a_roll();
                let next = Folder(subject.folder.path()).segment(1 + last_sealed(&subject));
                subject.faults.fail_nth(operation, nth, BROKEN);
                let Subject { faults, clock, options, folder, .. } = &subject;
                failed += u64::from(try_open(folder.path(), options, faults, clock).is_err());
                assert!(next.exists(), "{operation:?} {nth}");
                let subject = subject.reopen();
                assert_eq!(subject.state(), LogState::Writable, "{operation:?} {nth}");
                assert_eq!(subject.ids(), expected, "{operation:?} {nth}");
            }
        }
        assert!(failed > 3, "only {failed} openings failed");
    }

    fn last_sealed(subject: &Subject) -> u64 {
        Folder(subject.folder.path()).active()
    }
}
