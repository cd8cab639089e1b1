//! A disk that fills up under a server: appends are refused cleanly while reads go on, and taken
//! again when there is space; also through a restart while it is full, and where not the disk but
//! what a file or a folder may hold is at its end.
#![expect(clippy::disallowed_methods, reason = "it waits for a disk to be full")]
#![expect(clippy::print_stdout, reason = "what cannot be tried is said loudly")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, prlimit};

use super::loop_disk::FileSystem;
use super::site::{Disk, Setup, Site};
use super::tally::Tally;
use crate::history::calls::Outcome;
use crate::history::journal::History;

const DISK_BYTES: u64 = 256 << 20;
/// How long the space that is left may last.
const FULL_WITHIN: Duration = Duration::from_mins(1);
/// A system that says so with a signal would end the server: as a host that means it sets it up.
const WITHOUT_SIGNAL: [&str; 4] = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];

/// How the space goes, and comes back.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It is taken away, and given back while the server runs.
    Running,
    /// The server is ended and started again while the disk is full.
    Restarted,
    /// A file may not become any larger.
    FileSize,
    /// The log's folder may not.
    Quota,
}

impl Way {
    fn disk(self, setup: &Setup) -> Result<Disk> {
        let kind = match self {
            Self::Quota => FileSystem::Btrfs,
            _ => FileSystem::Ext4,
        };
        Disk::of(kind, setup, DISK_BYTES)
    }
}

/// Fills so many disks, each of them once in one of the ways.
pub fn run(setup: &Setup, disks: u64, seed: u64) -> Result<Tally> {
    let ways = ways(setup);
    let mut tally = Tally::new("full disks");
    for (seed, way) in (seed..seed + disks).zip(ways.iter().cycle()) {
        let mut site = Site::closed(setup, way.disk(setup)?, seed)?;
        if let Err(error) = fill(&mut site, *way) {
            return Err(site.keep(&History::default(), error.context(format!("{way:?}"))));
        }
        tally.close(site)?;
        tally.runs += 1;
    }
    Ok(tally)
}

/// Those that there are here: a quota takes a file system that has some.
fn ways(setup: &Setup) -> Vec<Way> {
    let mut ways = vec![Way::Running, Way::Restarted, Way::FileSize];
    match Way::Quota.disk(setup) {
        Ok(_) => ways.push(Way::Quota),
        Err(error) => println!("!!! SKIPPED: no disk is full by a quota: {error:#} !!!"),
    }
    ways
}

fn fill(site: &mut Site, way: Way) -> Result<()> {
    if let Way::FileSize = way {
        site.command.within = WITHOUT_SIGNAL.map(str::to_owned).to_vec();
    }
    site.start()?;
    site.address = format!("quipu://{}", site.server_address());
    site.open_doors();
    site.wait(20..300);
    match way {
        Way::Running => fill_while_it_runs(site),
        Way::Restarted => restart_while_full(site),
        Way::FileSize => limit_file_size(site),
        Way::Quota => limit_folder(site),
    }
}

/// Fills the disk under the server that runs, and gives the space back to it.
pub fn fill_while_it_runs(site: &mut Site) -> Result<()> {
    let but = site.rng.u64(..4 << 20);
    site.loop_disk()?.fill(but)?;
    wait_until_full(site)?;
    site.wait(0..300);
    site.end().context("a read of a full log")?;
    ensure!(site.server()?.is_running()?, "the server has ended");
    site.loop_disk()?.free()?;
    site.heal();
    site.must_serve()
}

/// Once there is space, a log that had none for its next segment's file is opened again.
fn restart_while_full(site: &mut Site) -> Result<()> {
    let but = site.rng.u64(..4 << 20);
    site.loop_disk()?.fill(but)?;
    wait_until_full(site)?;
    site.kill()?;
    site.loop_disk()?.fill(0)?;
    site.start().context("starting on a full disk")?;
    site.end().context("a read of a full log that was opened")?;
    ensure!(site.server()?.is_running()?, "the server has ended");
    site.loop_disk()?.free()?;
    site.heal();
    if !site.serves_within(Duration::from_secs(2))? {
        site.kill()?;
        site.start()?;
    }
    site.must_serve()
}

/// No file may be larger than something less than a segment: a write is short, the next refused.
fn limit_file_size(site: &mut Site) -> Result<()> {
    let bytes = site.rng.u64(4096..site.command.segment_bytes);
    let pid = Some(site.server()?.pid());
    let limit = |current| {
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None })?;
        Ok(())
    };
    limit(Some(bytes))?;
    refuse_until(site, |_| limit(None))
}

/// The folder may hold little more than it does. Btrfs writes to a new place what is written again:
/// it may refuse a write into space that was prepared, too.
fn limit_folder(site: &mut Site) -> Result<()> {
    let more = site.rng.u64(..4 << 20);
    site.loop_disk()?.limit(Some(more))?;
    refuse_until(site, |site| site.loop_disk()?.limit(None))
}

/// Appends are refused and reads go on, until the limit is lifted; then the log serves.
fn refuse_until(site: &mut Site, lift: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
    wait_until_full(site)?;
    site.end().context("a read while nothing can be written")?;
    ensure!(site.server()?.is_running()?, "the server has ended");
    lift(site)?;
    site.heal();
    // A group of which a part was refused has failed the log, until it is opened again.
    if !site.serves_within(Duration::from_secs(2))? {
        site.kill()?;
        site.start()?;
    }
    site.must_serve()
}

fn wait_until_full(site: &mut Site) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < FULL_WITHIN {
        match site.probe(Duration::from_secs(5))? {
            Outcome::Failed(_) => return Ok(()),
            Outcome::Stored { .. } => std::thread::sleep(Duration::from_millis(10)),
            // The log has failed; it says more at the next try.
            Outcome::Unknown => std::thread::sleep(Duration::from_millis(50)),
            other => anyhow::bail!("a probe was told {other:?}"),
        }
    }
    anyhow::bail!("no append was refused within {FULL_WITHIN:?}")
}
