//! `quipu serve` as an operator meets it: ports, locks, signals.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "a test looks into the folder of a log")]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use quipu_tests::running::{self, Running};
use rustix::process::Signal;
use support::{
    Place, answer, line, quipu, quipu_with_open_files, run, run_with_input, serve, serve_by, signal,
};

#[test]
fn a_signal_stops_it_in_order_and_it_exits_with_0() {
    for name in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut serving = serve(&place.log);
        signal(&serving.child, name);
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{name:?}");
        let status = run(&format!("status --log {} --json", place.log)).code(0).json();
        assert_eq!(status[0]["closed_in_order"], true);
    }
}

#[test]
fn it_serves_on_where_nobody_hears_that_it_is_ready() {
    let place = Place::new();
    let mut command = quipu();
    let serve = format!("serve --log {} --listen 127.0.0.1:0 --http none", place.log);
    let command = command.args(serve.split(' ')).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut serving = Running::start(command);
    drop(serving.stdout.take());
    // It is ready once it has a segment and waits for signals.
    let status = || run(&format!("status --log {} --json", place.log));
    let ready_within = Instant::now() + Duration::from_mins(1);
    while status().code != 0 {
        assert!(Instant::now() < ready_within, "it has not made its log");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    std::thread::park_timeout(Duration::from_millis(300));
    assert!(serving.try_wait().unwrap().is_none(), "it ended");
    signal(&serving, Signal::TERM);
    assert_eq!(serving.wait().unwrap().code(), Some(0));
    assert_eq!(status().code(0).json()[0]["closed_in_order"], true);
}

#[test]
fn a_port_in_use_and_a_log_held_are_3_and_say_so() {
    let place = Place::new();
    let mut serving = serve(&place.log);
    let log = &place.log;
    let listen = &serving.listen;
    run(&format!("serve --log {log}2 --listen {listen} --http none")).code(3).complains(listen);
    assert!(!std::path::Path::new(&format!("{log}2")).exists(), "no log is made for a port in use");
    run(&format!("serve --log {log} --listen 127.0.0.1:0 --http none"))
        .code(3)
        .complains(log)
        .complains("in use by");
    signal(&serving.child, Signal::TERM);
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_address_that_others_could_reach_is_2_unless_it_is_allowed() {
    let place = Place::new();
    run(&format!("serve --log {} --listen 0.0.0.0:0 --http none", place.log))
        .code(2)
        .complains("--allow-remote");
}

#[test]
fn settings_out_of_range_are_2_and_name_the_range() {
    let place = Place::new();
    let serve = format!("serve --log {} --listen 127.0.0.1:0 --http none", place.log);
    for bytes in ["10000", "4KiB", "2GiB"] {
        run(&format!("{serve} --segment-bytes {bytes}"))
            .code(2)
            .complains(bytes)
            .complains("a multiple of 4096 from 64.0 KiB to 1.0 GiB");
    }
    run(&format!("{serve} --connections-max 0")).code(2).complains("from 1 on");
    for workers in ["0", "18446744073709551615"] {
        run(&format!("{serve} --workers {workers}")).code(2).complains("1..=1024");
    }
    run(&format!("serve --log {} --listen nowhere --http none", place.log))
        .code(2)
        .complains("--listen");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_option() {
    let (place, other) = (Place::new(), Place::new());
    let first = serve_by(&mut quipu(), &format!("serve --log {} --listen 127.0.0.1:0", other.log));
    let address = &first.listen;
    run(&format!("serve --log {} --listen 127.0.0.1:0 --http {address}", place.log))
        .code(3)
        .complains(&format!("cannot listen on {address}"))
        .complains("(--http)");
}

#[test]
fn a_log_may_have_more_segments_than_a_process_may_open_files() {
    // 32 that are read, a few dozen runs, and a dozen others.
    const OPEN_FILES_MAX: u32 = 120;
    let place = Place::new();
    let log = &place.log;
    let payload = format!("{{\"of\":\"{}\"}}", "x".repeat(12_000));
    let lines = |ids: std::ops::RangeInclusive<u128>| -> String {
        ids.map(|id| line(id, "42", u64::try_from(id).unwrap(), &payload)).collect()
    };
    let serve = format!("serve --log {log} --listen 127.0.0.1:0 --segment-bytes 65536");
    let serving = serve_by(&mut quipu(), &serve);
    let at = format!("--server quipu://{}", serving.listen);
    run_with_input(&format!("import {at} -"), lines(1..=600).as_bytes()).code(0).says("600 new");
    // Segments so small are sealed faster than they are indexed, and runs are merged behind that.
    let begun = Instant::now();
    while files(log, ".idx") < 140 || files(log, ".run") > 20 {
        assert!(begun.elapsed() < Duration::from_mins(2), "{} runs", files(log, ".run"));
        std::thread::sleep(Duration::from_millis(50));
    }
    serving.stop();
    assert!(files(log, ".seg") > 140, "{} segments", files(log, ".seg"));
    let limited = |line: &str| {
        let mut quipu = quipu_with_open_files(OPEN_FILES_MAX);
        answer(&running::output(quipu.args(line.split(' '))))
    };
    let file = place.file("more.ndjson", lines(1..=602));
    limited(&format!("import --log {log} {file}")).code(0).says("2 new");
    for command in ["read Call 42", "read", "verify --deep", "export", "status"] {
        let (command, rest) = command.split_once(' ').unwrap_or((command, ""));
        limited(format!("{command} --log {log} {rest}").trim()).code(0);
    }
}

/// How many files of a log end so.
fn files(log: &str, end: &str) -> usize {
    let names = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(end)).count()
}
