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

mod batches;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(any(feature = "embedded", feature = "tcp"))]
mod fresh;
#[cfg(feature = "embedded")]
mod options;
#[cfg(feature = "tcp")]
mod remote;
mod store;

pub use batches::{RecordStream, Subscription};
#[cfg(feature = "embedded")]
pub use embedded::Embedded;
#[cfg(feature = "embedded")]
pub use options::Options;
#[cfg(feature = "embedded")]
pub use quipu_engine::{
    Backend, Counts, LogState, Mapping, OpenError, RecoveryReport, SegmentInfo, Status,
};
pub use quipu_types::*;
#[cfg(feature = "tcp")]
pub use remote::{ConnectError, Remote, RemoteOptions};
pub use store::EventStore;
