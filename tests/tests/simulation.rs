//! The simulator itself: it is deterministic, it reaches every state, it finds every seeded bug,
//! and a short run of it is clean. The long run is `simulate` (see CONTRIBUTING.md).

use quipu_tests::sim::defect::Defect;
use quipu_tests::sim::figures::Figures;
use quipu_tests::sim::run::{Mishaps, Plan, run};

fn figures(plan: Plan) -> Figures {
    run(plan).unwrap_or_else(|violation| {
        panic!("seed {}: {}\n{}", violation.seed, violation.problem, violation.history.join("\n"))
    })
}

fn mishaps(seed: u64) -> Mishaps {
    if seed.is_multiple_of(2) { Mishaps::CrashesAndFaults } else { Mishaps::Crashes }
}

#[test]
fn one_seed_is_one_run() {
    for seed in 1..40 {
        let plan = Plan { seed, mishaps: mishaps(seed), defect: None };
        assert_eq!(figures(plan), figures(plan), "seed {seed}");
    }
}

#[test]
fn a_short_run_is_clean_and_reaches_every_state() {
    let mut total = Figures::default();
    for seed in 1_000..1_600 {
        total.add(&figures(Plan { seed, mishaps: mishaps(seed), defect: None }));
    }
    assert!(total.torn_tails > 0 && total.finished_rolls > 0 && total.clean_closes > 0);
    assert!(total.damage_reported > 0 && total.faults_met > 0);
    for moment in [
        "running: nothing",
        "running: group",
        "running: several groups",
        "running: SEAL",
        "running: segment header",
        "running: zeros",
        "running: WITNESS",
        "running: index file",
        "running: creating a file",
        "running: syncing the folder",
        "opening: zeros",
        "opening: START",
        "opening: segment header",
        "opening: index file",
        "opening: copy of a torn tail",
        "opening: LOG",
        "closed: nothing",
    ] {
        assert!(total.moments.contains_key(moment), "{moment} was never hit: {:?}", total.moments);
    }
}

#[test]
fn every_seeded_bug_that_shows_soon_is_found() {
    let slow = ["no-salt", "no-witness", "skips-directory-sync", "skips-file-sync"];
    for (name, defect) in Defect::ALL.into_iter().filter(|(name, _)| !slow.contains(name)) {
        let breaks = |seed| run(Plan { seed, mishaps: mishaps(seed), defect: Some(defect) });
        assert!((1..2_000).any(|seed| breaks(seed).is_err()), "{name} was not noticed");
    }
}
