//! Rounds of everything that looks for faults at random, for as long as it is given, so that a
//! machine can be left alone with it: `tests/soak --minutes 480`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]
#![expect(clippy::disallowed_methods, reason = "it tells the time, and keeps what failed")]

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;

/// Rounds of simulated crashes and faults, random histories, failing disks, SIGKILL, flipped bits,
/// real faults under a real server, and fuzzing, each with fresh seeds. Ends at the first failure
/// with status 1; its seed and its complete output are then in target/soak/, and the history that
/// was no log's in target/faults/.
#[derive(Parser)]
#[command(after_help = "Example:\n  tests/soak --minutes 480")]
struct Args {
    /// Begin nothing new after so many minutes; without it, go on until interrupted.
    #[arg(long)]
    minutes: Option<u64>,
    /// Seed of the first round; a random one without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Simulated crashes a round; a tenth of them with faults.
    #[arg(long, default_value_t = 200_000)]
    crashes: u64,
    /// Random histories a round.
    #[arg(long, default_value_t = 2_000)]
    cases: u64,
    /// Kills of a server a round; half as many power cuts, a tenth as many full disks.
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Minutes a round at half load with a fault every 30 s.
    #[arg(long, default_value_t = 20)]
    load_minutes: u64,
    /// Seconds that each fuzz target gets a round.
    #[arg(long, default_value_t = 60)]
    fuzz_seconds: u64,
}

/// One line of the table: a cargo command that fails if it finds something.
struct Row {
    name: String,
    arguments: Vec<String>,
    env: Vec<(&'static str, String)>,
    runs: Runs,
}

/// How many runs a row had.
enum Runs {
    /// As many as it was asked for.
    Asked(u64),
    /// The sum of the numbers before this word in its output.
    Before(&'static str),
    /// The number after this word.
    After(&'static str),
}

fn main() -> ExitCode {
    match soak(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(args: &Args) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let time = args.minutes.map_or(Duration::MAX, |minutes| Duration::from_secs(minutes * 60));
    let targets = fuzz_targets()?;
    println!("round  what                      runs   seconds  result");
    for round in 1.. {
        // The rows of a round share a seed; the simulator counts on from it.
        let seed = match args.seed {
            Some(seed) => seed.wrapping_add((round - 1) * 1_000_000_000),
            None => fastrand::u64(..1 << 53),
        };
        for row in rows(args, seed, &targets)? {
            if start.elapsed() >= time {
                return Ok(());
            }
            run(round, seed, &row)?;
        }
    }
    Ok(())
}

/// What a round does, in order. Whatever else looks for faults becomes one more row.
fn rows(args: &Args, seed: u64, targets: &[String]) -> Result<Vec<Row>, String> {
    let mut rows = vec![
        simulate("crashes", args.crashes, seed, ""),
        simulate("faults", args.crashes.div_ceil(10), seed, "--faults"),
        model(args.cases, seed),
        test("failing disk", "failing_disk"),
        test("SIGKILL", "crash"),
        test("flipped bits", "flips"),
        faults("kills", "--kills", args.kills, seed),
        faults("power cuts", "--power-cuts", args.kills.div_ceil(2), seed),
        faults("full disks", "--full-disks", args.kills.div_ceil(10), seed),
        faults("network", "--network-seconds", args.kills, seed),
        faults("load with faults", "--soak-minutes", args.load_minutes, seed),
    ];
    rows.extend(targets.iter().map(|target| fuzz(target, args.fuzz_seconds, seed)));
    rows.retain(|row| args.only.as_ref().is_none_or(|only| row.name.contains(only)));
    if rows.is_empty() { Err("no row has that name".to_owned()) } else { Ok(rows) }
}

fn row(name: &str, arguments: &str, runs: Runs) -> Row {
    let arguments = arguments.split_whitespace().map(str::to_owned).collect();
    Row { name: name.to_owned(), arguments, env: Vec::new(), runs }
}

fn simulate(name: &str, crashes: u64, seed: u64, more: &str) -> Row {
    let run = "run --locked --release --package quipu-tests --bin simulate --";
    let arguments = format!("{run} --crashes {crashes} --seed {seed} {more}");
    row(name, &arguments, Runs::Before("crashes"))
}

fn test(name: &str, file: &str) -> Row {
    let arguments = format!("test --locked --release --package quipu-tests --test {file}");
    row(name, &arguments, Runs::Before("passed;"))
}

/// Random histories against a plain model.
fn model(cases: u64, seed: u64) -> Row {
    let env = vec![("PROPTEST_CASES", cases.to_string()), ("PROPTEST_RNG_SEED", seed.to_string())];
    Row { env, runs: Runs::Asked(cases), ..test("model", "model") }
}

/// Real faults, as many of a kind; counted are the operations that were checked.
fn faults(name: &str, option: &str, count: u64, seed: u64) -> Row {
    let run = "run --locked --release --package quipu-tests --bin faults --";
    let arguments = format!("{run} {option} {count} --seed {seed}");
    row(name, &arguments, Runs::Before("operations"))
}

/// As `check` runs it: new inputs are kept in target/fuzz-found/, the kept corpus is only read.
fn fuzz(target: &str, seconds: u64, seed: u64) -> Row {
    // The sanitizer's flags are unstable; this lets the stable compiler take them.
    let env = vec![("RUSTC_BOOTSTRAP", "1".to_owned())];
    let seed = seed % u64::from(u32::MAX) + 1;
    let arguments = format!(
        "fuzz run {target} {} fuzz/corpus/{target} -- -print_final_stats=1 -timeout=10 \
         -rss_limit_mb=2048 -max_total_time={seconds} -seed={seed}",
        found(target)
    );
    let runs = Runs::After("stat::number_of_executed_units:");
    Row { env, ..row(&format!("fuzz {target}"), &arguments, runs) }
}

fn found(target: &str) -> String {
    format!("target/fuzz-found/{target}")
}

/// The fuzz targets, each with a folder for what it finds; none, and said so, without cargo-fuzz.
fn fuzz_targets() -> Result<Vec<String>, Box<dyn Error>> {
    let listed = cargo().args(["fuzz", "list"]).output()?;
    if !listed.status.success() {
        println!("!!! NOTHING IS FUZZED: cargo-fuzz is not installed; ./check installs it !!!");
        return Ok(Vec::new());
    }
    let targets = String::from_utf8(listed.stdout)?;
    let targets: Vec<String> = targets.lines().map(str::to_owned).collect();
    for target in &targets {
        std::fs::create_dir_all(found(target))?;
    }
    Ok(targets)
}

/// Cargo, with the tools that `check` has installed.
fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    let tools = std::env::current_dir().unwrap_or_default().join("target/check-tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(paths) {
        cargo.env("PATH", path);
    }
    cargo
}

fn run(round: u64, seed: u64, row: &Row) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let env = row.env.iter().map(|(name, value)| (name, value));
    let output = cargo().args(&row.arguments).envs(env).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let runs = row.runs.count(&text);
    // A row that ran nothing, say because its words have changed, has proven nothing.
    let is_good = output.status.success() && runs > 0;
    let (seconds, result) = (start.elapsed().as_secs(), if is_good { "ok" } else { "FAILED" });
    println!("{round:>5}  {:<20} {runs:>10} {seconds:>8}  {result}", row.name);
    if is_good {
        return Ok(());
    }
    let command = format!("cargo {}", row.arguments.join(" "));
    let file = PathBuf::from(format!("target/soak/{}-{seed}.log", row.name.replace(' ', "-")));
    std::fs::create_dir_all("target/soak")?;
    std::fs::write(&file, format!("seed {seed}\n{:?} {command}\n\n{text}", row.env))?;
    let file = file.display();
    Err(format!("{} failed with seed {seed}; its output is in {file}", row.name).into())
}

impl Runs {
    fn count(&self, output: &str) -> u64 {
        let words: Vec<&str> = output.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().ok();
        let pairs = words.windows(2);
        match self {
            Self::Asked(runs) => *runs,
            Self::Before(word) => {
                pairs.filter(|pair| pair[1] == *word).filter_map(|pair| number(pair[0])).sum()
            }
            Self::After(word) => {
                pairs.filter(|pair| pair[0] == *word).filter_map(|pair| number(pair[1])).sum()
            }
        }
    }
}
