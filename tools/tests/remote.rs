//! `--server`: commands on a log behind `quipu serve`, also while it is killed and started again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use quipu_tests::running::Running;
use support::{
    Place, answer, line, quipu, quipu_without_words, run, run_with_input, serve, serve_on, spawn,
};

#[test]
fn every_command_that_takes_a_server_works_on_one() {
    let place = Place::new();
    let serving = serve(&place.log);
    let at = format!("--server quipu://{}", serving.listen);
    let append = format!("append {at} Call 42 --event-type Rang --expected none");
    run(&append).code(0).says("position 1");
    run(&append).code(1).complains("Call/42: expected no stream, is at version 1");
    let lines = (2..=600).map(|id| line(id, "43", u64::try_from(id).unwrap() - 1, "{}"));
    let lines: String = lines.collect();
    run_with_input(&format!("import {at} -"), lines.as_bytes()).code(0).says("599 new");
    run_with_input(&format!("import {at} -"), lines.as_bytes()).code(0).says("nothing was new");
    run(&format!("read {at} Call 42")).code(0).says("Call/42");
    let newest = run(&format!("read {at} --backward --limit 2 --json")).code(0).json();
    assert_eq!(
        newest.iter().map(|it| it["position"].as_u64()).collect::<Vec<_>>(),
        [Some(600), Some(599)]
    );
    let mut tail = spawn(&format!("tail {at} --after 598 --json"));
    let next = tail.line();
    assert!(next.contains("\"position\":599"), "{next}");
    tail.kill().unwrap();
    tail.wait().unwrap();
    run(&format!("status {at}")).code(0).says("1 to 600");
    let status = run(&format!("status {at} --json")).code(0).json();
    assert_eq!(status[0]["last_position"], 600);
    let exported = run(&format!("export {at}")).code(0);
    drop(serving);
    assert_eq!(exported.json(), place.events());
}

#[test]
fn a_server_that_cannot_be_reached_is_exit_code_3_and_a_wrong_address_2() {
    let place = Place::new();
    let serving = serve(&place.log);
    let address = serving.listen.clone();
    serving.kill();
    for command in ["read", "export", "status", "tail", "import -"] {
        let answer = run(&format!("{command} --server {address}"));
        answer.code(3).complains(&address);
    }
    run("read --server quipus://localhost").code(2).complains("TLS");
    run("read --server http://localhost").code(2).complains("HOST:PORT");
    run(&format!("read --server {address} --log {}", place.log)).code(2);
    run("read").code(2).complains("--server");
}

/// A tail of a server that is killed and comes back; it has heard of an event before and after.
fn tail_over_a_restart(command: &mut Command) -> Running {
    let place = Place::new();
    let serving = serve(&place.log);
    let address = serving.listen.clone();
    let append = format!("append --server {address} Call 42 --event-type Rang");
    run(&append).code(0);
    let tail = format!("tail --server {address} --after 0 --json");
    let mut tail = Running::start(command.args(tail.split(' ')).stdout(Stdio::piped()));
    assert!(tail.line().contains("\"position\":1"));
    serving.kill();
    let serving = serve_on(&place.log, &address);
    run(&append).code(0);
    assert!(tail.line().contains("\"position\":2"));
    drop(serving);
    tail
}

#[test]
fn tail_says_that_its_server_is_away_and_goes_on_when_it_is_back() {
    let mut tail = tail_over_a_restart(quipu().stderr(Stdio::piped()));
    tail.kill().unwrap();
    answer(&tail.wait_with_output().unwrap())
        .complains("connection lost")
        .complains("connected again");
}

/// The message of the lost connection took the connection along.
#[test]
fn tail_goes_on_where_nothing_can_be_said() {
    tail_over_a_restart(&mut quipu_without_words());
}

#[test]
fn an_import_survives_a_server_that_is_killed_again_and_again() {
    const LINES: u64 = 30_000;
    let place = Place::new();
    let file: String = (1..=LINES)
        .map(|n| line(n.into(), &(n % 97).to_string(), 1 + (n - 1) / 97, "{}"))
        .collect();
    let file = place.file("events.ndjson", file);
    let mut serving = serve(&place.log);
    let address = serving.listen.clone();
    let mut import = spawn(&format!("import --server {address} --renumber {file}"));
    let read = format!("read --server {address} --limit 1");
    assert!((0..500).any(|_| !run(&read).code(0).out.is_empty()), "it has begun");
    let mut kills = 0;
    let mut pause = 20;
    while kills < 10 && import.try_wait().unwrap().is_none() {
        std::thread::park_timeout(Duration::from_millis(pause));
        pause = (pause * 7 + 13) % 90 + 5;
        serving.kill();
        serving = serve_on(&place.log, &address);
        kills += 1;
    }
    let done = answer(&import.wait_with_output().unwrap()).code(0);
    assert!(done.out.contains("0 refused"), "{done:?}");
    assert!(kills > 3, "it was over after {kills} kills");
    let exported = run(&format!("export --server {address}")).code(0).json();
    let ids: Vec<_> = exported.iter().map(|event| event["id"].as_str().unwrap()).collect();
    let expected: Vec<_> =
        (1..=LINES).map(|n| quipu_client::Uuid::from_u128(n.into()).to_string()).collect();
    assert!(ids == expected, "each once, in the order of the file: {} of {LINES}", ids.len());
}
