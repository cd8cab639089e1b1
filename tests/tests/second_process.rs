//! Two processes at one folder: one writes, any number may read beside it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use quipu_client::OpenError;
use quipu_tests::filled_log::{
    EVENTS, append, filled, goes_on, open, open_read_only, originals, read_all, says,
};
use quipu_tests::running::Running;

const HOLDER: &str = "QUIPU_TEST_HOLDER_FOLDER";

#[test]
#[ignore = "the process that the next test starts"]
fn holder() {
    let Some(folder) = std::env::var_os(HOLDER) else { return };
    let log = open(Path::new(&folder)).expect("the first process opens the log");
    goes_on(&log, EVENTS);
    eprintln!("open");
    std::io::stdin().read_line(&mut String::new()).expect("the test closes the pipe");
}

#[test]
fn a_second_process_is_refused_naming_the_first_and_may_read_beside_it() {
    let folder = filled();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["holder", "--exact", "--ignored", "--nocapture"]).env(HOLDER, folder.path());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Running::start(&mut command);
    let mut line = String::new();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    child.within(|_| said.read_line(&mut line)).unwrap();
    assert_eq!(line, "open\n");
    let error = open(folder.path()).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let holder = format!("process {}", child.id());
    says(&error.to_string(), &["in use", &holder, "--server", "read-only"]);
    let reader = open_read_only(folder.path()).unwrap();
    let (records, error) = read_all(&reader);
    assert_eq!(error, None);
    assert_eq!(records[..originals().len()], *originals());
    assert!(records.len() as u64 >= EVENTS + 19, "all but the last are proven");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    reader.refresh().unwrap();
    assert_eq!(read_all(&reader).0.len() as u64, EVENTS + 20, "CLEAN proves the last");
    assert!(open(folder.path()).unwrap().recovery_report().clean);
}

#[test]
fn opening_beside_a_writer_that_rolls_never_takes_its_work_for_damage() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let writes = || (1..=600).for_each(|id| drop(append(&log, id).expect("stored")));
    let openings = std::thread::scope(|scope| {
        let writer = scope.spawn(writes);
        let mut openings = 0;
        let mut last_seen = 0;
        while !writer.is_finished() {
            let reader = open_read_only(folder.path()).expect("it opens beside a writer");
            let report = reader.recovery_report();
            assert_eq!(report.damage, None, "{report}");
            let (records, error) = read_all(&reader);
            assert_eq!(error, None);
            assert!(records.iter().zip(1..).all(|(record, id)| record.position().0 == id));
            assert!(records.len() >= last_seen, "what was proven stays proven");
            last_seen = records.len();
            openings += 1;
        }
        openings
    });
    assert!(openings > 2, "{openings} openings");
    assert!(log.status().unwrap().segments.len() > 40);
}
