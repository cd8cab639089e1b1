//! The simulator itself: it is deterministic, it finds a disk that lies, and a short run of it is
//! clean. The long run is `simulate` (see CONTRIBUTING.md).

use quipu_tests::sim::disk::Fault;
use quipu_tests::sim::run::{Figures, Plan, run};

fn figures(plan: Plan) -> Figures {
    run(plan).unwrap_or_else(|violation| {
        panic!("seed {}: {}\n{}", violation.seed, violation.problem, violation.history.join("\n"))
    })
}

#[test]
fn one_seed_is_one_run() {
    for seed in 1..40 {
        let plan = Plan { seed, faults: seed % 2 == 0, ..Plan::default() };
        assert_eq!(figures(plan), figures(plan), "seed {seed}");
    }
}

#[test]
fn a_short_run_is_clean_and_reaches_every_state() {
    let mut crashes_in_recovery = 0;
    let (mut torn, mut rolls, mut clean, mut damage) = (0, 0, 0, 0);
    for seed in 1_000..1_300 {
        let run = figures(Plan { seed, faults: seed % 3 == 0, ..Plan::default() });
        crashes_in_recovery += run.crashes_in_recovery;
        torn += run.torn_tails;
        rolls += run.finished_rolls;
        clean += run.clean_closes;
        damage += run.damage_reported;
    }
    assert!(crashes_in_recovery > 0 && torn > 0 && rolls > 0 && clean > 0 && damage > 0);
}

#[test]
fn a_disk_that_lies_about_flushes_is_found_out() {
    let lying = |seed| Plan { seed, fault: Fault::LyingFlush, ..Plan::default() };
    assert!((1..50).any(|seed| run(lying(seed)).is_err()));
}

#[test]
fn a_folder_that_is_not_synced_is_found_out() {
    let forgetful = |seed| Plan { seed, fault: Fault::NoDirectorySync, ..Plan::default() };
    assert!((1..400).any(|seed| run(forgetful(seed)).is_err()));
}

#[test]
fn without_a_witness_damage_is_cut_in_silence_and_that_is_found_out() {
    let unwitnessed = |seed| Plan { seed, faults: true, no_witness: true, ..Plan::default() };
    let violation = (1..2_000).find_map(|seed| run(unwitnessed(seed)).err());
    let violation = violation.expect("damage to the last group is cut in silence sometimes");
    assert!(violation.problem.contains("in silence"), "{}", violation.problem);
}
