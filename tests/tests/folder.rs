//! The folder of a log that is open: the log stays in it, wherever its path leads meanwhile, and
//! nobody else writes there.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "folders are changed behind the log's back; a failure is a panic with its reason"
)]

use std::fs::{create_dir, remove_file, rename, write};
use std::path::Path;

use quipu_client::OpenError;
use quipu_engine::storage::{Access, Backend, DiskStorage, LockError, Mapping, Storage};
use quipu_tests::filled_log::{EVENTS, append, filled, open, read_all, says};
use quipu_tests::tamper::Folder;

/// Appends of several segments.
const MORE: u64 = 60;

#[test]
fn a_log_whose_folder_is_renamed_and_replaced_stays_whole_where_it_is() {
    let folder = filled();
    let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
    let (before, source) = (folder.path(), filled());
    rename(source.path(), &path).unwrap();
    let log = open(&path).unwrap();
    rename(&path, &moved).unwrap();
    create_dir(&path).unwrap();
    let last = EVENTS + MORE;
    (EVENTS + 1..=last).for_each(|id| drop(append(&log, id).unwrap()));
    assert!(log.status().unwrap().segments.len() > 4, "segments were made meanwhile");
    assert_eq!(read_all(&log).0.len() as u64, last);
    drop(log);
    assert!(Folder(&path).names().is_empty(), "{:?}", Folder(&path).names());
    let log = open(&moved).unwrap();
    assert!(log.recovery_report().clean);
    assert_eq!(read_all(&log).0.len() as u64, last);
    assert!(before.exists());
}

fn is_refused(folder: &Path, holder: &str) {
    let error = open(folder).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    says(&error.to_string(), &["in use", holder]);
}

#[test]
fn a_lock_file_that_is_removed_or_replaced_lets_nobody_in() {
    let folder = filled();
    let lock = folder.path().join("lock");
    let log = open(folder.path()).unwrap();
    is_refused(folder.path(), "process ");
    remove_file(&lock).unwrap();
    is_refused(folder.path(), "a process that its file lock does not name");
    remove_file(&lock).unwrap();
    write(&lock, "somebody").unwrap();
    is_refused(folder.path(), "somebody");
    append(&log, EVENTS + 1).unwrap();
    drop(log);
    let log = open(folder.path()).unwrap();
    assert_eq!(read_all(&log).0.len() as u64, EVENTS + 1);
}

#[test]
fn a_lock_belongs_to_who_took_it_also_within_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskStorage::open(folder.path(), Access::ReadWrite, Backend::Auto, Mapping::Mapped)
        .unwrap();
    let held = disk.lock().unwrap();
    remove_file(folder.path().join("lock")).unwrap();
    assert!(matches!(disk.lock().map(drop), Err(LockError::Held(_))));
    drop(held);
    drop(disk.lock().expect("it is free again"));
}
