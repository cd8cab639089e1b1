//! What the whole-system tests share.
#![expect(missing_docs, reason = "test support")]

pub mod conformance;
pub mod events;
pub mod faulty_disk;
pub mod shared_data;
