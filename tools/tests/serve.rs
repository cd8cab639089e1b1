//! `quipu serve` as an operator meets it: ports, locks, signals.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rustix::process::Signal;
use support::{Place, run, serve, signal};

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
fn a_segment_of_no_size_there_is_is_3_and_names_the_sizes() {
    let place = Place::new();
    run(&format!(
        "serve --log {} --listen 127.0.0.1:0 --http none --segment-bytes 10000",
        place.log
    ))
    .code(3)
    .complains("segment_bytes is 10000")
    .complains("a multiple of 4096");
}
