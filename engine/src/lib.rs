//! The Quipu log: synchronous, embeddable, without sockets or an async runtime.
//!
//! An append walks through [`log`] and [`commit`]; what it becomes on disk is in [`mod@format`] and
//! `segments-format.md`; what a crash leaves is judged in [`recovery`]. Modules in reading order.

pub mod bug;
pub mod clock;
pub mod commit;
pub mod error;
pub mod format;
pub mod histogram;
mod host;
pub mod index;
pub mod log;
pub mod options;
pub mod read;
pub mod recovery;
pub mod segment;
pub mod shared;
pub mod status;
pub mod storage;
mod sync;
pub mod verify;

pub use clock::{Clock, Entropy, System};
pub use commit::prepared::Origin;
pub use error::OpenError;
pub use histogram::Distribution;
pub use log::EventLog;
pub use options::LogOptions;
pub use recovery::report::RecoveryReport;
pub use shared::{Counts, Environment, LogState};
pub use status::{IndexStatus, SegmentInfo, Status};
pub use storage::{Access, Backend, DiskStorage, Mapping, Storage};
pub use verify::{VerifyProgress, VerifyReport, verify};
