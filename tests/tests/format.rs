//! The format on disk: a log of every released version is kept as files, the engine still writes
//! the newest byte for byte, and a reader made from the page alone reads what the engine writes.
#![expect(clippy::disallowed_methods, reason = "files are compared with what the engine wrote")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use quipu_client::{Embedded, Options};
use quipu_engine::format::{IN_FLIGHT_BYTES_MAX, is_zero};
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::storage::FileKind;
use quipu_engine::{Access, Backend, DiskStorage, EventLog, LogOptions, Mapping, Origin};
use quipu_tests::memory_disk::{SetClock, environment};
use quipu_tests::running::output;
use quipu_tests::stepped_log::SteppedLog;
use quipu_tests::tamper::{Folder, bytes, copy_folder, write};
use quipu_tests::varied_events::{full_event, varied_appends, varied_event};
use quipu_types::json::write_record;
use quipu_types::record::{EventBody, HEADER_BYTES, NotARecord, RecordBuffer, encode};
use quipu_types::{Append, Filter, ReadRequest, Record};
use rkyv::ser::allocator::Arena;

const SECOND: i64 = 1_000_000;
/// So far from the others that a run has a filter of its ids.
const FAR_ID: u128 = 0xd1ce << 112 | 15;
const PAGE: &str = include_str!("../../segments-format.md");

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn options(segment_bytes: u64) -> LogOptions {
    Options::default().with_segment_bytes(segment_bytes).log
}

fn open(folder: &Path, clock: &Arc<SetClock>, segment_bytes: u64) -> SteppedLog {
    let disk = DiskStorage::open(folder, Access::ReadWrite, Backend::Auto, Mapping::Mapped)
        .expect("the folder can be opened");
    let env = environment(Arc::new(disk), Arc::clone(clock));
    SteppedLog::open(env, options(segment_bytes)).expect("the log can be opened")
}

/// Three sealed segments and an active one, with groups of every kind.
fn write_golden_log(folder: &Path) {
    let clock = Arc::new(SetClock::default());
    let log = open(folder, &clock, 32 * 1024);
    log.append_each(&[Append::any(vec![full_event(1)])]);
    clock.advance(SECOND);
    let varied = |ids: &[u128]| Append::any(ids.iter().map(|id| varied_event(*id)).collect());
    let three_frames = [varied(&[8, 14]), varied(&[5]), varied(&[10])];
    for answer in log.append_together(&three_frames, Origin::System) {
        answer.expect("stored");
    }
    // A quiet second: WITNESS.
    clock.advance(SECOND);
    log.run();
    log.crash();
    let log = open(folder, &clock, 32 * 1024);
    for id in [2, FAR_ID, 16, 18, 21, 22] {
        clock.advance(SECOND);
        log.append_each(&[varied(&[id])]);
    }
    log.close();
    let log = open(folder, &clock, 32 * 1024);
    log.append_each(&[varied(&[25])]);
    log.close();
}

/// What the files hold up to their last block that is not zeros.
fn trimmed(files: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut trimmed = files;
    for (name, content) in &mut trimmed {
        let is_segment = matches!(FileKind::of(name), FileKind::Segment(_));
        while is_segment && content.chunks(4_096).last().is_some_and(is_zero) {
            content.truncate(content.len() - 4_096);
        }
    }
    trimmed.retain(|(_, content)| !content.is_empty());
    trimmed
}

fn lines(log: &EventLog, include_system: bool) -> String {
    let filter = Filter { include_system, ..Filter::default() };
    let mut cursor = log.read(ReadRequest { filter, ..ReadRequest::default() });
    let mut lines = Vec::new();
    loop {
        let page = cursor.next_page(PageLimits::default()).expect("the log is whole");
        for record in &page.records {
            write_record(record, &mut lines);
            lines.push(b'\n');
        }
        if page.is_last {
            return String::from_utf8(lines).expect("JSON is text");
        }
    }
}

fn second_reader(folder: &Path, arguments: &[&str]) -> Output {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("second_reader.py");
    output(Command::new("python3").arg(reader).arg(folder).args(arguments))
}

fn second_reader_lines(folder: &Path, arguments: &[&str]) -> String {
    let output = second_reader(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("JSON is text")
}

#[test]
#[ignore = "run by hand, when a new version of the format is released"]
fn write_the_golden_files_anew() {
    let folder = tempfile::tempdir().unwrap();
    write_golden_log(folder.path());
    let golden = fixture("v1");
    std::fs::remove_dir_all(&golden).ok();
    std::fs::create_dir_all(&golden).unwrap();
    for (name, content) in trimmed(Folder(folder.path()).snapshot()) {
        write(&golden.join(name), content);
    }
    let log = Embedded::open_read_only(folder.path(), Options::default()).unwrap();
    write(&fixture("v1.ndjson"), lines(log.log(), true));
}

#[test]
fn the_engine_writes_the_golden_files_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    write_golden_log(folder.path());
    let golden = Folder(&fixture("v1")).snapshot();
    let written = trimmed(Folder(folder.path()).snapshot());
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&golden), names(&written));
    for ((name, golden), (_, written)) in golden.iter().zip(&written) {
        let differs = golden.iter().zip(written).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{name}: the first byte that differs");
        assert_eq!(golden.len(), written.len(), "{name}");
    }
}

#[test]
fn the_golden_log_holds_every_kind_of_group() {
    let golden = fixture("v1");
    let kinds = |number| {
        let groups = Folder(&golden).groups(number);
        groups.iter().map(|group| format!("{:?}", group.kind)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kinds(1), "Start Data Data Witness Start Seal");
    assert_eq!(kinds(2), "Data Data Data Seal");
    assert_eq!(kinds(3), "Data Data Data Clean Start Seal");
    assert_eq!(kinds(4), "Data Clean");
}

#[test]
fn a_copy_of_the_golden_log_opens_and_gives_its_events() {
    let expected = String::from_utf8(bytes(&fixture("v1.ndjson"))).unwrap();
    assert_eq!(expected.lines().count(), 12);
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture("v1"), folder.path());
    let options = Options::default().with_segment_bytes(32 * 1024);
    let log = Embedded::open_read_only(folder.path(), options.clone()).unwrap();
    assert_eq!(lines(log.log(), true), expected);
    drop(log);
    let log = Embedded::open(folder.path(), options).unwrap();
    let report = log.recovery_report();
    assert!(report.clean && report.damage.is_none() && report.torn.is_none(), "{report}");
    assert_eq!(report.rebuilt_indexes, [0; 0], "{report}");
    assert_eq!(lines(log.log(), true), expected);
    let again = quipu_tests::patience::block_on(quipu_client::EventStore::append(
        &log,
        Append::any(vec![full_event(1)]),
    ));
    assert!(again.unwrap().duplicate, "the golden ids are known");
}

#[test]
fn the_second_reader_agrees_on_the_golden_log() {
    let golden = fixture("v1");
    let expected = String::from_utf8(bytes(&fixture("v1.ndjson"))).unwrap();
    assert_eq!(second_reader_lines(&golden, &["--all"]), expected);
    for number in ["1", "2", "3"] {
        second_reader_lines(&golden, &["--index", number]);
    }
}

#[test]
fn the_second_reader_agrees_on_a_larger_log() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SetClock::default());
    let log = open(folder.path(), &clock, 64 * 1024);
    for batch in varied_appends(1..400).chunks(7) {
        clock.advance(SECOND / 3);
        for answer in log.append_together(batch, Origin::System) {
            answer.expect("stored");
        }
    }
    let segments = log.log().segments().unwrap().len();
    assert!(segments > 5, "{segments} segments");
    let (all, visible) = (lines(log.log(), true), lines(log.log(), false));
    assert_eq!(all.lines().count(), 399);
    assert!(visible.lines().count() < 399);
    log.close();
    assert!(second_reader_lines(folder.path(), &["--all"]) == all, "--all");
    assert!(second_reader_lines(folder.path(), &[]) == visible, "without system events");
    let mut indexed = 0;
    for number in 1..segments {
        let line = second_reader_lines(folder.path(), &["--index", &number.to_string()]);
        let summary: serde_json::Value = serde_json::from_str(&line).unwrap();
        indexed += summary["records"].as_u64().unwrap();
    }
    let first = Folder(folder.path()).header(segments as u64).first_position;
    assert_eq!(indexed, first.previous().0, "the indexes hold every record of sealed segments");
}

#[test]
fn the_second_reader_sees_damage_where_the_engine_does() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture("v1"), folder.path());
    let path = Folder(folder.path()).segment(2);
    quipu_tests::tamper::flip(&path, 4_096 + 200);
    let output = second_reader(folder.path(), &["--all"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("segment 2, offset 4096"), "{errors}");
}

#[test]
fn the_second_reader_sees_damage_where_nothing_can_have_been_in_flight() {
    let golden = fixture("v1");
    let end = Folder(&golden).groups(4).last().expect("CLEAN").end() + IN_FLIGHT_BYTES_MAX;
    for (more, code) in [(0, 0), (4_096, 1)] {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&golden, folder.path());
        quipu_tests::tamper::change(&Folder(folder.path()).segment(4), |bytes| {
            bytes.resize(usize::try_from(end).unwrap() + more, 0x55);
        });
        assert_eq!(second_reader(folder.path(), &["--all"]).status.code(), Some(code));
    }
}

/// A line of the page's hexdump: its offset and its 16 bytes.
fn dumped(line: &str) -> Option<(usize, [u8; 16])> {
    let (offset, rest) = line.split_once("  ")?;
    let offset = (offset.len() == 8).then(|| usize::from_str_radix(offset, 16).ok()).flatten()?;
    let (hex, text) = rest.split_once("  |")?;
    let bytes: Vec<u8> = hex
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
        .collect();
    let bytes = <[u8; 16]>::try_from(bytes).expect("16 bytes a line");
    let shown = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
    let expected: String = bytes.iter().map(shown).collect();
    assert_eq!(text, format!("{expected}|"), "the text of line {offset:08x}");
    Some((offset, bytes))
}

#[test]
fn the_pages_hexdump_is_the_golden_segment() {
    let (_, section) = PAGE.split_once("\n## 14. ").expect("the page has a section 14");
    let segment = bytes(&fixture("v1/00000000000000000001.seg"));
    let mut shown = vec![false; segment.len()];
    let (mut elided_from, mut last_end) = (None, 0);
    for line in section.lines() {
        if line == "*" {
            elided_from = Some(last_end);
        } else if let Some((offset, bytes)) = dumped(line) {
            assert_eq!(segment[offset..offset + 16], bytes, "line {offset:08x}");
            if let Some(from) = elided_from.take() {
                assert!(is_zero(&segment[from..offset]), "`*` before {offset:08x} hides bytes");
            }
            shown[offset..offset + 16].fill(true);
            last_end = offset + 16;
        }
    }
    let first_data_end = Folder(&fixture("v1")).data_groups(1)[0].end();
    let first_data_end = usize::try_from(first_data_end).unwrap();
    let hidden = (0..first_data_end).find(|at| segment[*at] != 0 && !shown[*at]);
    assert_eq!(hidden, None, "a byte of the header or the first groups that the page leaves out");
    for group in Folder(&fixture("v1")).groups(1) {
        let at = usize::try_from(group.offset).unwrap();
        assert!(shown[at], "the page shows the header of the group at {at}");
    }
}

/// The full event as a record, its root changed behind the writer's back and its crc mended.
fn with_pointers(change: impl FnOnce(&mut [(i32, u32); 11])) -> Result<Record, NotARecord> {
    let mut bytes =
        encode(RecordBuffer::new(), &EventBody::from(&full_event(1)), &mut Arena::new());
    let pointers_at = bytes.len() - 136 + 40;
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    };
    // Offsets as they count from the first pointer, so that they can be moved and compared.
    let mut pointers: [(i32, u32); 11] = std::array::from_fn(|i| {
        let at = pointers_at + 8 * i;
        let from = i32::try_from(8 * i).expect("small");
        (word(&bytes, at).cast_signed() + from, word(&bytes, at + 4))
    });
    change(&mut pointers);
    for (i, (offset, length)) in pointers.into_iter().enumerate() {
        let at = pointers_at + 8 * i;
        let from = i32::try_from(8 * i).expect("small");
        bytes[at..at + 4].copy_from_slice(&(offset - from).to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes[HEADER_BYTES..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    Record::parse(Bytes::from_owner(bytes))
}

/// §6.3: contents stand in the order of their fields, empty ones too.
#[test]
fn an_archive_is_valid_exactly_as_the_page_says() {
    let unchanged = with_pointers(|_| {}).unwrap();
    assert_eq!(unchanged.to_new_event(), full_event(1));
    let refused = [
        with_pointers(|pointers| pointers.swap(0, 1)),
        with_pointers(|pointers| pointers[1] = pointers[0]),
        with_pointers(|pointers| pointers[1].0 -= 1),
        with_pointers(|pointers| pointers[0].0 -= 1),
        with_pointers(|pointers| pointers[10].0 = -39),
        with_pointers(|pointers| pointers[10].1 = u32::MAX),
        with_pointers(|pointers| pointers[4] = (pointers[4].0 - 1, 0)),
        with_pointers(|pointers| pointers[10] = (0, 0)),
    ];
    for (number, result) in refused.into_iter().enumerate() {
        assert_eq!(result.err(), Some(NotARecord::Archive), "change {number}");
    }
    let shorter = with_pointers(|pointers| pointers[4].1 = 0).unwrap();
    assert_eq!(shorter.correlation_id(), "");
    let with_gap = with_pointers(|pointers| pointers[4] = (pointers[4].0 + 1, 1)).unwrap();
    assert_eq!(with_gap.correlation_id(), "o");
}
