//! The power of a file system goes off under a server: what was acknowledged is there when it is
//! back. The clients, who are elsewhere, know what was acknowledged.

use anyhow::Result;

use super::loop_disk::FileSystem;
use super::site::{Disk, Setup, Site};
use super::tally::Tally;
use crate::history::journal::History;

/// Power cuts of one disk, before it is checked.
const A_DISK: u64 = 10;
const DISK_BYTES: u64 = 1 << 30;

/// Cuts the power so many times.
pub fn run(setup: &Setup, kind: FileSystem, cuts: u64, seed: u64) -> Result<Tally> {
    let mut tally = Tally::new(&format!("power cuts, {kind}"));
    while tally.runs < cuts {
        let seed = seed + tally.runs;
        let mut site = Site::open(setup, Disk::of(kind, setup, DISK_BYTES)?, seed)?;
        site.open_doors();
        let due = (cuts - tally.runs).min(A_DISK);
        for number in 0..due {
            site.wait(20..500);
            if let Err(error) = cut(&mut site) {
                let error = error.context(format!("power cut {number}"));
                return Err(site.keep(&History::default(), error));
            }
        }
        tally.close(site)?;
        tally.runs += due;
    }
    Ok(tally)
}

/// One power cut under load; sometimes another one while the server starts.
pub fn cut(site: &mut Site) -> Result<()> {
    site.loop_disk()?.cut_power()?;
    // A machine without power does nothing; this one sees every write fail for a moment.
    site.wait(0..20);
    site.kill()?;
    site.loop_disk()?.mount_again()?;
    if site.rng.u8(..5) == 0 {
        let mut opening = site.command.begin()?;
        site.wait_while_it_opens();
        site.loop_disk()?.cut_power()?;
        opening.kill()?;
        site.loop_disk()?.mount_again()?;
    }
    site.start()?;
    site.must_serve()
}
