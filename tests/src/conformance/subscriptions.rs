//! Subscriptions: catch up, follow, and always know a position that is safe to save.

use std::collections::VecDeque;
use std::time::Duration;

use futures::FutureExt;
use futures::future::Either;
use futures_timer::Delay;
use quipu_client::{EventStore, Subscription};
use quipu_types::{
    Checkpoint, Filter, NewEvent, Position, StartAfter, SubscribeRequest, SubscriptionItem, Uuid,
};

use super::{call, event, one, store_many, stored, within};

/// What an item says, without the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Event(u64),
    Checkpoint(u64),
    CaughtUp(u64),
    FellBehind(u64),
}

impl Item {
    fn of(item: &SubscriptionItem) -> Self {
        match item {
            SubscriptionItem::Event(record) => Self::Event(record.position().0),
            SubscriptionItem::Checkpoint(at) => Self::Checkpoint(at.0),
            SubscriptionItem::CaughtUp(at) => Self::CaughtUp(at.0),
            SubscriptionItem::FellBehind(at) => Self::FellBehind(at.0),
            other => panic!("an item this suite does not know: {other:?}"),
        }
    }

    /// The position that is safe to save after the item.
    fn safe(self) -> u64 {
        match self {
            Self::Event(at) | Self::Checkpoint(at) | Self::CaughtUp(at) | Self::FellBehind(at) => {
                at
            }
        }
    }
}

/// A subscription read item by item, which checks that safe positions never go back and that no
/// event comes twice.
struct Follower {
    subscription: Subscription,
    queue: VecDeque<Item>,
    safe: u64,
    last_event: u64,
}

impl Follower {
    fn new(store: &dyn EventStore, after: StartAfter, filter: Filter) -> Self {
        let subscription = store.subscribe(SubscribeRequest { filter, after }).unwrap();
        let safe = match after {
            StartAfter::Position(position) => position.0,
            StartAfter::End => 0,
            StartAfter::Checkpoint(checkpoint) => checkpoint.position.0,
        };
        Self { subscription, queue: VecDeque::new(), safe, last_event: safe }
    }

    fn from(store: &dyn EventStore, after: u64) -> Self {
        Self::new(store, StartAfter::Position(Position(after)), Filter::default())
    }

    fn of_type(store: &dyn EventStore, event_type: &str) -> Self {
        let event_types = vec![event_type.to_owned()];
        let filter = Filter { event_types, ..Filter::default() };
        Self::new(store, StartAfter::default(), filter)
    }

    async fn next(&mut self) -> Item {
        while self.queue.is_empty() {
            let batch = within(self.subscription.next_batch()).await.unwrap();
            assert!(!batch.is_empty(), "a batch is never empty");
            self.queue.extend(batch.iter().map(Item::of));
        }
        let item = self.queue.pop_front().unwrap();
        assert!(item.safe() >= self.safe, "{item:?} goes back behind {}", self.safe);
        self.safe = item.safe();
        if let Item::Event(at) = item {
            assert!(at > self.last_event, "{at} comes after {}", self.last_event);
            self.last_event = at;
        }
        item
    }

    /// The events up to the next `CaughtUp`, which must be at `end`.
    async fn catch_up(&mut self, end: u64) -> Vec<u64> {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Item::Event(at) => events.push(at),
                Item::CaughtUp(at) => {
                    assert_eq!(at, end);
                    return events;
                }
                Item::Checkpoint(_) => {}
                Item::FellBehind(at) => panic!("fell behind at {at} before it was caught up"),
            }
        }
    }

    async fn nothing_comes(&mut self) {
        assert!(self.queue.is_empty(), "{:?}", self.queue);
        let next = self.subscription.next_batch();
        let silence = Delay::new(Duration::from_millis(60));
        if let Either::Left((batch, _)) = futures::future::select(next.boxed(), silence).await {
            panic!("should wait, gives {batch:?}");
        }
    }
}

fn wide(id: u128) -> NewEvent {
    let mut event = one(id, &call(&(id % 7).to_string()));
    event.payload = format!("\"{}\"", "x".repeat(300)).into_bytes();
    event
}

pub async fn a_subscription_from_the_start_delivers_all_then_follows(store: &dyn EventStore) {
    let mut early = Follower::from(store, 0);
    assert_eq!(early.next().await, Item::CaughtUp(0), "an empty log is caught up with at once");
    store_many(store, 1..=600, wide).await;
    let mut late = Follower::from(store, 0);
    assert_eq!(late.catch_up(600).await, (1..=600).collect::<Vec<_>>());
    for at in 1..=600 {
        assert_eq!(early.next().await, Item::Event(at), "caught up is said once");
    }
    for at in 601..=640_u64 {
        stored(store, vec![wide(at.into())]).await;
        assert_eq!(late.next().await, Item::Event(at), "what follows is live");
        assert_eq!(early.next().await, Item::Event(at));
    }
    late.nothing_comes().await;
}

pub async fn a_subscription_begins_after_a_position(store: &dyn EventStore) {
    store_many(store, 1..=300, wide).await;
    for after in [1, 150, 299] {
        let mut follower = Follower::from(store, after);
        assert_eq!(follower.catch_up(300).await, (after + 1..=300).collect::<Vec<_>>());
    }
    let mut at_the_end = Follower::from(store, 300);
    assert_eq!(at_the_end.next().await, Item::CaughtUp(300));
    stored(store, vec![wide(301)]).await;
    assert_eq!(at_the_end.next().await, Item::Event(301));
}

pub async fn a_subscription_from_the_end_sees_only_what_comes(store: &dyn EventStore) {
    store_many(store, 1..=100, wide).await;
    let mut follower = Follower::new(store, StartAfter::End, Filter::default());
    assert_eq!(follower.next().await, Item::CaughtUp(100));
    follower.nothing_comes().await;
    stored(store, vec![wide(101), wide(102)]).await;
    assert_eq!(follower.next().await, Item::Event(101));
    assert_eq!(follower.next().await, Item::Event(102));
}

pub async fn a_position_past_the_end_is_waited_for(store: &dyn EventStore) {
    stored(store, vec![wide(1)]).await;
    let mut follower = Follower::from(store, 3);
    follower.nothing_comes().await;
    stored(store, vec![wide(2)]).await;
    follower.nothing_comes().await;
    stored(store, vec![wide(3), wide(4), wide(5)]).await;
    assert_eq!(follower.catch_up(5).await, [4, 5]);
    let mut far = Follower::from(store, u64::MAX);
    far.nothing_comes().await;
}

pub async fn a_checkpoint_of_another_log_or_past_the_end_is_refused(store: &dyn EventStore) {
    stored(store, vec![wide(1), wide(2), wide(3)]).await;
    let first = async |log_id, position| {
        let after = StartAfter::Checkpoint(Checkpoint { log_id, position: Position(position) });
        let request = SubscribeRequest { filter: Filter::default(), after };
        // A store across a network learns the end of the log only with the first batch.
        let mut subscription = store.subscribe(request).map_err(|error| error.to_string())?;
        let items = within(subscription.next_batch()).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(items.iter().map(Item::of).collect::<Vec<_>>())
    };
    let (own, other) = (store.log_id(), Uuid::from_u128(7));
    let foreign = first(other, 1).await.unwrap_err();
    assert!(foreign.contains(&own.to_string()) && foreign.contains(&other.to_string()));
    let beyond = first(own, 4).await.unwrap_err();
    assert!(beyond.contains("position 4") && beyond.contains("log, 3"), "{beyond}");
    assert_eq!(first(own, 3).await, Ok(vec![Item::CaughtUp(3)]));
    let saved = Checkpoint { log_id: own, position: Position(1) };
    let mut follower = Follower::new(store, StartAfter::Checkpoint(saved), Filter::default());
    assert_eq!(follower.next().await, Item::Event(2));
}

pub async fn a_filtered_subscription_delivers_only_what_it_takes(store: &dyn EventStore) {
    let typed = |id: u128| {
        let event_type = if id.is_multiple_of(10) { "Tenth" } else { "Other" };
        event(id, &call(&(id % 3).to_string()), event_type)
    };
    store_many(store, 1..=500, typed).await;
    let mut tenth = Follower::of_type(store, "Tenth");
    assert_eq!(tenth.catch_up(500).await, (1..=50).map(|n| 10 * n).collect::<Vec<_>>());
    let key = call("1");
    let start = StartAfter::Position(Position(250));
    let mut of_key = Follower::new(store, start, Filter::aggregate(key));
    let wanted: Vec<u64> = (251..=500).filter(|at| at % 3 == 1).collect();
    assert_eq!(of_key.catch_up(500).await, wanted, "begins after a position, not a version");
    store_many(store, 501..=540, typed).await;
    let mut live = Vec::new();
    while live.last() != Some(&540) {
        match tenth.next().await {
            Item::Event(at) => live.push(at),
            Item::Checkpoint(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(live, [510, 520, 530, 540]);
}

pub async fn a_subscriber_that_falls_behind_is_told_and_catches_up(store: &dyn EventStore) {
    let mut follower = Follower::from(store, 0);
    assert_eq!(follower.next().await, Item::CaughtUp(0));
    stored(store, vec![one(1, &call("a"))]).await;
    assert_eq!(follower.next().await, Item::Event(1));
    // More than what a client may have received ahead of its reader.
    let end = 6_500;
    store_many(store, 2..=end.into(), |id| one(id, &call("a"))).await;
    let mut events = 1;
    let mut fell_behind = 0;
    loop {
        match follower.next().await {
            Item::Event(at) => {
                events += 1;
                assert_eq!(at, events, "none is dropped");
            }
            Item::FellBehind(at) => {
                fell_behind += 1;
                assert_eq!(at, events, "after the last one delivered");
            }
            Item::CaughtUp(at) => {
                assert_eq!(at, end);
                break;
            }
            Item::Checkpoint(at) => panic!("nothing is skipped, yet a checkpoint at {at}"),
        }
    }
    assert_eq!((events, fell_behind), (end, 1));
    stored(store, vec![one(9_999, &call("a"))]).await;
    assert_eq!(follower.next().await, Item::Event(end + 1), "live again");
}

pub async fn skipped_records_give_a_checkpoint(store: &dyn EventStore) {
    let mut follower = Follower::of_type(store, "Rare");
    assert_eq!(follower.next().await, Item::CaughtUp(0));
    let skipped = 10_400_u64;
    store_many(store, 1..=skipped.into(), |id| event(id, &call("a"), "Other")).await;
    let mut late = Follower::of_type(store, "Rare");
    // A checkpoint that nobody has taken yet gives way to the CaughtUp behind it, which says more.
    let first = late.next().await;
    let (Item::Checkpoint(at) | Item::CaughtUp(at)) = first else { panic!("{first:?}") };
    assert!((1..=skipped).contains(&at), "{first:?}");
    assert_eq!(late.safe, at, "a consumer may save it");
    // This one was live, and may have skipped some before it fell behind.
    while follower.safe < skipped {
        let item = follower.next().await;
        assert!(!matches!(item, Item::Event(_)), "{item:?}");
    }
    stored(store, vec![event(99_999, &call("a"), "Rare")]).await;
    while follower.next().await != Item::Event(skipped + 1) {}
}

pub async fn a_quiet_filtered_subscription_gets_a_checkpoint_in_time(store: &dyn EventStore) {
    let mut follower = Follower::of_type(store, "Rare");
    assert_eq!(follower.next().await, Item::CaughtUp(0));
    stored(store, vec![event(1, &call("a"), "Other"), event(2, &call("a"), "Other")]).await;
    let patience = Delay::new(Duration::from_secs(5));
    let checkpoint = follower.next();
    let Either::Left((item, _)) = futures::future::select(checkpoint.boxed(), patience).await
    else {
        panic!("no checkpoint within 5 s, 1 s is promised")
    };
    assert_eq!(item, Item::Checkpoint(2));
    follower.nothing_comes().await;
    stored(store, vec![event(3, &call("a"), "Rare")]).await;
    assert_eq!(follower.next().await, Item::Event(3));
}
