//! Simulates crashes of the real engine: `simulate [--crashes N] [--seed S] [--faults]`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]
#![expect(clippy::disallowed_methods, reason = "it tells how long it took, and uses all cores")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use parking_lot::Mutex;
use quipu_tests::sim::defect::Defect;
use quipu_tests::sim::figures::Figures;
use quipu_tests::sim::run::{Mishaps, Plan, Violation, run};
use quipu_tests::sim::sweep::{Swept, sweep};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Deterministic simulation of the real engine on a disk that crashes: one seed is one run.
///
/// Exits with 0 if every promise held, with 1 and the history of the run if one was broken.
#[derive(Parser)]
#[command(after_help = "Examples:\n  simulate --crashes 100000            crashes only\n  \
    simulate --crashes 10000 --faults    also failing operations, full disks, rot\n  \
    simulate --seed 4711 --crashes 1     the run of one seed again\n  \
    simulate --bugs                      every seeded bug must be found\n  \
    simulate --sweep 3                   every operation of 3 runs fails once, in every way")]
struct Args {
    /// Stop after so many crashes; with a bug, give up after so many.
    #[arg(long, default_value_t = 100_000)]
    crashes: u64,
    /// First seed; run K uses seed + K.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Let also operations fail, the disk be full, and blocks rot.
    #[arg(long)]
    faults: bool,
    /// Break this rule of engine or disk: a violation must be found.
    #[arg(long, value_name = "NAME", value_parser = defect)]
    bug: Option<Defect>,
    /// Break each rule in turn; exits with 0 if every one is found.
    #[arg(long, conflicts_with_all = ["bug", "sweep"])]
    bugs: bool,
    /// Let every operation of so many runs fail once, in every way.
    #[arg(long, value_name = "RUNS", conflicts_with = "bug")]
    sweep: Option<u64>,
    /// Threads; 0 is one for each core.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// One JSON object instead of words.
    #[arg(long)]
    json: bool,
}

fn defect(name: &str) -> Result<Defect, String> {
    Defect::named(name).ok_or_else(|| {
        let names: Vec<&str> = Defect::ALL.iter().map(|(name, _)| *name).collect();
        format!("there is no such bug; there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.bugs {
        return find_every_bug(&args);
    }
    let start = Instant::now();
    let outcome = match args.sweep {
        Some(runs) => sweep_runs(&args, runs).map(|swept| print_swept(&args, &swept)),
        None => simulate(&args, args.bug).map(|figures| print_figures(&args, &figures, start)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((violation, crashes)) => {
            print_violation(&violation, crashes);
            ExitCode::FAILURE
        }
    }
}

/// The first violation, and the crashes before it.
type Found = (Box<Violation>, u64);

/// Runs seeds on every core until there were enough crashes.
fn simulate(args: &Args, defect: Option<Defect>) -> Result<Figures, Found> {
    let (total, found) = (Mutex::new(Figures::default()), Mutex::new(None));
    let crashes = AtomicU64::new(0);
    let mishaps = |seed: u64| match (args.faults, defect) {
        // A bug may show in either.
        (false, Some(_)) if seed.is_multiple_of(2) => Mishaps::CrashesAndFaults,
        (false, _) => Mishaps::Crashes,
        (true, _) => Mishaps::CrashesAndFaults,
    };
    on_every_core(args, |seed| {
        let before = crashes.load(Ordering::Relaxed);
        if before >= args.crashes {
            return false;
        }
        match run(Plan { seed, mishaps: mishaps(seed), defect }) {
            Ok(figures) => {
                crashes.fetch_add(figures.crashes, Ordering::Relaxed);
                total.lock().add(&figures);
                true
            }
            Err(violation) => {
                let mut found = found.lock();
                let is_first = |(it, _): &Found| violation.seed < it.seed;
                if found.as_ref().is_none_or(is_first) {
                    *found = Some((violation, before));
                }
                false
            }
        }
    });
    found.into_inner().map_or(Ok(total.into_inner()), Err)
}

/// Calls `work` with one seed after another on every core, until one call returns false.
fn on_every_core(args: &Args, work: impl Fn(u64) -> bool + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if args.jobs == 0 { cores } else { args.jobs };
    let (next, stop) = (AtomicU64::new(args.seed), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if !work(next.fetch_add(1, Ordering::Relaxed)) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

fn sweep_runs(args: &Args, runs: u64) -> Result<Swept, Found> {
    let (total, found) = (Mutex::new(Swept::default()), Mutex::new(None));
    on_every_core(args, |seed| {
        if seed >= args.seed + runs {
            return false;
        }
        match sweep(seed) {
            Ok(swept) => {
                let mut total = total.lock();
                total.operations += swept.operations;
                total.runs += swept.runs;
                total.figures.add(&swept.figures);
                true
            }
            Err(violation) => {
                *found.lock() = Some((violation, 0));
                false
            }
        }
    });
    found.into_inner().map_or(Ok(total.into_inner()), Err)
}

fn find_every_bug(args: &Args) -> ExitCode {
    println!("{:30} {:>9}  {:>9}  what was seen", "bug", "crashes", "seed");
    let mut all_found = true;
    for (name, defect) in Defect::ALL {
        match simulate(args, Some(defect)) {
            Err((violation, crashes)) => {
                let problem: String = violation.problem.chars().take(90).collect();
                println!("{name:30} {crashes:9}  {:9}  {problem}", violation.seed);
            }
            Ok(figures) => {
                all_found = false;
                println!("{name:30} NOT FOUND in {} crashes", figures.crashes);
            }
        }
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_violation(violation: &Violation, crashes: u64) {
    let Violation { seed, problem, history } = violation;
    eprintln!("VIOLATION with seed {seed} after {crashes} crashes: {problem}");
    for line in history.iter().skip(history.len().saturating_sub(120)) {
        eprintln!("  {line}");
    }
}

fn print_figures(args: &Args, total: &Figures, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        return println!("{}", json(total, seconds));
    }
    let Figures { crashes, crashes_in_recovery, submitted, acknowledged, .. } = total;
    let Figures { torn_tails, finished_rolls, segments, damage_reported, faults_met, .. } = total;
    println!(
        "clean: {crashes} crashes ({crashes_in_recovery} while opening) in {seconds:.1} s; \
         {submitted} appends, {acknowledged} acknowledged; {torn_tails} torn tails, \
         {finished_rolls} rolls finished at start, {segments} segments, {faults_met} operations \
         failed, {damage_reported} times damage was reported"
    );
    println!("what the crashes interrupted:");
    for (moment, count) in &total.moments {
        println!("{count:10}  {moment}");
    }
}

fn json(total: &Figures, seconds: f64) -> String {
    let moments: Vec<String> =
        total.moments.iter().map(|(moment, count)| format!("\"{moment}\":{count}")).collect();
    format!(
        "{{\"crashes\":{},\"crashes_in_recovery\":{},\"submitted\":{},\"acknowledged\":{},\
         \"torn_tails\":{},\"finished_rolls\":{},\"segments\":{},\"faults\":{},\
         \"damage_reported\":{},\"seconds\":{seconds:.1},\"moments\":{{{}}}}}",
        total.crashes,
        total.crashes_in_recovery,
        total.submitted,
        total.acknowledged,
        total.torn_tails,
        total.finished_rolls,
        total.segments,
        total.faults_met,
        total.damage_reported,
        moments.join(",")
    )
}

fn print_swept(args: &Args, swept: &Swept) {
    let Swept { operations, runs, figures } = swept;
    let (crashes, faults) = (figures.crashes, figures.faults_met);
    if args.json {
        return println!(
            "{{\"operations\":{operations},\"runs\":{runs},\"faults\":{faults},\
             \"crashes\":{crashes}}}"
        );
    }
    println!(
        "clean: each of {operations} operations failed once in every way: {runs} runs, {faults} \
         operations failed, {crashes} crashes"
    );
}
