//! One workload against Quipu and its rivals, in turns, and what came of it as a table and a plot.
//!
//! `benches/compare/run` installs and builds what is needed and calls this. What is asked of each
//! system is in [`workload`] and [`events`]; how it is done in [`systems`]; what is made of the
//! figures in [`results`], [`report`], [`plot`] and [`page`].

mod clock;
mod driver;
mod events;
mod figures;
mod folder;
mod machine;
mod page;
mod plot;
mod process;
mod report;
mod results;
mod systems;
mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};

use crate::machine::Machine;
use crate::results::{Described, Failed, Measured, Results};
use crate::systems::{Environment, Maker, System, quipu};
use crate::workload::Workload;

const RESULTS_FILE: &str = "compare.json";

/// Runs one workload against Quipu and its rivals.
#[derive(Parser)]
struct Args {
    /// How long each system does each part of the workload.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_1())]
    seconds: u64,
    /// How often each is run, in turns; the medians count.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_1())]
    runs: u64,
    /// Only these.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    only: Vec<Maker>,
    /// Where table, plot and figures go.
    #[arg(long, value_name = "DIR", default_value = "target/compare/results")]
    out: PathBuf,
    /// Also write them into this page, with the plot beside it.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Measure nothing: show again what an earlier call has left in this folder.
    #[arg(long, value_name = "DIR")]
    render: Option<PathBuf>,
    /// Where the systems keep their data: an existing folder, on the disk to be measured.
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    folder: PathBuf,
    /// More arguments for a rival's server, as in `postgres=-c commit_delay=100`.
    #[arg(long, value_name = "MAKER=ARGS", value_parser = with_arguments)]
    with: Vec<(Maker, String)>,
    /// The program `quipu`.
    #[arg(long, value_name = "FILE", default_value = "target/release/quipu")]
    quipu: PathBuf,
    /// The program `umadb`.
    #[arg(long, value_name = "FILE")]
    umadb: Option<PathBuf>,
    /// The commit that Quipu is built from.
    #[arg(long, value_name = "ID", default_value = "unknown")]
    commit: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let results = match &args.render {
        Some(folder) => serde_json::from_str(&folder::read(&folder.join(RESULTS_FILE))?)?,
        None => measure(&args)?,
    };
    let table = report::markdown(&results);
    let plot = plot::svg(&results)?;
    println!("{table}");
    folder::write(&args.out.join(RESULTS_FILE), &serde_json::to_string_pretty(&results)?)?;
    folder::write(&args.out.join("compare.md"), &table)?;
    folder::write(&args.out.join("compare.svg"), &plot)?;
    match &args.page {
        Some(path) => update_page(path, &table, &plot),
        None => Ok(()),
    }
}

/// The plot lies beside the page, under the same name.
fn update_page(path: &Path, table: &str, plot: &str) -> Result<()> {
    let plot_path = path.with_extension("svg");
    let name = plot_path.file_name().context("the page is a file")?.to_string_lossy();
    let figures = format!("![events a second, system by system]({name})\n\n{table}");
    folder::write(path, &page::with_figures(&folder::read(path)?, &figures)?)?;
    folder::write(&plot_path, plot)
}

fn measure(args: &Args) -> Result<Results> {
    let folder = std::path::absolute(&args.folder)?;
    let machine = Machine::this(&folder);
    ensure!(
        !machine.keeps_files_in_memory(),
        "{} is in memory ({}): give --folder on a disk",
        folder.display(),
        machine.file_system
    );
    let environment = Environment {
        quipu: args.quipu.clone(),
        umadb: args.umadb.clone(),
        folder,
        with: args.with.clone(),
    };
    let mut session = Session {
        started: clock::now(),
        duration: Duration::from_secs(args.seconds),
        results: Results {
            machine,
            command: args.command(),
            commit: args.commit.clone(),
            systems: Vec::new(),
            measured: Vec::new(),
            disk: Vec::new(),
            failed: Vec::new(),
        },
        environment,
    };
    let chosen = |system: &System| args.only.is_empty() || args.only.contains(&system.maker());
    let systems: Vec<System> = System::ALL.into_iter().filter(chosen).collect();
    let systems = session.describe(&systems);
    for run in 1..=args.runs {
        if systems.iter().any(|system| system.maker() == Maker::Quipu) {
            session.say(run, args.runs, "the bare disk");
            session.results.disk.extend(quipu::bench_disk(&session.environment)?);
        }
        for &system in &systems {
            session.say(run, args.runs, system.title());
            if let Err(error) = session.run(run, system) {
                session.fail(system, &error);
            }
        }
    }
    Ok(session.results)
}

fn at_least_1() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..)
}

fn with_arguments(text: &str) -> Result<(Maker, String), String> {
    let (maker, arguments) = text.split_once('=').ok_or("give MAKER=ARGS")?;
    Ok((Maker::from_str(maker, true)?, arguments.to_owned()))
}

impl Args {
    /// Without what `benches/compare/run` finds by itself.
    fn command(&self) -> String {
        let Self { seconds, runs, .. } = self;
        format!("benches/compare/run --seconds {seconds} --runs {runs}")
    }
}

struct Session {
    started: Instant,
    duration: Duration,
    environment: Environment,
    results: Results,
}

impl Session {
    /// Those that are there.
    fn describe(&mut self, systems: &[System]) -> Vec<System> {
        let mut found = Vec::new();
        for &system in systems {
            match system.version(&self.environment) {
                Ok(version) => {
                    let settings = system.settings(&self.environment);
                    self.results.systems.push(Described { system, version, settings });
                    found.push(system);
                }
                Err(error) => self.fail(system, &error),
            }
        }
        found
    }

    fn run(&mut self, run: u64, system: System) -> Result<()> {
        let mut running = system.start(&self.environment)?;
        for workload in Workload::ALL {
            let figures = running.measure(workload, self.duration);
            if let Some(figures) = figures.with_context(|| workload.title())? {
                eprintln!("    {}", summary(workload, &figures));
                self.results.measured.push(Measured { run, system, workload, figures });
            }
        }
        Ok(())
    }

    fn fail(&mut self, system: System, error: &anyhow::Error) {
        eprintln!("{}: {error:#}", system.title());
        let reason = format!("{error:#}");
        self.results.failed.push(Failed { system, reason });
    }

    fn say(&self, run: u64, runs: u64, what: &str) {
        let seconds = self.started.elapsed().as_secs();
        eprintln!("{:>3}:{:02}  run {run} of {runs}: {what}", seconds / 60, seconds % 60);
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
fn summary(workload: Workload, figures: &figures::Figures) -> String {
    let rate = report::count(figures.events as f64 / figures.seconds);
    let latency = figures.latency_us.map_or_else(String::new, |latency| {
        let text = |micros: u64| report::latency(micros as f64);
        format!(", p50 {}, p99 {}", text(latency.p50), text(latency.p99))
    });
    format!("{}: {rate} events/s{latency}", workload.title())
}
