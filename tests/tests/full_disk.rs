//! Disks that refuse: read-only, full, without a single free byte.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files are made and changed behind the log's back"
)]

use std::time::{Duration, Instant};

use quipu_client::{AppendError, Embedded, LogState};
use quipu_tests::filled_log::{
    EVENTS, append, filled, goes_on, is_prefix_of_originals, open, open_read_only, read_all, says,
};
use quipu_tests::mount::Mount;
use quipu_tests::tamper::{Folder, copy_folder, remove, write};

#[test]
fn a_log_on_a_read_only_file_system_can_be_read() {
    let folder = filled();
    let Some(_mount) = Mount::read_only(folder.path()) else { return };
    let error = open(folder.path()).map(drop).unwrap_err();
    says(&error.to_string(), &["Read-only file system"]);
    let log = open_read_only(folder.path()).unwrap();
    is_prefix_of_originals(&log, EVENTS);
    let refusal = append(&log, EVENTS + 1).unwrap_err();
    assert!(matches!(refusal, AppendError::ReadOnly(_)), "{refusal}");
}

/// Appends until there is no space; returns how many events there are then.
fn fill(log: &Embedded, mut last: u64) -> u64 {
    loop {
        match append(log, last + 1) {
            Ok(_) => last += 1,
            Err(AppendError::NoSpace(reason)) => {
                says(&reason, &["free"]);
                return last;
            }
            Err(error) => panic!("event {}: {error}", last + 1),
        }
    }
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else_and_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::small(folder.path(), 3 << 20) else { return };
    let log_folder = folder.path().join("log");
    let ballast = folder.path().join("ballast");
    write(&ballast, vec![1; 1 << 20]);
    let log = open(&log_folder).unwrap();
    let last = fill(&log, 0);
    assert!(last > 100, "{last} events fit");
    assert!(matches!(log.status().unwrap().state, LogState::NoSpace(_)));
    assert_eq!(read_all(&log).0.len() as u64, last, "reads go on");
    drop(log);
    let log = open(&log_folder).expect("a log on a full disk can be opened");
    assert_eq!(log.recovery_report().damage, None);
    let last = fill(&log, last);
    assert_eq!(read_all(&log).0.len() as u64, last, "reads go on");
    remove(&ballast);
    let patience = Instant::now() + Duration::from_secs(10);
    while append(&log, last + 1).is_err() {
        assert!(Instant::now() < patience, "appends go on by themselves once there is space");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(log.status().expect("the folder is there").state, LogState::Writable);
    goes_on(&log, last + 1);
    drop(log);
    let log = open(&log_folder).unwrap();
    assert_eq!(read_all(&log).0.len() as u64, last + 21);
}

#[test]
fn a_log_where_no_file_can_be_made_any_more_opens() {
    let (source, folder) = (filled(), tempfile::tempdir().unwrap());
    // The folder itself, and its lock, which is not copied.
    let files = Folder(source.path()).names().len() as u64 + 2;
    let Some(_mount) = Mount::for_files(folder.path(), files) else { return };
    copy_folder(source.path(), folder.path());
    write(&folder.path().join("lock"), Vec::new());
    assert!(std::fs::write(folder.path().join("one more"), []).is_err(), "there is room for it");
    let log = open(folder.path()).unwrap();
    is_prefix_of_originals(&log, EVENTS);
}

/// Other files may take even the space that the log keeps free for itself.
#[test]
fn a_log_on_a_disk_without_a_single_free_byte_opens_and_reads() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::small(folder.path(), 2 << 20) else { return };
    let log_folder = folder.path().join("log");
    let log = open(&log_folder).unwrap();
    let last = fill(&log, 0);
    drop(log);
    let ballast = folder.path().join("ballast");
    let mut size = 2 << 20;
    while size >= 4_096 {
        let more = std::fs::OpenOptions::new().create(true).append(true).open(&ballast);
        if std::io::Write::write_all(&mut more.unwrap(), &vec![1; size]).is_err() {
            size /= 2;
        }
    }
    for _ in 0..20 {
        let log = open(&log_folder).expect("a log on a full disk can be opened");
        assert_eq!(read_all(&log).0.len() as u64, last);
        let refusal = append(&log, last + 1).unwrap_err();
        assert!(matches!(refusal, AppendError::NoSpace(_)), "{refusal}");
    }
    remove(&ballast);
    let log = open(&log_folder).unwrap();
    assert_eq!(log.recovery_report().damage, None);
    assert_eq!(read_all(&log).0.len() as u64, last);
}
