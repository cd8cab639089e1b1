//! All that a session of runs has measured, as it is kept in a file and shown again from there.

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::machine::Machine;
use crate::systems::System;
use crate::systems::quipu::DiskRun;
use crate::workload::Workload;

/// One session.
#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// What to call to measure the same again.
    pub(crate) command: String,
    /// Of Quipu's sources.
    pub(crate) commit: String,
    pub(crate) systems: Vec<Described>,
    pub(crate) measured: Vec<Measured>,
    pub(crate) disk: Vec<DiskRun>,
    pub(crate) failed: Vec<Failed>,
}

/// How a system was run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Described {
    pub(crate) system: System,
    pub(crate) version: String,
    pub(crate) settings: String,
}

/// One run of one system under one workload.
#[derive(Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) run: u64,
    pub(crate) system: System,
    pub(crate) workload: Workload,
    pub(crate) figures: Figures,
}

/// What could not be measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) system: System,
    pub(crate) reason: String,
}

/// The medians of a system's runs under one workload.
pub(crate) struct Medians {
    pub(crate) system: System,
    pub(crate) events_per_s: f64,
    pub(crate) least_per_s: f64,
    pub(crate) most_per_s: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// Processor seconds for 100,000 events.
    pub(crate) cpu_seconds: f64,
    /// None also where the space that the events take had been allocated before.
    pub(crate) bytes_per_event: Option<f64>,
}

impl Results {
    /// The medians under a workload, in the order of the table.
    pub(crate) fn medians(&self, workload: Workload) -> Vec<Medians> {
        let of_system = |system| {
            let runs = self.measured.iter();
            let runs = runs.filter(|it| (it.workload, it.system) == (workload, system));
            Medians::of(system, &runs.map(|it| &it.figures).collect::<Vec<_>>())
        };
        System::ALL.into_iter().filter_map(of_system).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures are shown with a few digits")]
impl Medians {
    fn of(system: System, runs: &[&Figures]) -> Option<Self> {
        let each = |figure: &dyn Fn(&Figures) -> f64| runs.iter().map(|it| figure(it)).collect();
        let some = |figure: &dyn Fn(&Figures) -> Option<f64>| {
            median(runs.iter().filter_map(|it| figure(it)).collect())
        };
        let rates: Vec<f64> = each(&|it| it.events as f64 / it.seconds);
        Some(Self {
            system,
            events_per_s: median(rates.clone())?,
            least_per_s: rates.iter().copied().fold(f64::INFINITY, f64::min),
            most_per_s: rates.iter().copied().fold(0.0, f64::max),
            p50_us: some(&|it| it.latency_us.map(|latency| latency.p50 as f64)),
            p99_us: some(&|it| it.latency_us.map(|latency| latency.p99 as f64)),
            cpu_seconds: median(each(&|it| it.cpu_seconds * 1e5 / it.events as f64))?,
            bytes_per_event: some(&|it| Some(it.disk_bytes? as f64 / it.events as f64))
                .filter(|bytes| *bytes > 0.0),
        })
    }

    /// How fast it is under a workload, for ratios: a rate, or the inverse of a latency.
    pub(crate) fn speed(&self, workload: Workload) -> Option<f64> {
        match workload {
            Workload::Live => self.p50_us.map(f64::recip),
            _ => Some(self.events_per_s),
        }
    }
}

/// The middle one; of an even number the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], upper)
    } else {
        upper
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::figures::Percentiles;

    pub(crate) fn figures(events: u64, p50: u64) -> Figures {
        let latency_us = Some(Percentiles { p50, p99: 2 * p50, p999: 3 * p50, max: 4 * p50 });
        Figures {
            events,
            seconds: 2.0,
            latency_us,
            cpu_seconds: 1.0,
            disk_bytes: Some(events * 10),
        }
    }

    pub(crate) fn results(measured: &[(System, Workload, Figures)]) -> Results {
        let measured = measured.iter().cloned().map(|(system, workload, figures)| Measured {
            run: 1,
            system,
            workload,
            figures,
        });
        Results {
            machine: Machine::this(std::path::Path::new("/")),
            command: "benches/compare/run".to_owned(),
            commit: "0123abc".to_owned(),
            systems: Vec::new(),
            measured: measured.collect(),
            disk: Vec::new(),
            failed: Vec::new(),
        }
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn every_figure_has_its_own_median() {
        let runs = [(100, 30), (300, 10), (200, 20)]
            .map(|(events, p50)| (System::Fjall, Workload::OneWriter, figures(events, p50)));
        let medians = results(&runs).medians(Workload::OneWriter);
        let [fjall] = &medians[..] else { panic!("one system was measured") };
        assert_eq!((fjall.least_per_s, fjall.events_per_s, fjall.most_per_s), (50.0, 100.0, 150.0));
        assert_eq!((fjall.p50_us, fjall.p99_us), (Some(20.0), Some(40.0)));
        assert_eq!((fjall.cpu_seconds, fjall.bytes_per_event), (500.0, Some(10.0)));
        assert!(results(&runs).medians(Workload::CatchUp).is_empty());
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let kept = results(&[(System::UmaDb, Workload::Live, figures(1, 2))]);
        let text = serde_json::to_string(&kept).unwrap();
        let read: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
