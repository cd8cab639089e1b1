//! One file of the log, and the ordered set of them.

pub mod open_files;
pub mod scanner;
pub mod sealed_segment;
#[expect(clippy::module_inception, reason = "the file that is the noun")]
pub mod segment;
pub mod set;
pub mod tail;

pub use scanner::{ScanEnd, Scanner, WholeGroup};
pub use segment::Segment;
pub use set::Segments;
