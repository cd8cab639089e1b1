//! What every command answers, in words and in exit codes.
#![expect(clippy::disallowed_methods, reason = "tests make their own files")]

mod support;

use std::io::Write;
use std::time::Duration;

use quipu_tests::running::output;
use rustix::process::Signal;
use support::{Place, answer, line, quipu_with_open_files, run, run_with_input, signal, spawn};

#[test]
fn every_command_has_help_with_an_example() {
    let commands = [
        "demo",
        "append",
        "read",
        "tail",
        "import",
        "export",
        "status",
        "segments",
        "segments list",
        "segments inspect",
        "verify",
        "serve",
        "doctor",
        "bench",
        "bench disk",
        "bench append",
        "bench read",
        "bench open",
    ];
    for command in commands {
        let help = run(&format!("{command} --help")).code(0);
        assert!(help.out.contains("Example"), "{command}");
        assert!(help.out.contains(&format!("\n  quipu {command}")), "{command}: {}", help.out);
    }
}

#[test]
fn wrong_usage_is_2_and_a_log_that_is_not_there_is_3() {
    let place = Place::new();
    let log = &place.log;
    run("read").code(2).complains("--log");
    run("fly").code(2).complains("fly");
    run(&format!("append --log {log} Call")).code(2);
    run(&format!("append --log {log} Call 42")).code(2).complains("--event-type");
    run(&format!("append --log {log} Call 42 --event-type T --expected 1.5")).code(2);
    run(&format!("read --log {log} --after yesterday")).code(2).complains("RFC 3339");
    run(&format!("tail --log {log} --after last")).code(2).complains("position");
    for command in ["read", "tail", "export", "status", "segments list", "verify", "bench read"] {
        run(&format!("{command} --log {log}")).code(3).complains(log);
    }
    assert!(!place.folder.path().join("log").exists(), "a reader creates nothing");
    run(&format!("import --log {log} {log}.ndjson")).code(3).complains(".ndjson");
    let not_a_log = place.folder.path().display();
    place.file("letter.txt", "Dear all");
    run(&format!("append --log {not_a_log} Call 42 --event-type T")).code(3);
}

#[test]
fn an_append_is_answered_with_its_place_and_a_conflict_is_1() {
    let place = Place::new();
    let append = format!("append --log {} Call 42 --event-type Rang", place.log);
    run(&format!("{append} --expected none")).code(0).says("position 1").says("version 1");
    run(&format!("{append} --expected none")).code(1).complains("Call/42").complains("version 1");
    run(&format!("{append} --expected 0")).code(1).complains("version 1");
    run(&format!("{append} --expected exists")).code(0).says("position 2");
    run_with_input(&format!("{append} --expected 2 --data -"), b"{\"n\": 3}\n").code(0);
    let answer = run(&format!("{append} --json")).code(0).json();
    assert_eq!(answer[0]["positions"], serde_json::json!([4]));
    assert_eq!(answer[0]["duplicate"], false);
    assert_eq!(answer[0]["versions"][0]["version"], 4);
    let events = place.events();
    assert_eq!(events.len(), 4, "what was refused is not stored");
    assert_eq!(events[2]["data"], serde_json::json!({ "n": 3 }));
}

#[test]
fn an_event_that_can_never_be_stored_is_wrong_usage() {
    let place = Place::new();
    let append = format!("append --log {}", place.log);
    run(&format!("{append} Call 42 --event-type T --data {{")).code(2).complains("JSON");
    run(&format!("{append} $call 42 --event-type T")).code(2).complains("$call");
    let nil = "00000000-0000-0000-0000-000000000000";
    run(&format!("{append} Call 42 --event-type T --id {nil}")).code(2).complains("nil");
    let long = "x".repeat(256);
    run(&format!("{append} Call {long} --event-type T")).code(2).complains("255");
    assert_eq!(place.events().len(), 0);
}

#[test]
fn an_event_sent_twice_is_stored_once() {
    let place = Place::new();
    let id = "6513270e-269e-4d37-b2a7-4de452e6b438";
    let append = format!("append --log {} Call 42 --event-type T --id {id}", place.log);
    run(&format!("{append} --expected 0")).code(0).says("stored at position 1");
    run(&format!("{append} --expected 0")).code(0).says("already stored at position 1");
    run(&format!("{append} --data []")).code(1).complains(id).complains("other content");
    assert_eq!(place.events().len(), 1);
}

#[test]
fn a_file_is_appended_whole_or_not_at_all() {
    let place = Place::new();
    let append = format!("append --log {} --file", place.log);
    let good = [line(1, "a", 1, "{}"), line(2, "b", 1, "{}"), line(3, "a", 2, "{}")].concat();
    run(&format!("{append} {}", place.file("good", &good))).code(0).says("Call/a is at version 2");
    let late = [line(4, "c", 1, "{}"), line(5, "b", 1, "{}")].concat();
    run(&format!("{append} {}", place.file("late", late))).code(1).complains("Call/b");
    let gap = [line(6, "d", 1, "{}"), line(7, "d", 3, "{}")].concat();
    run(&format!("{append} {}", place.file("gap", gap))).code(1).complains("gap:2: ");
    let broken = [line(8, "e", 1, "{}"), "{}\n".to_owned()].concat();
    run(&format!("{append} {}", place.file("broken", broken))).code(1).complains("broken:2: ");
    assert_eq!(place.events().len(), 3);
    run_with_input(&format!("{append} -"), good.as_bytes()).code(0).says("already stored");
}

#[test]
fn a_file_that_no_append_can_hold_is_not_read_to_its_end() {
    let place = Place::new();
    let append = format!("append --log {} --file -", place.log);
    let mut lines: String = (1..=16_385).map(|id| line(id, &id.to_string(), 1, "{}")).collect();
    lines.push_str("not read\n");
    let answer = run_with_input(&append, lines.as_bytes()).code(1);
    answer.complains("-:16385: one append holds at most 16384 events");
    let long = format!("\"{}\"", "x".repeat(6 << 20));
    let mut lines: String =
        (1..=3).map(|id| line(id, "a", u64::try_from(id).unwrap(), &long)).collect();
    lines.push_str("not read\n");
    run_with_input(&append, lines.as_bytes()).code(1).complains("-:3: one append holds at most");
}

#[test]
fn reads_are_narrowed_by_every_option() {
    let place = Place::new();
    let log = &place.log;
    for (id, event_type, correlation) in
        [("a", "Rang", "x"), ("b", "Rang", "y"), ("a", "Ended", "x"), ("b", "Ended", "y")]
    {
        let append = format!("append --log {log} Call {id} --event-type {event_type}");
        run(&format!("{append} --correlation {correlation}")).code(0);
    }
    run(&format!("append --log {log} Fax a --event-type Sent")).code(0);
    let positions = |options: &str| -> Vec<u64> {
        let events = run(&format!("read --log {log} --json{options}")).code(0).json();
        events.iter().map(|event| event["position"].as_u64().unwrap()).collect()
    };
    assert_eq!(positions(""), [1, 2, 3, 4, 5]);
    assert_eq!(positions(" Call"), [1, 2, 3, 4]);
    assert_eq!(positions(" Call a"), [1, 3]);
    assert_eq!(positions(" Call a --from 2"), [3]);
    assert_eq!(positions(" --from 4"), [4, 5]);
    assert_eq!(positions(" --backward --limit 2"), [5, 4]);
    assert_eq!(positions(" --from 3 --backward"), [3, 2, 1]);
    assert_eq!(positions(" --event-type Ended"), [3, 4]);
    assert_eq!(positions(" --event-type Ended --event-type Sent"), [3, 4, 5]);
    assert_eq!(positions(" --correlation y"), [2, 4]);
    assert_eq!(positions(" --from 99"), [0; 0]);
    assert_eq!(positions(" --after 2100-01-01T00:00:00Z"), [0; 0]);
    assert_eq!(positions(" --recorded-after 2020-01-01T00:00:00Z --limit 1"), [1]);
    run(&format!("read --log {log} Call a")).code(0).says("Call/a").says("POSITION");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let lines: String = (1..=3_000).map(|n| line(n.into(), "a", n, "{}")).collect();
    run(&format!("import --log {} {}", place.log, place.file("many", lines))).code(0);
    for command in ["read", "export"] {
        let mut child = spawn(&format!("{command} --log {}", place.log));
        child.line();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn tail_shows_what_another_process_appends() {
    let place = Place::new();
    let append = format!("append --log {} Call 42 --event-type", place.log);
    run(&format!("{append} Before")).code(0);
    let mut tail = spawn(&format!("tail --log {} --after 0 --event-type After --json", place.log));
    run(&format!("{append} Other")).code(0);
    run(&format!("{append} After")).code(0);
    let seen = tail.line();
    tail.kill().unwrap();
    tail.wait().unwrap();
    let event: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!((&event["event_type"], &event["position"]), (&"After".into(), &3.into()));
}

#[test]
fn one_writer_at_a_time_and_readers_beside_it() {
    let place = Place::new();
    run(&format!("append --log {} Call 42 --event-type Rang", place.log)).code(0);
    let mut writer = spawn(&format!("import --log {} -", place.log));
    let mut input = writer.stdin.take().unwrap();
    input.write_all(line(1, "a", 1, "{}").as_bytes()).unwrap();
    let read = format!("read --log {} Call a", place.log);
    let seen = (0..500).any(|_| run(&read).code(0).out.contains("Rang"));
    assert!(seen, "a line that was read is stored although no other follows");
    let append = format!("append --log {} Call 43 --event-type Rang", place.log);
    run(&append).code(3).complains("--server").complains(&place.log);
    run(&format!("read --log {} Call 42", place.log)).code(0).says("Rang");
    run(&format!("status --log {}", place.log)).code(0);
    drop(input);
    assert_eq!(writer.wait().unwrap().code(), Some(0));
    run(&append).code(0);
}

#[test]
fn status_and_segments_say_what_there_is() {
    let place = Place::new();
    for event_type in ["Rang", "Ended"] {
        run(&format!("append --log {} Call 42 --event-type {event_type}", place.log)).code(0);
    }
    run(&format!("status --log {}", place.log)).code(0).says("1 to 2");
    let status = run(&format!("status --log {} --json", place.log)).code(0).json();
    assert_eq!(status[0]["last_position"], 2);
    assert_eq!(status[0]["closed_in_order"], true);
    let list = run(&format!("segments list --log {} --json", place.log)).code(0).json();
    assert_eq!((list.len(), &list[0]["first_position"]), (1, &1.into()));
    run(&format!("segments inspect 1 --log {}", place.log)).code(0).says("Ended");
    run(&format!("segments inspect 7 --log {}", place.log)).code(2).complains("7");
}

#[test]
fn verify_finds_a_byte_that_changed() {
    let place = Place::new();
    let data = "{\"text\":\"unmistakable\"}";
    run(&format!("append --log {} Call 42 --event-type Rang --data {data}", place.log)).code(0);
    run(&format!("append --log {} Call 42 --event-type Ended", place.log)).code(0);
    run(&format!("verify --log {} --deep", place.log)).code(0).says("2 events");
    let path = std::fs::read_dir(&place.log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(12).position(|window| window == b"unmistakable").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let answer = run(&format!("verify --log {}", place.log)).code(1).complains("damage");
    assert!(answer.out.contains("segment 1"), "{answer:?}");
    for command in ["read", "export"] {
        run(&format!("{command} --log {}", place.log)).code(1).complains("position 0");
    }
    let append = format!("append --log {} Call 42 --event-type Late", place.log);
    run(&append).code(3).complains("read-only");
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    let place = Place::new();
    let folder = place.folder.path();
    let demo = run(&format!("demo --in {}", folder.display())).code(0);
    for text in ["position 1", "version conflict", "already stored", "no damage", "events a second"]
    {
        assert!(demo.out.contains(text), "{text:?} is not in {}", demo.out);
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn the_doctor_compares_the_ways_to_the_disk_and_leaves_nothing() {
    let place = Place::new();
    let folder = place.folder.path();
    let found = run(&format!("doctor --log {} --seconds 1 --json", folder.display())).code(0);
    let found = found.json().remove(0);
    for backend in found["backends"].as_array().unwrap() {
        let is_refused = backend["refused"].is_string();
        assert!(is_refused || backend["alone"]["events"].as_u64() > Some(0), "{backend}");
    }
    assert!(["auto", "io-uring"].iter().any(|it| found["recommended"] == *it), "{found}");
    assert!(found["cores"].as_u64() > Some(0));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    run(&format!("doctor --log {}", place.log)).code(3).complains("cannot write");
}

#[test]
fn the_doctor_recommends_nothing_where_no_log_can_be_opened() {
    let place = Place::new();
    let folder = place.folder.path().display();
    let mut doctor = quipu_with_open_files(12);
    let doctor = doctor.args(format!("doctor --log {folder} --seconds 1").split(' '));
    answer(&output(doctor)).code(3).complains("Too many open files");
}

#[test]
fn an_interrupt_leaves_nothing_of_a_log_that_was_to_be_tried_out() {
    for what in ["demo --in", "doctor --seconds 5 --log"] {
        let place = Place::new();
        let folder = place.folder.path();
        let mut command = spawn(&format!("{what} {}", folder.display()));
        let has_begun = || std::fs::read_dir(folder).expect("it is there").next().is_some();
        for _ in 0..6_000 {
            if has_begun() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        std::thread::park_timeout(Duration::from_millis(300));
        signal(&command, Signal::INT);
        assert_eq!(command.wait().expect("it ends").code(), Some(130), "{what}");
        assert!(!has_begun(), "{what}");
    }
}

#[test]
fn subscribers_that_follow_a_log_hear_what_another_process_appends() {
    let place = Place::new();
    let append = format!("append --log {} Call 42 --event-type Rang", place.log);
    run(&append).code(0);
    let subscribe = format!("bench subscribe --log {} --seconds 5 --json", place.log);
    let subscribe = spawn(&subscribe);
    std::thread::park_timeout(Duration::from_secs(1));
    run(&append).code(0);
    let heard = answer(&subscribe.wait_with_output().expect("it ends")).code(0).json();
    assert_eq!(heard[0]["events"], 2, "{heard:?}");
}

#[test]
fn benchmarks_print_the_names_that_all_share() {
    let place = Place::new();
    let options = "--seconds 1 --writers 2 --in-flight 2 --batch 10 --rate 1000 --ids v4 --json";
    let append = run(&format!("bench append --log {} {options}", place.log)).code(0).json();
    let names: Vec<_> = append[0].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "events",
        "seconds",
        "events_per_s",
        "mb_per_s",
        "latency_us",
        "groups",
        "bytes_on_disk",
        "peak_rss_bytes",
        "cpu_seconds",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    let events = append[0]["events"].as_u64().unwrap();
    assert!((1..=1_020).contains(&events), "1,000 are offered in one second: {events}");
    let read = run(&format!("bench read --log {} --json", place.log)).code(0).json();
    assert_eq!(read[0]["events"], events);
    let open = run(&format!("bench open --log {} --times 2 --json", place.log)).code(0).json();
    assert_eq!((&open[0]["opens"], &open[0]["events"]), (&2.into(), &events.into()));
}

#[test]
fn bench_open_fills_a_log_once_and_starts_it_after_stops_and_kills() {
    let place = Place::new();
    let open = format!("bench open --log {} --times 3 --json", place.log);
    run(&open).code(3).complains(&place.log);
    let fill = "--events 250 --aggregates 20 --read-aggregate --cold";
    let filled = run(&format!("{open} {fill}")).code(0).json();
    assert_eq!((&filled[0]["opens"], &filled[0]["events"]), (&3.into(), &250.into()));
    assert_eq!(filled[0]["aggregate_first_us"]["p50"].as_u64().map(|us| us > 0), Some(true));
    assert_eq!(filled[0].get("killed_latency_us"), None);
    let killed = run(&format!("{open} --events 200 --kills 2")).code(0).json();
    assert_eq!(killed[0]["kills"], 2);
    let number = |name: &str| killed[0][name].as_u64().unwrap_or(0);
    assert!(
        number("events") >= 250 + 2 * 100,
        "it was full, each process has appended: {killed:?}"
    );
    assert!(number("rss_bytes") > 0 && number("peak_rss_bytes") >= number("rss_bytes"));
    assert!(killed[0]["killed_latency_us"]["max"].as_u64() >= Some(1));
    run(&format!("verify --log {} --deep", place.log)).code(0);
}

#[test]
fn bench_disk_measures_and_leaves_nothing() {
    let place = Place::new();
    let folder = place.folder.path();
    let options = "--seconds 1 --space fresh --json";
    let runs = run(&format!("bench disk --log {} {options}", folder.display())).code(0).json();
    assert_eq!(runs.len(), 8, "four sizes, one and two in flight");
    assert!(runs.iter().all(|run| run["writes"].as_u64().unwrap() > 0));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    run(&format!("bench disk --log {}", place.log)).code(3).complains(&place.log);
}
