//! A log for the tests of this crate's own modules.

use std::sync::Arc;

use quipu_engine::{
    Access, Backend, DiskStorage, Environment, EventLog, LogOptions, Mapping, System,
};
use tempfile::TempDir;

pub(crate) fn log(folder: &TempDir) -> EventLog {
    let path = folder.path();
    let storage = DiskStorage::open(path, Access::ReadWrite, Backend::Auto, Mapping::Mapped);
    let env = Environment {
        storage: Arc::new(storage.unwrap()),
        clock: Arc::new(System),
        entropy: Arc::new(System),
    };
    EventLog::open(env, LogOptions { segment_bytes: 64 << 20, ..LogOptions::default() }).unwrap()
}
