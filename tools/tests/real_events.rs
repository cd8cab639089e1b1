//! A real event log, 262,200 events of 13,087 loan applications, goes in, comes out equal, and
//! survives being killed on its way in. Skipped, loudly, where the file is not there.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests read files")]

mod support;

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use flate2::read::GzDecoder;
use quipu_client::json::{EventLine, parse_line};
use support::{Place, run, serve, serve_on, shared, spawn};

const EVENTS: usize = 262_200;
const KILLS: u64 = 20;

fn given(path: &PathBuf) -> Vec<EventLine> {
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("the file is there");
    GzDecoder::new(file).read_to_string(&mut text).expect("the file is gzip");
    parse(&text)
}

fn stored(place: &Place) -> Vec<EventLine> {
    let exported = run(&format!("export --log {}", place.log)).code(0).out;
    parse(&exported)
}

fn parse(text: &str) -> Vec<EventLine> {
    text.lines().map(|line| parse_line(line.as_bytes()).expect("the line is legal")).collect()
}

/// Equal but for versions that the file gives and the log has given again: they are equal too.
#[track_caller]
fn assert_equal(stored: &[EventLine], given: &[EventLine]) {
    assert_eq!(stored.len(), given.len());
    for (number, (stored, given)) in stored.iter().zip(given).enumerate() {
        assert_eq!(stored, given, "event {}", number + 1);
    }
}

#[test]
fn the_real_log_goes_in_and_comes_out_equal() {
    let Some(path) = shared("bpic2012.ndjson.gz") else { return };
    let place = Place::new();
    let import = format!("import --log {} {}", place.log, path.display());
    run(&import).code(0).says("262,200 new");
    let given = given(&path);
    assert_eq!(given.len(), EVENTS);
    assert_equal(&stored(&place), &given);

    let history = run(&format!("read LoanApplication 173688 --json --log {}", place.log)).code(0);
    let history = parse(&history.out);
    let of_loan: Vec<EventLine> = (given.iter())
        .filter(|line| line.event.aggregate.aggregate_id == "173688")
        .cloned()
        .collect();
    assert!(of_loan.len() > 20);
    assert_equal(&history, &of_loan);

    run(&import).code(0).says("nothing was new");
    run(&format!("verify --deep --log {}", place.log)).code(0).says("262,200 events");
}

#[test]
fn an_import_killed_again_and_again_ends_with_exactly_those_events() {
    let Some(path) = shared("bpic2012.ndjson.gz") else { return };
    let place = Place::new();
    let import = format!("import --log {} {}", place.log, path.display());
    let mut killed = 0;
    for kill in 0..KILLS {
        let mut child = spawn(&import);
        // Spread over the time that an import takes, without any order.
        std::thread::sleep(Duration::from_millis(40 + kill * 7_919 % 1_000));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        killed += u64::from(!output.status.success());
    }
    assert!(killed >= KILLS / 2, "only {killed} imports were still running when they were killed");
    run(&import).code(0);
    assert_equal(&stored(&place), &given(&path));
    run(&format!("verify --deep --log {}", place.log)).code(0).says("262,200 events");
}

#[test]
fn the_real_log_goes_in_and_comes_out_equal_over_tcp() {
    let Some(path) = shared("bpic2012.ndjson.gz") else { return };
    let place = Place::new();
    let serving = serve(&place.log);
    let server = &serving.listen;
    let import = format!("import --server {server} {}", path.display());
    run(&import).code(0).says("262,200 new");
    run(&import).code(0).says("nothing was new");
    let exported = parse(&run(&format!("export --server {server}")).code(0).out);
    assert_equal(&exported, &given(&path));
    serving.stop();
    run(&format!("verify --deep --log {}", place.log)).code(0).says("262,200 events");
}

/// One import, and a server that dies again and again under it and comes back on the same port.
#[test]
fn an_import_whose_server_is_killed_again_and_again_ends_with_exactly_those_events() {
    let Some(path) = shared("bpic2012.ndjson.gz") else { return };
    let place = Place::new();
    let mut serving = serve(&place.log);
    let listen = serving.listen.clone();
    let mut import = spawn(&format!("import --server {listen} {}", path.display()));
    let mut killed = 0;
    while killed < KILLS && import.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(40 + killed * 7_919 % 300));
        serving.kill();
        killed += 1;
        serving = serve_on(&place.log, &listen);
    }
    assert!(killed >= KILLS / 2, "the import was over after {killed} kills");
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serving.stop();
    assert_equal(&stored(&place), &given(&path));
    run(&format!("verify --deep --log {}", place.log)).code(0).says("262,200 events");
}
