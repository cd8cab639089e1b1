//! Every operation of a run fails once, in every way: the n-th one, and no other.

use super::disk::IoFault;
use super::figures::Figures;
use super::run::{Mishaps, Plan, Violation, run};

/// What a sweep did.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Operations of the run.
    pub operations: u64,
    /// Runs, each with one fault or one power cut.
    pub runs: u64,
    pub figures: Figures,
}

/// Sweeps the run of a seed.
pub fn sweep(seed: u64) -> Result<Swept, Box<Violation>> {
    let undisturbed = Mishaps::OnePowerCut(u64::MAX);
    let whole = run(Plan { seed, mishaps: undisturbed, defect: None })?;
    let mut swept = Swept { operations: whole.operations, ..Swept::default() };
    for n in 0..whole.operations {
        let faults = IoFault::ALL.into_iter().map(|fault| Mishaps::OneFault(n, fault));
        let cut = (n < whole.changes).then_some(Mishaps::OnePowerCut(n));
        for mishaps in faults.chain(cut) {
            let figures = run(Plan { seed, mishaps, defect: None })?;
            swept.runs += 1;
            swept.figures.add(&figures);
        }
    }
    Ok(swept)
}
