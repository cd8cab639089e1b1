//! A network that fails in every way, and peers that mean no good: nothing acknowledged is lost,
//! memory stays bounded, and whoever comes when it is over is served within seconds.
#![expect(clippy::disallowed_methods, reason = "faults last for a while, and it says how long")]

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::hostile;
use super::namespace::Namespace;
use super::site::{Disk, Setup, Site};
use super::tally::Tally;
use super::wire::{Mode, Wire};
use crate::history::journal::History;

/// What the server may have in use: its budgets (128 MiB of appends, 128 MiB of answers, 64 MiB of
/// queue, 64 MiB of tail) and as much as one of them for all else.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;
/// A log is checked, and a new one begun, after so long.
const A_LOG: Duration = Duration::from_secs(45);
const CROWD: u64 = 10_000;
/// Descriptors that something else than the crowd needs here.
const OTHER_DESCRIPTORS: u64 = 1_000;

/// One way in which a network fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Flap,
    HalfOpen,
    OneByteASecond,
    Resets,
    Closed,
    Crowd,
    Storm,
    SlowPeers,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::Flap,
        Self::Resets,
        Self::HalfOpen,
        Self::Crowd,
        Self::OneByteASecond,
        Self::Closed,
        Self::Storm,
        Self::SlowPeers,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flap => "flapping",
            Self::HalfOpen => "half-open",
            Self::OneByteASecond => "one byte a second",
            Self::Resets => "resets",
            Self::Closed => "refusing",
            Self::Crowd => "10,000 connections",
            Self::Storm => "reconnect storm",
            Self::SlowPeers => "slow peers",
        })
    }
}

/// Faults on a wire for so long.
pub fn run(setup: &Setup, time: Duration, seed: u64) -> Result<Tally> {
    allow_many_connections();
    let start = Instant::now();
    let mut tally = Tally::new("network");
    let mut faults = Fault::ALL.into_iter().cycle();
    while start.elapsed() < time {
        let seed = seed + tally.runs;
        let mut site = Site::closed(setup, Disk::folder(setup)?, seed)?;
        // In every other log there is room for the whole crowd.
        site.command.connections_max = if site.rng.bool() { 2_000 } else { 12_000 };
        site.start()?;
        let wire = Wire::to(&site.runtime, site.server_address())?;
        wire.address().clone_into(&mut site.address);
        site.open_doors();
        let begun = Instant::now();
        while begun.elapsed() < A_LOG && start.elapsed() < time {
            let fault = faults.next().context("they never end")?;
            if let Err(error) = strike(&mut site, &wire, fault, &mut tally) {
                return Err(site.keep(&History::default(), error.context(fault.to_string())));
            }
            tally.runs += 1;
        }
        look_at_memory(&mut site, &mut tally)?;
        tally.close(site)?;
    }
    Ok(tally)
}

/// A cable that is pulled and plugged in, for so long, between two hosts.
pub fn run_between_hosts(setup: &Setup, time: Duration, seed: u64) -> Result<Tally> {
    let start = Instant::now();
    let mut tally = Tally::new("network, two hosts");
    let namespace = Namespace::new()?;
    while start.elapsed() < time {
        let mut site = Site::closed(setup, Disk::folder(setup)?, seed + tally.runs)?;
        site.command.within = namespace.within();
        site.command.host.clone_from(&namespace.host);
        site.start()?;
        site.address = format!("quipu://{}", site.server_address());
        site.open_doors();
        let begun = Instant::now();
        while begun.elapsed() < A_LOG && start.elapsed() < time {
            site.wait(200..1_000);
            if let Err(error) = pull_the_cable(&mut site, &namespace) {
                return Err(site.keep(&History::default(), error.context("a pulled cable")));
            }
            tally.runs += 1;
        }
        look_at_memory(&mut site, &mut tally)?;
        tally.close(site)?;
    }
    Ok(tally)
}

fn pull_the_cable(site: &mut Site, namespace: &Namespace) -> Result<()> {
    for _ in 0..site.rng.u8(1..5) {
        namespace.plug(false)?;
        site.wait(10..1_500);
        namespace.plug(true)?;
        site.wait(10..200);
    }
    site.heal();
    site.must_serve()
}

/// One fault, for some seconds, and what must hold when it is over.
pub fn strike(site: &mut Site, wire: &Wire, fault: Fault, tally: &mut Tally) -> Result<()> {
    site.wait(200..800);
    let server = site.server_address();
    let time = Duration::from_millis(site.rng.u64(2_000..4_000));
    match fault {
        Fault::Flap => flap(&mut site.rng, wire, time),
        Fault::HalfOpen => {
            wire.set(Mode::Silent);
            std::thread::sleep(time);
            // What was held is heard after all, or never.
            if site.rng.bool() {
                wire.cut(site.rng.bool());
            }
        }
        Fault::OneByteASecond => {
            wire.set(Mode::Trickle);
            std::thread::sleep(time);
            wire.cut(false);
        }
        Fault::Resets => {
            let start = Instant::now();
            while start.elapsed() < time {
                wire.set(Mode::ResetAfter(site.rng.u64(1..20_000)));
                wire.cut(true);
                site.wait(20..200);
            }
            wire.cut(true);
        }
        Fault::Closed => {
            wire.set(Mode::Closed);
            wire.cut(true);
            std::thread::sleep(time);
        }
        Fault::Crowd => crowd(site, &server, tally)?,
        Fault::Storm => {
            let address = format!("quipu://{server}");
            let connections = site.runtime.block_on(hostile::storm(&address, 200, time));
            ensure!(connections > 0, "nobody of the storm was let in");
        }
        Fault::SlowPeers => {
            let slow = hostile::slow(&server, 100, time);
            let sent = site.runtime.block_on(slow);
            ensure!(sent > 0, "no slow peer was listened to");
        }
    }
    look_at_memory(site, tally)?;
    wire.set(Mode::Through);
    site.heal();
    site.must_serve()
}

fn flap(rng: &mut Rng, wire: &Wire, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        wire.cut(rng.bool());
        std::thread::sleep(Duration::from_millis(rng.u64(20..200)));
    }
}

fn crowd(site: &mut Site, server: &str, tally: &mut Tally) -> Result<()> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = CROWD.min(limit.saturating_sub(OTHER_DESCRIPTORS));
    let server = server.to_owned();
    let hold = Duration::from_secs(2);
    let connections = usize::try_from(most)?;
    let holding =
        site.runtime.spawn(async move { hostile::crowd(&server, connections, hold).await });
    while !holding.is_finished() {
        look_at_memory(site, tally)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let held = site.runtime.block_on(holding)?;
    ensure!(held as u64 * 10 >= most * 9, "only {held} of {most} connections were made");
    Ok(())
}

fn look_at_memory(site: &mut Site, tally: &mut Tally) -> Result<()> {
    let bytes = site.server()?.resident_bytes()?;
    tally.resident_bytes = tally.resident_bytes.max(bytes);
    ensure!(bytes < RESIDENT_BYTES_MAX, "the server has {} MiB in use", bytes >> 20);
    Ok(())
}

/// Each connection of a crowd is a descriptor here, and one in the server.
fn allow_many_connections() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).ok();
}
