//! What the whole-system tests share.
#![expect(missing_docs, reason = "test support")]

pub mod conformance;
pub mod events;
pub mod faults;
pub mod faulty_disk;
pub mod filled_log;
pub mod history;
pub mod host_log;
pub mod memory_disk;
pub mod mount;
pub mod patience;
pub mod postgres;
pub mod proxy;
pub mod running;
pub mod served;
pub mod shared_data;
pub mod sim;
pub mod stepped_log;
pub mod tamper;
pub mod varied_events;
