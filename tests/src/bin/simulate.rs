//! Simulates crashes of the real engine: `simulate [--crashes N] [--seed S] [--faults]`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]
#![expect(clippy::disallowed_methods, reason = "it tells how long it took")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use quipu_tests::sim::disk::Fault;
use quipu_tests::sim::run::{Figures, Plan, run};

/// Deterministic simulation of the real engine on a disk that crashes: one seed is one run.
#[derive(Parser)]
#[command(after_help = "Example:\n  simulate --crashes 100000 --seed 1")]
struct Args {
    /// Stop after so many crashes.
    #[arg(long, default_value_t = 100_000)]
    crashes: u64,
    /// First seed; run K uses seed + K.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also damage blocks and fail operations.
    #[arg(long)]
    faults: bool,
    /// A disk that lies about flushes: a negative control, which must find a violation.
    #[arg(long)]
    lying: bool,
    /// One JSON object instead of words.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let start = Instant::now();
    let mut total = Figures::default();
    let mut seed = args.seed;
    while total.crashes < args.crashes {
        let fault = if args.lying { Fault::LyingFlush } else { Fault::None };
        match run(Plan { seed, fault, faults: args.faults, ..Plan::default() }) {
            Ok(figures) => add(&mut total, &figures),
            Err(violation) => {
                let crashes = total.crashes;
                eprintln!(
                    "VIOLATION with seed {seed} after {crashes} crashes: {}",
                    violation.problem
                );
                for line in violation.history.iter().rev().take(80).rev() {
                    eprintln!("  {line}");
                }
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let Figures { crashes, crashes_in_recovery, torn_tails, finished_rolls, rolls, .. } = total;
    let (submitted, acknowledged, damage) =
        (total.submitted, total.acknowledged, total.damage_reported);
    if args.json {
        println!(
            "{{\"crashes\":{crashes},\"crashes_in_recovery\":{crashes_in_recovery},\"torn_tails\":\
             {torn_tails},\"finished_rolls\":{finished_rolls},\"segments\":{rolls},\"submitted\":\
             {submitted},\"acknowledged\":{acknowledged},\"damage_reported\":{damage},\"seconds\":\
             {seconds:.1}}}"
        );
    } else {
        println!(
            "clean: {crashes} crashes ({crashes_in_recovery} while opening) in {seconds:.1} s; \
             {submitted} appends, {acknowledged} acknowledged; {torn_tails} torn tails, \
             {finished_rolls} rolls finished at start, {rolls} segments, {damage} damage reported"
        );
    }
    ExitCode::SUCCESS
}

fn add(total: &mut Figures, run: &Figures) {
    total.crashes += run.crashes;
    total.crashes_in_recovery += run.crashes_in_recovery;
    total.submitted += run.submitted;
    total.acknowledged += run.acknowledged;
    total.torn_tails += run.torn_tails;
    total.finished_rolls += run.finished_rolls;
    total.rolls += run.rolls;
    total.clean_closes += run.clean_closes;
    total.damage_reported += run.damage_reported;
}
