//! What a host programs against: [`EventStore`], the log [`Embedded`] in its process, and the log
//! behind a server, [`Remote`]. One line differs.
//!
//! ```
//! use futures::executor::block_on;
//! use quipu_client::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let store = Embedded::open(folder.path(), Options::default())?;
//! let call = AggregateKey::new("Call", "42");
//! let created = store.new_event(call.clone(), "CallCreated", r#"{"from":"agent"}"#);
//! block_on(store.append(Append::one(created, ExpectedVersion::NoStream)))?;
//! let ended = store.new_event(call.clone(), "CallCompleted", r#"{"seconds":61}"#);
//! let outcome = block_on(store.append(Append::one(ended, ExpectedVersion::Exact(Version(1)))))?;
//! assert_eq!(outcome.last_position(), Position(2)); // on stable storage, indexed, visible
//! let of_call = ReadRequest { filter: Filter::aggregate(call), ..Default::default() };
//! let mut history = store.read(of_call);
//! for record in block_on(history.next_batch())? {
//!     println!("{} {}", record.version(), record.event_type());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Over TCP, inside a tokio runtime, that line is:
//!
//! ```no_run
//! # use quipu_client::*;
//! # async fn connect() -> Result<(), ConnectError> {
//! let store = Remote::connect("quipu://localhost:7440").await?;
//! # Ok(())
//! # }
//! ```

/// The README's example is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

mod aggregates;
mod batches;
mod bus;
mod codec_error;
mod context;
#[cfg(feature = "embedded")]
mod embedded;
mod event_type;
mod finite;
mod folded;
#[cfg(any(feature = "embedded", feature = "tcp"))]
mod fresh;
#[cfg(all(feature = "testing", feature = "embedded"))]
mod memory;
#[cfg(feature = "embedded")]
mod options;
#[cfg(feature = "tcp")]
mod remote;
mod repository;
mod repository_error;
mod root;
mod save;
#[cfg(feature = "embedded")]
mod scan;
mod snapshot;
mod snapshots;
mod stamps;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod traceparent;
mod unfit;
mod untyped;

pub use aggregates::{Aggregate, Inapplicable};
pub use batches::{RecordStream, Subscription};
pub use bus::{
    Backoff, Begin, BusError, BusOptions, CHECKPOINT_TYPE, Delivery, EventBus, EventTypeCounts,
    HANDLER_TYPE, Handler, HandlerError, HandlerMetrics, HandlerNotes, HandlerStatus, IfHeld,
    LEASE_TYPE, ParkedEvent, Place, Places, PlacesAt, ReplayRequest, ReplayState, Subject,
    Unreadable,
};
pub use codec_error::{DecodeError, DecodeProblem, EncodeError};
pub use context::EventContext;
#[cfg(feature = "embedded")]
pub use embedded::Embedded;
pub use event_type::{
    AggregateEvent, EncodedEvent, EventType, Upcaster, decode_event, encode_event,
};
pub use folded::{At, Folded};
#[cfg(all(feature = "testing", feature = "embedded"))]
pub use memory::MemoryStorage;
#[cfg(feature = "embedded")]
pub use options::Options;
#[cfg(feature = "embedded")]
pub use quipu_engine::{
    Backend, Counts, LogState, Mapping, OpenError, RecoveryReport, SegmentInfo, Status,
};
pub use quipu_types::*;
#[cfg(feature = "tcp")]
pub use remote::{ConnectError, Remote, RemoteOptions};
pub use repository::{Decided, Repository};
pub use repository_error::{ExecuteError, FoldError, IsConflict, LoadError, SaveError};
pub use root::Root;
pub use save::{Uncommitted, retry_conflicts, save_all};
pub use snapshot::{SNAPSHOT_TYPE, SnapshotError, Snapshotted};
pub use snapshots::{SnapshotCounts, Snapshots};
pub use stamps::{Stamp, Stamps, SystemStamps};
pub use store::EventStore;
pub use traceparent::{NotATraceparent, Traceparent};
pub use untyped::UntypedEvent;
