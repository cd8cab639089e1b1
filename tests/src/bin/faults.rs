//! Real faults under a real server, as many as asked for: `faults --kills 30 --power-cuts 20`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it makes the folder for its logs and disks, and reads what it kept"
)]

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use quipu_tests::faults::client_process::{self, ProcessArgs};
use quipu_tests::faults::crowd::Load;
use quipu_tests::faults::loop_disk::FileSystem;
use quipu_tests::faults::namespace::Namespace;
use quipu_tests::faults::site::{Disk, Setup, Site};
use quipu_tests::faults::tally::Tally;
use quipu_tests::faults::{full_disks, kills, network, power_cuts, soak};
use quipu_tests::history::checker::check;
use quipu_tests::history::journal::History;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ways in which groups reach the disk.
const BACKENDS: [&str; 3] = ["direct", "io-uring", "buffered"];

/// Real faults under a real `quipu serve` with 8 clients, whose recorded history is checked.
///
/// Exits with 0 if every promise held. If not, the seed is told, and history, log and what the
/// server said are kept. What takes root or loop devices is passed over, loudly, where there are
/// none.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    faults --kills 30 --power-cuts 20 --full-disks 5 --network-seconds 60\n  \
    faults --kills 1 --seed 4711         that one again\n  \
    faults check target/faults/4711/history   the history that was kept, checked again")]
struct Args {
    #[command(subcommand)]
    command: Option<Part>,
    /// Kills of the server.
    #[arg(long, default_value_t = 0)]
    kills: u64,
    /// Power cuts of an ext4, and a quarter as many of an XFS.
    #[arg(long, default_value_t = 0)]
    power_cuts: u64,
    /// Disks that fill up.
    #[arg(long, default_value_t = 0)]
    full_disks: u64,
    /// Seconds of network faults; a quarter of them between two hosts.
    #[arg(long, default_value_t = 0)]
    network_seconds: u64,
    /// Minutes at half load with a fault of each kind in turn.
    #[arg(long, default_value_t = 0)]
    soak_minutes: u64,
    /// Seconds between two faults of the soak.
    #[arg(long, default_value_t = 30)]
    every_seconds: u64,
    /// Seed of the first fault.
    #[arg(long)]
    seed: Option<u64>,
    /// Where logs and disks are made; default: the system's folder for temporary files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where what failed is kept.
    #[arg(long, default_value = "target/faults")]
    keep: PathBuf,
    /// The program `quipu`; default: beside this one.
    #[arg(long)]
    quipu: Option<PathBuf>,
    /// Bytes of a segment: small, so that rolls are among what is interrupted.
    #[arg(long, default_value_t = 1 << 20)]
    segment_bytes: u64,
}

#[derive(Subcommand)]
enum Part {
    /// The client that is killed.
    #[command(hide = true)]
    Client(ProcessArgs),
    /// Checks a history that was kept.
    Check { file: PathBuf },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Part::Client(process)) => client_process::run(process),
        Some(Part::Check { file }) => check_again(file),
        None => strike(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check_again(file: &Path) -> Result<()> {
    let file = BufReader::new(File::open(file)?);
    println!("{:?}", check(&History::of(History::entries(file)))?);
    Ok(())
}

fn strike(args: &Args) -> Result<()> {
    let setup = setup(args)?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 53));
    println!("seed {seed}, groups go to the disk by {}", setup.backends.join(", "));
    println!("{}", Tally::header());
    let mut total = Tally::new("all");
    let mut say = |tally: Tally| {
        println!("{tally}");
        total.runs += tally.runs;
        total.checked.add(&tally.checked);
        total.took += tally.took;
        total.served_after = total.served_after.max(tally.served_after);
        total.resident_bytes = total.resident_bytes.max(tally.resident_bytes);
        tally.runs
    };
    let mut done = Vec::new();
    if args.kills > 0 {
        done.push(format!("{} kills", say(kills::run(&setup, args.kills, seed)?)));
    }
    let xfs = args.power_cuts.div_ceil(4);
    for (kind, count) in [(FileSystem::Ext4, args.power_cuts), (FileSystem::Xfs, xfs)] {
        if count > 0 && can_be_mounted(kind, &setup) {
            let cuts = say(power_cuts::run(&setup, kind, count, seed)?);
            done.push(format!("{cuts} power cuts on {kind}"));
        }
    }
    if args.full_disks > 0 && can_be_mounted(FileSystem::Ext4, &setup) {
        let filled = say(full_disks::run(&setup, args.full_disks, seed)?);
        done.push(format!("{filled} full disks"));
    }
    if args.network_seconds > 0 {
        done.push(network(args.network_seconds, &setup, seed, &mut say)?);
    }
    if args.soak_minutes > 0 {
        let (time, every) = (60 * args.soak_minutes, Duration::from_secs(args.every_seconds));
        let faults = say(soak::run(&setup, Duration::from_secs(time), every, seed)?);
        done.push(format!("{faults} faults of the soak"));
    }
    println!("{total}");
    let done = if done.is_empty() { "none asked for".to_owned() } else { done.join(", ") };
    let operations = total.checked.operations();
    println!("real faults: {done}: {operations} operations checked, every promise held");
    Ok(())
}

/// Most of it on a wire, the rest between two hosts, where that is allowed.
fn network(
    seconds: u64,
    setup: &Setup,
    seed: u64,
    say: &mut impl FnMut(Tally) -> u64,
) -> Result<String> {
    let (mut wire, mut hosts) = (seconds, seconds.div_ceil(4));
    match Namespace::new() {
        Ok(_) => wire -= hosts,
        Err(error) => {
            println!("!!! SKIPPED: no network of two hosts can be made: {error:#} !!!");
            hosts = 0;
        }
    }
    let faults = say(network::run(setup, Duration::from_secs(wire), seed)?);
    let done = format!("{faults} network faults in {wire} s");
    if hosts == 0 {
        return Ok(done);
    }
    let cables = say(network::run_between_hosts(setup, Duration::from_secs(hosts), seed)?);
    Ok(format!("{done}, {cables} times a pulled cable in {hosts} s"))
}

/// Says loudly if not.
fn can_be_mounted(kind: FileSystem, setup: &Setup) -> bool {
    match Disk::of(kind, setup, 512 << 20) {
        Ok(_) => true,
        Err(error) => {
            println!("!!! SKIPPED: nothing on {kind}, for it cannot be mounted: {error:#} !!!");
            false
        }
    }
}

fn setup(args: &Args) -> Result<Setup> {
    let beside = || anyhow::Ok(std::env::current_exe()?.with_file_name("quipu"));
    let quipu = args.quipu.clone().map_or_else(beside, Ok)?;
    ensure!(quipu.exists(), "{} is not there: cargo build -p quipu", quipu.display());
    let folder = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = std::path::absolute(folder)?;
    std::fs::create_dir_all(&folder).context("the folder for logs and disks")?;
    let mut setup = Setup {
        quipu: std::path::absolute(quipu)?,
        folder,
        keep: args.keep.clone(),
        load: Load::default(),
        segment_bytes: args.segment_bytes,
        backends: Vec::new(),
    };
    setup.backends =
        BACKENDS.iter().filter(|way| can_be_used(way, &setup)).map(ToString::to_string).collect();
    Ok(setup)
}

/// Says loudly if not.
fn can_be_used(backend: &str, setup: &Setup) -> bool {
    let setup = Setup { backends: vec![backend.to_owned()], ..setup.clone() };
    match Disk::folder(&setup).and_then(|disk| Site::open(&setup, disk, 1)) {
        Ok(_) => true,
        Err(error) => {
            println!("!!! SKIPPED: nothing by {backend}, for it cannot be used: {error:#} !!!");
            false
        }
    }
}
