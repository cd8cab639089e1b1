//! What every [`EventStore`] promises, as tests: the embedded log and every client pass the same.
//!
//! `conformance_suite!(open)` makes a `#[test]` of each promise; `open` gives a [`Subject`].

#![expect(clippy::unwrap_used, reason = "test support: a failure is a panic with its reason")]

mod appends;
mod idempotency;
mod invalid;
mod reads;
mod subscriptions;
mod system;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, Either, LocalBoxFuture, select};
use futures_timer::Delay;
use quipu_client::EventStore;
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, ExpectedVersion, Filter, Limits, NewEvent,
    Position, ReadRequest, Record, Version,
};

pub use appends::*;
pub use idempotency::*;
pub use invalid::*;
pub use reads::*;
pub use subscriptions::*;
pub use system::*;

use crate::events::event;
use crate::patience::block_on;

/// The limits that a subject must be opened with. Its segments should be as small as they allow,
/// so that the suite crosses many.
pub const LIMITS: Limits =
    Limits { event_bytes_max: 4 * 1024, append_events_max: 64, append_bytes_max: 16 * 1024 };
pub const SEGMENT_BYTES: u64 = 64 * 1024;

/// Longer than anything here takes on the slowest machine; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store on an empty log, and what must live as long.
pub struct Subject {
    pub store: Arc<dyn EventStore>,
    pub keep: Box<dyn Any>,
}

/// Makes a `#[test]` of each promise, against the subjects that `$open` gives.
#[macro_export]
macro_rules! conformance_suite {
    ($open:path) => {
        $crate::conformance_suite! { $open:
            every_expectation_is_met_by_its_versions_only,
            one_append_over_several_aggregates_is_atomic,
            a_conflict_lists_every_aggregate_that_failed,
            an_aggregate_can_be_checked_without_being_written,
            an_aggregate_of_many_events_counts_each,
            what_is_acknowledged_is_visible,
            appends_are_admitted_in_the_order_polled,
            a_failed_append_does_not_stop_those_behind_it,
            an_append_without_events_is_invalid,
            an_id_twice_in_one_append_is_invalid,
            two_expectations_of_one_aggregate_are_invalid,
            every_field_has_its_limit,
            empty_names_and_control_characters_are_invalid,
            ids_and_timestamps_that_cannot_be_are_invalid,
            an_event_and_an_append_have_their_limits,
            what_is_not_json_is_refused_only_as_json,
            system_types_are_refused,
            what_is_just_within_the_limits_is_stored,
            a_repeated_append_is_a_duplicate,
            a_regrouped_repetition_is_a_duplicate,
            a_partly_known_append_names_the_first_known_id,
            other_content_under_a_known_id_is_refused,
            another_timestamp_or_metadata_is_still_a_duplicate,
            a_duplicate_of_what_is_in_flight_waits_for_it,
            an_id_is_unique_across_aggregates_and_segments,
            reads_go_both_ways_from_any_position,
            reads_go_both_ways_from_any_version,
            a_limit_ends_a_read_and_a_page_is_bounded,
            every_filter_takes_exactly_its_records,
            a_filtered_read_may_begin_anywhere,
            stored_bytes_come_back_identical,
            a_version_is_the_number_of_events,
            recorded_at_never_goes_back,
            a_reader_sees_a_gapless_prefix_while_others_write,
            a_read_is_of_what_was_there_when_it_began,
            a_subscription_from_the_start_delivers_all_then_follows,
            a_subscription_begins_after_a_position,
            a_subscription_from_the_end_sees_only_what_comes,
            a_position_past_the_end_is_waited_for,
            a_checkpoint_of_another_log_or_past_the_end_is_refused,
            a_filtered_subscription_delivers_only_what_it_takes,
            a_subscriber_that_falls_behind_is_told_and_catches_up,
            skipped_records_give_a_checkpoint,
            a_quiet_filtered_subscription_gets_a_checkpoint_in_time,
            a_system_append_writes_the_types_that_clients_keep_and_no_other,
            what_clients_keep_is_seen_only_by_those_who_ask,
            a_system_append_is_an_append,
            appends_of_both_kinds_are_admitted_in_the_order_polled,
        }
    };
    ($open:path: $($promise:ident),* $(,)?) => {
        $(
            #[test]
            fn $promise() {
                $crate::conformance::run($open(), |store| {
                    Box::pin($crate::conformance::$promise(store))
                });
            }
        )*

        #[test]
        fn no_promise_is_left_out() {
            assert_eq!($crate::conformance::names(), [$(stringify!($promise)),*]);
        }
    };
}

/// Every promise there is, in the order of the sources.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let sources = [
        include_str!("conformance/appends.rs"),
        include_str!("conformance/invalid.rs"),
        include_str!("conformance/idempotency.rs"),
        include_str!("conformance/reads.rs"),
        include_str!("conformance/subscriptions.rs"),
        include_str!("conformance/system.rs"),
    ];
    let lines = sources.into_iter().flat_map(str::lines);
    lines.filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next()).collect()
}

/// Runs one promise against a subject.
pub fn run(
    subject: Subject,
    promise: impl for<'a> FnOnce(&'a dyn EventStore) -> LocalBoxFuture<'a, ()>,
) {
    block_on(promise(&*subject.store));
    drop(subject.keep);
}

/// What `future` gives; a hang is a failure.
async fn within<T>(future: impl Future<Output = T>) -> T {
    match select(Box::pin(future), Delay::new(PATIENCE)).await {
        Either::Left((value, _)) => value,
        Either::Right(_) => panic!("nothing came within {PATIENCE:?}"),
    }
}

fn call(id: &str) -> AggregateKey {
    AggregateKey::new("Call", id)
}

fn one(id: u128, key: &AggregateKey) -> NewEvent {
    event(id, key, "Created")
}

fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(Version(version))
}

async fn append(store: &dyn EventStore, append: Append) -> Result<AppendOutcome, AppendError> {
    within(store.append(append)).await
}

async fn stored(store: &dyn EventStore, events: Vec<NewEvent>) -> AppendOutcome {
    let outcome = append(store, Append::any(events)).await.unwrap();
    assert!(!outcome.duplicate, "the events are new");
    outcome
}

/// Stores events with ids `ids`, one append after the other but all in flight, so that it is fast.
async fn store_many(
    store: &dyn EventStore,
    ids: std::ops::RangeInclusive<u128>,
    make: impl Fn(u128) -> NewEvent,
) {
    let ids: Vec<u128> = ids.collect();
    let appends = ids.chunks(16).map(|ids| {
        let events = ids.iter().map(|id| make(*id)).collect();
        store.append(Append::any(events))
    });
    for outcome in within(futures::future::join_all(appends)).await {
        outcome.unwrap();
    }
}

async fn read(store: &dyn EventStore, request: ReadRequest) -> Vec<Record> {
    let records: Vec<_> = within(store.read(request).collect()).await;
    records.into_iter().map(Result::unwrap).collect()
}

async fn all(store: &dyn EventStore) -> Vec<Record> {
    read(store, ReadRequest::default()).await
}

async fn filtered(store: &dyn EventStore, filter: Filter) -> Vec<u64> {
    positions(&read(store, ReadRequest { filter, ..ReadRequest::default() }).await)
}

fn positions(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.position().0).collect()
}

fn ids(records: &[Record]) -> Vec<u128> {
    records.iter().map(|record| record.event_id().as_u128()).collect()
}

fn at(positions: &[u64]) -> Vec<Position> {
    positions.iter().copied().map(Position).collect()
}

/// The futures' outputs, in order, all polled in order first.
async fn together<T>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    within(futures::future::join_all(futures)).await
}
