//! A server under load that is killed, stopped for a while, and killed again while it starts; and
//! a client that is killed.

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::site::{Disk, Setup, Site};
use super::tally::Tally;
use crate::history::journal::History;

/// Kills of one log, before it is checked.
const A_LOG: u64 = 10;

/// Kills the server so many times.
pub fn run(setup: &Setup, kills: u64, seed: u64) -> Result<Tally> {
    let mut tally = Tally::new("kills");
    while tally.runs < kills {
        let seed = seed + tally.runs;
        let mut site = Site::open(setup, Disk::folder(setup)?, seed)?;
        site.open_doors();
        site.start_process()?;
        let due = (kills - tally.runs).min(A_LOG);
        for number in 0..due {
            let killed = kill(&mut site);
            if let Err(error) = killed {
                let error = error.context(format!("kill {number}"));
                return Err(site.keep(&History::default(), error));
            }
        }
        tally.close(site)?;
        tally.runs += due;
    }
    Ok(tally)
}

/// One kill, at a random moment, with what may come before and after it.
pub fn kill(site: &mut Site) -> Result<()> {
    site.wait(20..400);
    match site.rng.u8(..10) {
        // It stands still, and goes on, before it is killed.
        0 | 1 => {
            site.server()?.signal(Signal::STOP)?;
            site.wait(20..600);
            site.server()?.signal(Signal::CONT)?;
            site.wait(1..100);
        }
        // It stands still, and is killed.
        2 => {
            site.server()?.signal(Signal::STOP)?;
            site.wait(20..300);
        }
        3 | 4 => {
            let process = site.process.as_mut().context("there is such a client")?;
            process.kill_and_start_again()?;
            site.wait(0..200);
        }
        _ => {}
    }
    site.kill()?;
    if site.rng.u8(..5) == 0 {
        let mut opening = site.command.begin()?;
        site.wait_while_it_opens();
        opening.kill()?;
    }
    site.start()?;
    site.must_serve()
}
