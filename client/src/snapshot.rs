//! The state of an aggregate, kept in the log: what it is as a record, and how it is read back.

use quipu_types::limits::AGGREGATE_ID_BYTES_MAX;
use quipu_types::{
    AggregateKey, AppendError, Direction, Filter, NewEvent, Position, ReadRequest, Record, Version,
};
use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::aggregates::Aggregate;
use crate::codec_error::EncodeError;
use crate::finite;
use crate::folded::{At, Folded};
use crate::repository_error::LoadError;
use crate::stamps::Stamp;
use crate::store::EventStore;

/// The aggregate type of snapshots.
pub const SNAPSHOT_TYPE: &str = "$snapshot";
/// Their event type.
const TAKEN: &str = "SnapshotTaken";
/// How many are looked at for one that can be read: a newer program may have taken the last ones.
const LOOKED_AT_MAX: u64 = 16;

/// An aggregate whose state may be kept, as JSON.
pub trait Snapshotted: Aggregate + Serialize + DeserializeOwned + 'static {
    /// Version of the state's JSON. Any change of its fields, or of how events are taken into it,
    /// is a new version; snapshots of other versions are ignored.
    const STATE_VERSION: u16 = 1;
}

/// Why a snapshot was not taken. The aggregate is as good as before, only slower to load; where its
/// state is one that cannot be kept, too large for an event perhaps, the next multiple tries again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Type and id of the aggregate do not fit the name of a stream.
    #[error("{key}: type and id have {given} bytes, {limit} are the most with snapshots")]
    NameTooLong {
        /// The aggregate.
        key: AggregateKey,
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        given: usize,
    },
    /// The aggregate cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its state has no JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It was not stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The host's code has.
    #[error("its state panicked when it was to be kept")]
    Panicked,
}

/// A snapshot's JSON.
#[derive(Serialize, Deserialize)]
struct Taken<'a> {
    aggregate_type: String,
    aggregate_id: String,
    version: Version,
    position: Position,
    #[serde(borrow)]
    state: &'a RawValue,
}

/// How states of one type become records and come back.
pub(crate) struct SnapshotCodec<A> {
    encode: fn(&A) -> Result<Box<RawValue>, serde_json::Error>,
    decode: fn(&str) -> Option<A>,
    state_version: u16,
}

impl SnapshotError {
    /// Whether the same state would fail again.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::NameTooLong { .. } | Self::Encode(_) | Self::Panicked => true,
            Self::Append(error) => matches!(error, AppendError::Invalid(_)),
            Self::Load(_) => false,
        }
    }
}

impl<A: Snapshotted> Default for SnapshotCodec<A> {
    fn default() -> Self {
        Self {
            encode: |state| {
                finite::check(state).map_err(serde_json::Error::custom)?;
                serde_json::value::to_raw_value(state)
            },
            decode: |json| serde_json::from_str(json).ok(),
            state_version: A::STATE_VERSION,
        }
    }
}

impl<A: Aggregate> SnapshotCodec<A> {
    /// The event that keeps a state.
    pub(crate) fn event(
        &self,
        key: &AggregateKey,
        folded: &Folded<A>,
        stamp: Stamp,
    ) -> Result<NewEvent, SnapshotError> {
        let not_json = |error: serde_json::Error| EncodeError::NotJson {
            event_type: TAKEN.to_owned(),
            problem: error.to_string(),
        };
        let state = (self.encode)(&folded.state).map_err(not_json)?;
        let taken = Taken {
            aggregate_type: key.aggregate_type.clone(),
            aggregate_id: key.aggregate_id.clone(),
            version: folded.version,
            position: folded.position,
            state: &state,
        };
        let payload = serde_json::to_vec(&taken).map_err(not_json)?;
        let event =
            NewEvent::json(stamp.event_id, stream_of(key)?, TAKEN, stamp.timestamp, payload);
        Ok(NewEvent { schema_version: self.state_version, ..event })
    }

    /// The newest state that was kept of an aggregate, as it was then; none is the empty one. What
    /// cannot be read is passed over: the events say it all.
    pub(crate) async fn newest<S: EventStore + ?Sized>(
        &self,
        store: &S,
        key: &AggregateKey,
        at: Option<At>,
    ) -> Folded<A> {
        self.newest_of(store, key, at).await.unwrap_or_default()
    }

    async fn newest_of<S: EventStore + ?Sized>(
        &self,
        store: &S,
        key: &AggregateKey,
        at: Option<At>,
    ) -> Option<Folded<A>> {
        // Times say nothing of order: a state of a moment in time is folded from the events.
        if matches!(at, Some(At::Timestamp(_) | At::Recorded(_))) {
            return None;
        }
        let request = ReadRequest {
            filter: Filter::aggregate(stream_of(key).ok()?),
            direction: Direction::Backward,
            limit: at.is_none().then_some(LOOKED_AT_MAX),
            ..ReadRequest::default()
        };
        // One at a time: it is nearly always the first.
        let first = ReadRequest { limit: Some(1), ..request.clone() };
        for request in [first, request] {
            let mut kept = store.read(request);
            loop {
                let page = kept.next_batch().await.ok()?;
                if page.is_empty() {
                    break;
                }
                if let Some(folded) = page.iter().find_map(|record| self.read(key, record, at)) {
                    return Some(folded);
                }
            }
        }
        None
    }

    fn read(&self, key: &AggregateKey, record: &Record, at: Option<At>) -> Option<Folded<A>> {
        if record.event_type() != TAKEN || record.schema_version() != self.state_version {
            return None;
        }
        let taken: Taken<'_> = serde_json::from_slice(record.payload()).ok()?;
        let Taken { aggregate_type, aggregate_id, version, position, state } = taken;
        let is_of_it = AggregateKey { aggregate_type, aggregate_id } == *key;
        let was_before = version > Version::NONE && position < record.position();
        let was_there = match at {
            Some(At::Version(at)) => version <= at,
            Some(At::Position(at)) => position <= at,
            _ => true,
        };
        if !is_of_it || !was_before || !was_there {
            return None;
        }
        Some(Folded { state: (self.decode)(state.get())?, version, position })
    }
}

/// The stream that keeps the states of one aggregate.
fn stream_of(key: &AggregateKey) -> Result<AggregateKey, SnapshotError> {
    let name = key.to_string();
    let (limit, given) = (AGGREGATE_ID_BYTES_MAX, name.len());
    if given > limit {
        return Err(SnapshotError::NameTooLong { key: key.clone(), limit, given });
    }
    Ok(AggregateKey::new(SNAPSHOT_TYPE, name))
}
