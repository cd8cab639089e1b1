//! The rules of this repository that no lint can keep, each with what to do where it is broken.
#![expect(
    clippy::disallowed_methods,
    reason = "this test reads the repository, which is no log behind the storage seam"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

const LINES_MAX: usize = 500;
const TEST_LINES_MAX: usize = 1_000;
const COLUMNS_MAX: usize = 100;
/// The only files that may hold `unsafe`.
const UNSAFE_FILES: [&str; 5] = [
    "types/src/record.rs",
    "engine/src/storage/map.rs",
    "engine/src/storage/ring.rs",
    "tests/src/faults/power.rs",
    "tools/src/allocator.rs",
];
/// Written in two parts, so that this file does not break its own rules.
const MARKERS: [&str; 4] =
    [concat!("FIX", "ME"), concat!("X", "XX"), concat!("TO", "DO"), concat!("to", "do")];
const MACHINE_WORDS: [&str; 8] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("index", "-url"),
    concat!("replace", "-with"),
    concat!("[regis", "tries"),
    concat!("sparse", "+http"),
];
const CRATES_IO: &str = "\"registry+https://github.com/rust-lang/crates.io-index\"";
const FORMAT_HASH_KEY: &str = "format-sources-sha256: ";

static FILES: LazyLock<Vec<RepositoryFile>> = LazyLock::new(|| {
    let mut files = Vec::new();
    let ignored = ignored_paths();
    walk(&ignored, "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
});

struct RepositoryFile {
    path: String,
    text: String,
}

impl RepositoryFile {
    /// What precedes the unit tests.
    fn shipped(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        &self.text[..end]
    }

    /// Whether the module declares, before anything else, that it is a seam.
    fn is_seam(&self) -> bool {
        let head = self.text.split("\nuse ").next().unwrap_or_default();
        head.contains("#![expect(") && head.contains("clippy::disallowed_")
    }

    fn extension(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    fn problem(&self, line: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }
}

#[test]
fn no_source_file_is_too_long() {
    refuse(rust_files().filter_map(|file| {
        let (lines, limit) = if file.path.split('/').any(|folder| folder == "tests") {
            (file.text.lines().count(), TEST_LINES_MAX)
        } else {
            (file.shipped().lines().count(), LINES_MAX)
        };
        let problem = format!("{lines} lines, the limit is {limit}: which noun can move out?");
        (lines > limit).then(|| file.problem(0, &problem))
    }));
}

#[test]
fn no_line_is_too_wide() {
    refuse_lines(rust_files(), |line| {
        let columns = line.chars().count();
        (columns > COLUMNS_MAX).then(|| format!("{columns} columns, the limit is {COLUMNS_MAX}"))
    });
}

#[test]
fn every_module_says_why_it_exists() {
    refuse(
        rust_files()
            .filter(|file| !file.text.starts_with("//! "))
            .map(|file| file.problem(0, "open with a `//!` line: why does this module exist?")),
    );
}

#[test]
fn nothing_is_left_for_later() {
    let programs = FILES.iter().filter(|file| {
        ["rs", "py", "sh", "yml"].contains(&file.extension()) || file.path == "check"
    });
    refuse_lines(programs, |line| {
        let marker = MARKERS.into_iter().find(|marker| has_word(line, marker))?;
        Some(format!("{marker}: do it now or file an issue"))
    });
}

#[test]
fn files_are_reached_through_storage() {
    let outside = rust_files()
        .filter(|file| !file.path.starts_with("engine/src/storage/") && !file.is_seam());
    refuse(outside.flat_map(|file| {
        numbered_code(file.shipped()).filter_map(|(number, code)| {
            let word = ["std::fs", "File::"].into_iter().find(|w| has_word(&code, w))?;
            Some(file.problem(
                number,
                &format!(
                    "`{word}`: go through engine/src/storage, or open the module as a seam with \
                 #![expect(clippy::disallowed_methods, reason = \"...\")]"
                ),
            ))
        })
    }));
}

#[test]
fn the_core_knows_no_tokio() {
    let manifests = FILES.iter().filter(|file| {
        ["types/Cargo.toml", "engine/Cargo.toml", "protocol/Cargo.toml"]
            .contains(&file.path.as_str())
    });
    assert!(manifests.clone().count() >= 2, "types/ and engine/ have a Cargo.toml");
    refuse_lines(manifests, |line| {
        line.contains("tokio").then(|| "the log runs without tokio; sockets are server/'s".into())
    });
}

#[test]
fn unsafe_stays_in_the_files_that_name_themselves_for_it() {
    let found: BTreeSet<&str> = rust_files()
        .filter(|file| numbered_code(&file.text).any(|(_, code)| has_word(&code, "unsafe")))
        .map(|file| file.path.as_str())
        .collect();
    assert_eq!(
        found,
        BTreeSet::from(UNSAFE_FILES),
        "left: the files with unsafe; right: UNSAFE_FILES in {}. Can it be done without?",
        file!()
    );
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    refuse(rust_files().flat_map(|file| {
        let lines: Vec<&str> = file.text.lines().collect();
        numbered_code(&file.text).filter_map(move |(number, code)| {
            let opens = code.contains("unsafe {") || code.contains("unsafe impl");
            let reason = lines[..number]
                .iter()
                .rev()
                .take_while(|line| line.trim_start().starts_with("//"))
                .any(|line| line.trim_start().starts_with("// SAFETY: "));
            (opens && !reason).then(|| file.problem(number, "say why above it: `// SAFETY: ...`"))
        })
    }));
}

#[test]
fn the_code_map_names_every_folder_and_no_other() {
    let folders: BTreeSet<&str> = FILES
        .iter()
        .filter_map(|file| file.path.split_once('/'))
        .map(|(folder, _)| folder)
        .filter(|folder| !folder.starts_with('.'))
        .collect();
    let named: BTreeSet<&str> = code_map().lines().filter_map(folder_named_first).collect();
    assert_eq!(
        named, folders,
        "left: the folders that a line of ARCHITECTURE.md's code map begins with (as `folder/`; \
         folders inside them are spelled with their whole path); right: the folders there are"
    );
}

#[test]
fn the_format_page_belongs_to_the_format_sources() {
    let sources = rust_files().filter(|file| file.path.starts_with("engine/src/format/"));
    let paths: Vec<&str> = sources.clone().map(|file| file.path.as_str()).collect();
    assert!(!paths.is_empty(), "engine/src/format holds the format's sources");
    assert!(paths.iter().all(|path| path.matches('/').count() == 3), "no folders: {paths:?}");
    let mut hash = Sha256::new_with_prefix(&file("types/src/record.rs").text);
    sources.for_each(|source| hash.update(&source.text));
    let actual = hex(&hash.finalize());
    let page = &file("segments-format.md").text;
    let stated = page.lines().find_map(|line| line.strip_prefix(FORMAT_HASH_KEY));
    assert_eq!(
        stated,
        Some(actual.as_str()),
        "the format's sources changed. Bring segments-format.md up to date with them (every byte, \
         its version history, its hexdump), then set its line `{FORMAT_HASH_KEY}` to what this \
         prints: cat types/src/record.rs $(LC_ALL=C ls engine/src/format/*.rs) | sha256sum"
    );
}

#[test]
fn the_changelog_knows_this_version() {
    let changes = &file("CHANGELOG.md").text;
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        changes.contains(version) || changes.contains("Unreleased"),
        "CHANGELOG.md has neither a section for {version} nor one named Unreleased"
    );
}

#[test]
fn the_readme_shows_every_command() {
    let readme = &file("README.md").text;
    let commands = commands_of(&[]);
    assert!(!commands.is_empty(), "quipu --help lists no commands");
    refuse(
        commands
            .iter()
            .filter(|command| !shows(readme, command))
            .map(|command| format!("README.md does not show `quipu {}`", command.join(" "))),
    );
}

#[test]
fn no_file_names_a_machine() {
    refuse(FILES.iter().filter_map(|file| {
        let word = MACHINE_WORDS
            .into_iter()
            .find(|word| file.text.contains(word) || format!("/{}", file.path).contains(word))?;
        Some(file.problem(0, &format!("`{word}` is true on one machine only")))
    }));
}

/// The engine calls a host's log from threads that must not die of it.
#[test]
fn the_engine_tells_a_host_only_through_the_guard() {
    let in_engine = |file: &&RepositoryFile| {
        file.path.starts_with("engine/src/") && !file.path.ends_with("/host.rs")
    };
    refuse(rust_files().filter(in_engine).flat_map(|file| {
        numbered_code(file.shipped())
            .filter(|(_, code)| has_word(code, "tracing"))
            .map(|(number, _)| file.problem(number, "say it with `tell!` of engine/src/host.rs"))
    }));
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let locks = FILES.iter().filter(|file| file.path.ends_with("Cargo.lock"));
    refuse_lines(locks, |line| {
        let source = line.strip_prefix("source = ")?;
        (source != CRATES_IO).then(|| format!("{source} is not crates.io"))
    });
}

fn refuse(problems: impl Iterator<Item = String>) {
    let problems: Vec<String> = problems.collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn refuse_lines<'a>(
    files: impl Iterator<Item = &'a RepositoryFile>,
    fault: impl Fn(&str) -> Option<String>,
) {
    refuse(files.flat_map(|file| {
        let lines = file.text.lines().enumerate();
        lines.filter_map(|(number, line)| Some(file.problem(number, &fault(line)?)))
    }));
}

fn rust_files() -> impl Iterator<Item = &'static RepositoryFile> + Clone {
    FILES.iter().filter(|file| file.extension() == "rs")
}

fn file(path: &str) -> &'static RepositoryFile {
    let found = FILES.iter().find(|file| file.path == path);
    found.unwrap_or_else(|| panic!("{path} is missing"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The repository is walked rather than asked of git, so that a copy without history passes too.
fn walk(ignored: &[String], folder: &str, files: &mut Vec<RepositoryFile>) {
    for entry in std::fs::read_dir(root().join(folder)).expect("a folder can be listed") {
        let entry = entry.expect("a folder can be listed");
        let path = format!("{folder}{}", entry.file_name().to_string_lossy());
        if ignored.contains(&path) {
            continue;
        }
        if entry.path().is_dir() {
            walk(ignored, &format!("{path}/"), files);
        } else {
            let bytes = std::fs::read(entry.path()).expect("a file can be read");
            files.push(RepositoryFile { path, text: String::from_utf8_lossy(&bytes).into() });
        }
    }
}

fn ignored_paths() -> Vec<String> {
    let text = std::fs::read_to_string(root().join(".gitignore")).expect(".gitignore can be read");
    let paths = text.lines().map(|line| {
        line.strip_prefix('/').expect("every line of .gitignore is a path from the root").to_owned()
    });
    std::iter::once(".git".to_owned()).chain(paths).collect()
}

/// Lines with their comments and the contents of their strings taken out.
fn numbered_code(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines().map(code_of).enumerate()
}

fn code_of(line: &str) -> String {
    let line = line.replace("'\"'", "''").replace("\\\"", "");
    let unquoted: String = line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    unquoted.split("//").next().unwrap_or_default().to_owned()
}

fn has_word(text: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let continues = word.ends_with(in_word) && text[at + word.len()..].starts_with(in_word);
        !continues && !text[..at].ends_with(in_word)
    })
}

fn code_map() -> &'static str {
    let page = &file("ARCHITECTURE.md").text;
    let (_, from) =
        page.split_once("\n## Code map\n").expect("ARCHITECTURE.md has a section `## Code map`");
    from.split("\n## ").next().unwrap_or_default()
}

/// `engine` of "| `engine/` | the log |", "- `engine/`: the log" and "engine/   the log".
fn folder_named_first(line: &str) -> Option<&str> {
    let name = line.trim_start_matches(['|', '-', '*', '#', '`', ' ']);
    let (folder, rest) = name.split_once('/')?;
    let is_name = !folder.is_empty() && folder.chars().all(|c| c.is_alphanumeric() || c == '-');
    let ends = rest.is_empty() || rest.starts_with(['`', ' ']);
    (is_name && ends && !line.starts_with("  ")).then_some(folder)
}

/// Every command below `parent`, as the program itself lists them.
fn commands_of(parent: &[String]) -> Vec<Vec<String>> {
    let help = help_of(parent);
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        let name = name.split_whitespace().next().filter(|_| !name.starts_with(' '))?;
        (name != "help").then(|| name.to_owned())
    });
    names
        .flat_map(|name| {
            let command = [parent, &[name]].concat();
            let below = commands_of(&command);
            std::iter::once(command).chain(below)
        })
        .collect()
}

fn help_of(command: &[String]) -> String {
    let cargo = std::env::var_os("CARGO").expect("cargo runs the tests and names itself");
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--package", "quipu", "--"])
        .args(command)
        .arg("--help")
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "quipu {} --help: {errors}", command.join(" "));
    String::from_utf8(output.stdout).expect("help is text")
}

/// A command of a command may stand among its siblings: `quipu segments list | inspect SEG`.
fn shows(readme: &str, command: &[String]) -> bool {
    let [first, below @ ..] = command else { return false };
    let whole = format!("quipu {first}");
    readme
        .lines()
        .any(|line| has_word(line, &whole) && below.iter().all(|name| has_word(line, name)))
}

#[test]
fn code_is_told_from_comments_and_strings() {
    assert_eq!(code_of(r#"call("danger \" //", x); // danger"#), r#"call("", x); "#);
    assert_eq!(code_of("let quote = '\"'; // why"), "let quote = ''; ");
    assert!(has_word("unsafe { x }", "unsafe") && !has_word("unsafe_code", "unsafe"));
    assert!(has_word("a File::open", "File::") && !has_word("SegmentFile::open", "File::"));
    assert!(has_word("use std::fs;", "std::fs") && !has_word("std::fsync", "std::fs"));
}
