//! Half the load that a server can bear, for as long as one likes, and a fault every 30 seconds:
//! nothing is lost, and after the last fault it is as fast and as small as after the first.
#![expect(clippy::disallowed_methods, reason = "it takes its time, and says how long it took")]
#![expect(clippy::print_stdout, reason = "whoever waits for hours wants to see how it goes")]

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::loop_disk::FileSystem;
use super::network::{self, Fault as NetworkFault};
use super::site::{Disk, Setup, Site};
use super::tally::Tally;
use super::wire::Wire;
use super::{full_disks, kills, power_cuts};
use crate::history::checker::Checked;
use crate::history::journal::History;
use crate::history::stamp::Stamp;

const DISK_BYTES: u64 = 8 << 30;
/// How long the clients go as fast as they can, to find what half of it is.
const CALIBRATION: Duration = Duration::from_secs(5);
/// What the last log may take of memory, of what the first took: more, and it is not flat.
const GROWTH_MAX: f64 = 1.5;
/// So long after a fault the clients may still be busy with it.
const CALM_AFTER: Duration = Duration::from_secs(3);

#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Pause,
    ClientKill,
    PowerCut,
    FullDisk,
    Network(NetworkFault),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::ClientKill => "client killed",
            Self::PowerCut => "power cut",
            Self::FullDisk => "full disk",
            Self::Network(fault) => return fault.fmt(f),
        })
    }
}

/// How calm it was before a fault.
struct Calm {
    from: Stamp,
    until: Stamp,
    resident_bytes: u64,
    then: Fault,
    served_after: Duration,
}

/// What one log came to: the most memory before a fault, and the median of the p99.
#[derive(Clone, Copy)]
struct Level {
    resident_bytes: u64,
    p99: Duration,
}

/// Runs for so long, with a fault every so often.
pub fn run(setup: &Setup, time: Duration, every: Duration, seed: u64) -> Result<Tally> {
    let start = Instant::now();
    let mut tally = Tally::new("soak");
    let has_disk = Disk::of(FileSystem::Ext4, setup, DISK_BYTES);
    if let Err(error) = &has_disk {
        println!("!!! SKIPPED: no power cuts and no full disks in the soak: {error:#} !!!");
    }
    let has_disk = has_disk.is_ok();
    let setup = at_half_load(setup, has_disk, seed)?;
    println!("minute  before             operations/s  append p50     p99  memory  served after");
    let mut levels = Vec::new();
    while start.elapsed() < time {
        let mut site = site(&setup, has_disk, seed + tally.runs)?;
        let wire = Wire::to(&site.runtime, site.server_address())?;
        wire.address().clone_into(&mut site.address);
        site.open_doors();
        site.start_process()?;
        let mut calms = Vec::new();
        for fault in faults(has_disk) {
            if start.elapsed() >= time {
                break;
            }
            match strike_after(&mut site, &wire, fault, every, &mut tally) {
                Ok(calm) => calms.push(calm),
                Err(error) => {
                    return Err(site.keep(&History::default(), error.context(fault.to_string())));
                }
            }
            tally.runs += 1;
        }
        let whole = calms.len() == faults(has_disk).count();
        let history = tally.close(site)?;
        let level = say(&calms, &history, start);
        levels.extend(level.filter(|_| whole));
    }
    must_be_flat(&levels)?;
    Ok(tally)
}

fn faults(has_disk: bool) -> impl Iterator<Item = Fault> {
    let on_disk = [Fault::PowerCut, Fault::FullDisk];
    let process = [Fault::Kill, Fault::Pause, Fault::ClientKill].into_iter();
    let network = NetworkFault::ALL.into_iter().map(Fault::Network);
    process.chain(on_disk.into_iter().filter(move |_| has_disk)).chain(network)
}

fn site(setup: &Setup, has_disk: bool, seed: u64) -> Result<Site> {
    let disk = if has_disk {
        Disk::of(FileSystem::Ext4, setup, DISK_BYTES)?
    } else {
        Disk::folder(setup)?
    };
    Site::open(setup, disk, seed)
}

/// Lets the clients go as fast as they can, and has them pause so long that it is half of that.
fn at_half_load(setup: &Setup, has_disk: bool, seed: u64) -> Result<Setup> {
    let mut site = site(setup, has_disk, seed)?;
    site.open_doors();
    std::thread::sleep(CALIBRATION);
    let (Checked { appends, reads, .. }, _) = site.close()?;
    let operations = u32::try_from(appends + reads)?.max(1);
    let pause = CALIBRATION * 2 * setup.load.clients / operations;
    println!("full load: {} operations/s; half of it from here on", operations / 5);
    let mut setup = setup.clone();
    setup.load.pause = Some(pause);
    Ok(setup)
}

fn strike_after(
    site: &mut Site,
    wire: &Wire,
    fault: Fault,
    every: Duration,
    tally: &mut Tally,
) -> Result<Calm> {
    std::thread::sleep(CALM_AFTER.min(every));
    let from = Stamp::now();
    std::thread::sleep(every.saturating_sub(CALM_AFTER));
    let until = Stamp::now();
    let resident_bytes = site.server()?.resident_bytes()?;
    tally.resident_bytes = tally.resident_bytes.max(resident_bytes);
    let before = std::mem::take(&mut site.served_after);
    match fault {
        Fault::Kill => kills::kill(site)?,
        Fault::Pause => {
            site.server()?.signal(Signal::STOP)?;
            site.wait(100..4_000);
            site.server()?.signal(Signal::CONT)?;
            site.heal();
            site.must_serve()?;
        }
        Fault::ClientKill => {
            site.process.as_mut().context("there is such a client")?.kill_and_start_again()?;
        }
        Fault::PowerCut => power_cuts::cut(site)?,
        Fault::FullDisk => full_disks::fill_while_it_runs(site)?,
        Fault::Network(fault) => network::strike(site, wire, fault, tally)?,
    }
    let served_after = site.served_after;
    site.served_after = before.max(served_after);
    Ok(Calm { from, until, resident_bytes, then: fault, served_after })
}

/// Prints a line for each time of calm; returns what the log came to.
fn say(calms: &[Calm], history: &History, start: Instant) -> Option<Level> {
    let mut p99s = Vec::new();
    for calm in calms {
        let is_in = |stamp: &Stamp| (calm.from..calm.until).contains(stamp);
        let mut latencies: Vec<u64> = (history.appends.iter())
            .filter(|call| is_in(&call.invoked) && call.responded != Stamp::NEVER)
            .map(|call| call.responded.0 - call.invoked.0)
            .collect();
        latencies.sort_unstable();
        let reads = history.reads.iter().filter(|call| is_in(&call.invoked)).count();
        let versions = history.versions.iter().filter(|call| is_in(&call.invoked)).count();
        let seconds = (calm.until.0 - calm.from.0).div_ceil(1_000_000_000).max(1);
        let operations = (latencies.len() + reads + versions) as u64 / seconds;
        let at = |percent: usize| {
            let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
            Duration::from_nanos(latencies.get(index).copied().unwrap_or(0))
        };
        p99s.push(at(99));
        println!(
            "{:>6}  {:<18} {operations:>12} {:>8} µs {:>4} ms {:>3} MiB {:>10} ms",
            start.elapsed().as_secs() / 60,
            calm.then.to_string(),
            at(50).as_micros(),
            at(99).as_millis(),
            calm.resident_bytes >> 20,
            calm.served_after.as_millis(),
        );
    }
    p99s.sort_unstable();
    let resident_bytes = calms.iter().map(|calm| calm.resident_bytes).max()?;
    Some(Level { resident_bytes, p99: *p99s.get(p99s.len() / 2)? })
}

fn must_be_flat(levels: &[Level]) -> Result<()> {
    let (Some(first), Some(last)) = (levels.first(), levels.last()) else { return Ok(()) };
    let mib = |level: &Level| level.resident_bytes >> 20;
    println!(
        "{} logs: memory {} MiB in the first, {} MiB in the last; p99 {:?} and {:?}",
        levels.len(),
        mib(first),
        mib(last),
        first.p99,
        last.p99
    );
    #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes in memory")]
    let growth = last.resident_bytes as f64 / first.resident_bytes as f64;
    ensure!(growth < GROWTH_MAX, "memory has grown {growth:.2} times");
    Ok(())
}
