//! Lines in and lines out: nothing lost, nothing twice, every refusal with its line number.
#![expect(clippy::disallowed_methods, reason = "tests make their own files")]

mod support;

use std::io::Write;

use quipu_client::json::parse_line;
use support::{Place, line, quipu, run, run_with_input, serve_by, shared};

#[test]
fn a_second_run_adds_nothing_and_says_so() {
    let place = Place::new();
    let lines = [line(1, "a", 1, "{}"), line(2, "b", 1, "{}"), line(3, "a", 2, "{}")].concat();
    let import = format!("import --log {} {}", place.log, place.file("events", lines));
    run(&import).code(0).says("3 lines: 3 new, 0 already present, 0 refused");
    run(&import).code(0).says("nothing was new");
    let empty = place.file("empty", String::new());
    run(&format!("import --log {} {empty}", place.log)).code(0).says("nothing to import");
    let json = run(&format!("{import} --json")).code(0).json();
    let expected = serde_json::json!({"lines": 3, "new": 0, "already_present": 3, "refused": 0});
    assert_eq!(json, [expected]);
    assert_eq!(place.events().len(), 3);
}

#[test]
fn a_refused_line_does_not_stop_the_others() {
    let place = Place::new();
    let lines = [
        line(1, "a", 1, "{}"),
        "\n".to_owned(),
        line(2, "a", 3, "{}"),
        "not JSON\n".to_owned(),
        line(3, "b", 1, "{}"),
        line(1, "a", 1, "[]"),
        line(4, "a", 2, "{}"),
    ];
    let file = place.file("mixed", lines.concat());
    let answer = run(&format!("import --log {} {file}", place.log)).code(1);
    let answer = answer.says("6 lines: 3 new, 0 already present, 3 refused");
    let complaints: Vec<_> = answer.err.lines().collect();
    assert_eq!(complaints.len(), 4, "{answer:#?}");
    assert!(complaints[0].starts_with(&format!("{file}:3: version conflict: Call/a")));
    assert!(complaints[1].starts_with(&format!("{file}:4: ")));
    assert!(complaints[2].starts_with(&format!("{file}:6: event id ")));
    assert_eq!(complaints[3], "quipu: 3 lines refused; the others are stored");
    assert_eq!(place.events().len(), 3);
}

#[test]
fn renumber_takes_events_as_they_come() {
    let place = Place::new();
    let lines = [line(1, "a", 7, "{}"), line(2, "a", 3, "{}")].concat();
    let file = place.file("events", lines);
    run(&format!("import --log {} {file}", place.log)).code(1).says("0 new");
    run(&format!("import --log {} {file} --renumber", place.log)).code(0).says("2 new");
    let versions: Vec<_> = place.events().iter().map(|event| event["version"].clone()).collect();
    assert_eq!(versions, [1, 2]);
}

#[test]
fn compressed_files_and_standard_input_are_read() {
    let place = Place::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(line(1, "a", 1, "{}").as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let file = place.file("events.ndjson.gz", &gzip);
    run(&format!("import --log {} {file}", place.log)).code(0).says("1 new");
    let zstd = zstd::encode_all(line(2, "a", 2, "{}").as_bytes(), 1).unwrap();
    let file = place.file("events.ndjson.zst", zstd);
    run(&format!("import --log {} {file}", place.log)).code(0).says("1 new");
    let input = line(3, "a", 3, "{}");
    run_with_input(&format!("import --log {} -", place.log), input.as_bytes()).code(0);
    assert_eq!(place.events().len(), 3);
    let cut = place.file("cut.gz", &gzip[..gzip.len() - 9]);
    run(&format!("import --log {} {cut}", place.log)).code(3).complains("cut.gz:");
}

#[test]
fn an_export_imports_into_another_log_equal() {
    let [from, to] = [Place::new(), Place::new()];
    let pretty = "{\n  \"a\": [1.0, 1e400],\n  \"a\": 2\n}";
    let append = format!("append --log {} Call a --event-type Rang --data -", from.log);
    run_with_input(&append, pretty.as_bytes()).code(0);
    run_with_input(&append, b"\"text\"").code(0);
    let file = from.folder.path().join("out.ndjson").display().to_string();
    run(&format!("export --log {} --output {file}", from.log)).code(0).complains("2 events");
    assert_eq!(std::fs::read_dir(from.folder.path()).unwrap().count(), 2, "no partial file");
    run(&format!("import --log {} {file}", from.log)).code(0).says("nothing was new");
    run(&format!("import --log {} {file}", to.log)).code(0).says("2 new");
    let lines = |place: &Place| {
        let out = run(&format!("export --log {}", place.log)).code(0).out;
        out.lines().map(|line| parse_line(line.as_bytes()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lines(&from), lines(&to));
    assert_eq!(lines(&from)[0].event.payload, pretty.as_bytes());
}

#[test]
fn an_export_may_be_a_part() {
    let place = Place::new();
    let lines: String = (1..=9).map(|n| line(n.into(), "a", n, "{}")).collect();
    run(&format!("import --log {} {}", place.log, place.file("nine", lines))).code(0);
    let positions = |options: &str| -> Vec<u64> {
        let events = run(&format!("export --log {}{options}", place.log)).code(0).json();
        events.iter().map(|event| event["position"].as_u64().unwrap()).collect()
    };
    assert_eq!(positions(" --from 7"), [7, 8, 9]);
    assert_eq!(positions(" --to 2"), [1, 2]);
    assert_eq!(positions(" --from 4 --to 5"), [4, 5]);
    assert_eq!(positions(" --from 10"), [0; 0]);
    assert_eq!(positions(" --from 5 --to 4"), [0; 0]);
}

#[test]
fn odd_but_legal_lines_go_in_and_out_unchanged() {
    let Some(path) = shared("hostile.ndjson") else { return };
    let place = Place::new();
    run(&format!("import --log {} {}", place.log, path.display())).code(0).says(" 0 refused");
    let given = std::fs::read(&path).unwrap();
    let stored = run(&format!("export --log {}", place.log)).code(0).out;
    let mut stored = stored.lines();
    for line in given.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let stored = stored.next().expect("as many lines come out");
        assert_eq!(parse_line(stored.as_bytes()), parse_line(line));
        parse_line(line).expect("the line is legal");
    }
    assert_eq!(stored.next(), None);
}

#[test]
fn each_broken_line_is_refused_with_its_number_and_leaves_nothing() {
    let Some(path) = shared("hostile-invalid.ndjson") else { return };
    let place = Place::new();
    let answer = run(&format!("import --log {} {}", place.log, path.display())).code(1);
    let given = std::fs::read(&path).unwrap();
    let lines = given.split_inclusive(|byte| *byte == b'\n').count();
    let complaints: Vec<_> = answer.err.lines().collect();
    assert_eq!(complaints.len(), lines + 1, "{answer:#?}");
    for (at, complaint) in complaints[..lines].iter().enumerate() {
        let place = format!("{}:{}: ", path.display(), at + 1);
        let reason = complaint.strip_prefix(&place).expect(complaint);
        assert!(reason.len() > 10, "{complaint}");
    }
    assert_eq!(place.events().len(), 0);
}

/// 60 events of 12 KB in small segments, of which the second is damaged somewhere; and where.
fn damaged_inside(place: &Place) -> (u64, u64) {
    let payload = format!("{{\"of\":\"{}\"}}", "x".repeat(12_000));
    let lines: String = (1..=60).map(|id| line(id.into(), "42", id, &payload)).collect();
    let serve = format!("serve --log {} --listen 127.0.0.1:0 --segment-bytes 64KiB", place.log);
    let serving = serve_by(&mut quipu(), &serve);
    let import = format!("import --server quipu://{} -", serving.listen);
    run_with_input(&import, lines.as_bytes()).code(0);
    serving.stop();
    let path = std::path::Path::new(&place.log).join("00000000000000000002.seg");
    let mut bytes = std::fs::read(&path).expect("a sealed segment");
    bytes[30_000] ^= 1;
    std::fs::write(&path, bytes).expect("the log is closed");
    let found = run(&format!("verify --log {} --json", place.log)).code(1).json();
    let damage = &found[0]["damage"][0];
    let position = |name: &str| damage[name].as_u64().expect("a position");
    (position("first"), position("last"))
}

#[test]
fn what_stands_around_damage_can_be_exported() {
    let place = Place::new();
    let (first, last) = damaged_inside(&place);
    let export = format!("export --log {}", place.log);
    run(&export).code(1).complains("segment 2 is damaged");
    let before = run(&format!("{export} --to {}", first - 1)).code(0);
    let behind = run(&format!("{export} --from {}", last + 1)).code(0);
    let lines = before.out.lines().count() + behind.out.lines().count();
    assert_eq!(lines as u64, 60 - (last - first + 1));
}

#[test]
fn an_export_goes_where_it_is_told_and_replaces_nothing_but_a_file() {
    let place = Place::new();
    run(&format!("import --log {} {}", place.log, place.file("one", line(1, "a", 1, "{}"))))
        .code(0);
    let export = format!("export --log {} --output", place.log);
    // A pipe: `rename` would have put a file in its place.
    assert_eq!(run(&format!("{export} /dev/stdout")).code(0).out.lines().count(), 1);
    assert_eq!(run(&format!("{export} -")).code(0).out.lines().count(), 1);
    let (file, link) = (place.file("old", "old"), place.folder.path().join("link"));
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    run(&format!("{export} {}", link.display())).code(0);
    assert!(link.is_symlink());
    assert!(std::fs::read_to_string(file).expect("where it leads").contains("Rang"));
    run(&format!("{export} /dev/full")).code(3).complains("No space left");
    run(&format!("{export} {}", place.folder.path().display())).code(3);
}

#[test]
fn an_earlier_export_is_not_replaced_by_a_part_of_the_log() {
    let place = Place::new();
    for id in 1..=3 {
        let file = place.file("line", line(id, "a", id.try_into().expect("few"), "{}"));
        run(&format!("import --log {} {file}", place.log)).code(0);
    }
    let file = place.folder.path().join("out.ndjson");
    let export = format!("export --log {} --output {}", place.log, file.display());
    run(&export).code(0).complains("3 events");
    let path = std::path::Path::new(&place.log).join("00000000000000000001.seg");
    let mut bytes = std::fs::read(&path).expect("the segment");
    let is_data = |at: &usize| bytes[*at..].starts_with(b"QGRP\x01");
    let third = (0..bytes.len()).step_by(4_096).filter(is_data).nth(2).expect("three groups");
    bytes[third + 200] ^= 1;
    std::fs::write(&path, bytes).expect("the log is closed");
    run(&export).code(1).complains("damaged");
    assert_eq!(std::fs::read_to_string(&file).expect("the export").lines().count(), 3);
    run(&format!("{export} --to 2")).code(0).complains("2 events");
}

#[test]
fn a_line_whose_stored_copy_is_damaged_is_refused_and_the_others_go_on() {
    let place = Place::new();
    let (first, last) = damaged_inside(&place);
    let payload = format!("{{\"of\":\"{}\"}}", "x".repeat(12_000));
    let mut lines: String = (1..=60).map(|id| line(id.into(), "42", id, &payload)).collect();
    lines.push_str(&line(61, "43", 1, "{}"));
    let file = place.file("again", lines);
    let said = run(&format!("import --log {} {file}", place.log)).code(1).says("1 new");
    let refused = said.err.lines().filter(|line| line.contains("segment 2 is damaged")).count();
    assert!((1..=last - first + 1).contains(&(refused as u64)), "{said:?}");
}
