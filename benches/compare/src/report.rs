//! The tables, in Markdown, which also a terminal can show.

use std::fmt::Write;

use crate::results::{Medians, Results, median};
use crate::systems::System;
use crate::systems::quipu::DiskRun;
use crate::workload::Workload;

const HEADINGS: [&str; 8] = [
    "workload",
    "system",
    "events/s (least to most)",
    "p50",
    "p99",
    "CPU s for 100,000 events",
    "bytes on disk an event",
    "speed against Quipu",
];

/// Everything that is measured: the machine, the comparison, the ceilings, the systems.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = format!(
        "Quipu of commit `{}`, with `{}`, on {}.\n\n",
        results.commit,
        results.command,
        results.machine.text()
    );
    text.push_str(&aligned(&comparison(results)));
    text.push_str("\n**Bold**: ahead of Quipu (embedded systems of Quipu embedded).\n");
    text.push_str(&behind(results));
    for failed in &results.failed {
        let (title, reason) = (failed.system.title(), failed.reason.replace('\n', " "));
        writeln!(text, "Not measured: {title}: {reason}.").expect("a string takes text");
    }
    if !results.disk.is_empty() {
        text.push_str("\nThe bare disk in the same session, medians:\n\n");
        text.push_str(&aligned(&disk(&results.disk)));
    }
    text.push('\n');
    let mut systems = vec![["system", "version", "settings"].map(str::to_owned).to_vec()];
    systems.extend(
        results
            .systems
            .iter()
            .map(|it| vec![it.system.title().to_owned(), it.version.clone(), it.settings.clone()]),
    );
    text.push_str(&plain(&systems));
    text
}

fn comparison(results: &Results) -> Vec<Vec<String>> {
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    for workload in Workload::ALL {
        let all = results.medians(workload);
        let mut title = workload.title();
        for row in &all {
            let quipu = row.system.rivals().and_then(|quipu| find(&all, quipu));
            rows.push(cells(std::mem::take(&mut title), workload, row, quipu));
        }
    }
    rows
}

fn find(all: &[Medians], system: System) -> Option<&Medians> {
    all.iter().find(|it| it.system == system)
}

fn cells(title: &str, workload: Workload, row: &Medians, quipu: Option<&Medians>) -> Vec<String> {
    let rate = |rate: f64| count(rate);
    let spread = match workload {
        Workload::Live => "at 200/s".to_owned(),
        _ => format!(
            "{} ({} to {})",
            bold(rate(row.events_per_s), row.events_per_s, quipu.map(|it| it.events_per_s), false),
            rate(row.least_per_s),
            rate(row.most_per_s)
        ),
    };
    let less = |figure: Option<f64>, other: Option<f64>, text: fn(f64) -> String| {
        figure.map_or("-".to_owned(), |figure| bold(text(figure), figure, other, true))
    };
    let cpu_seconds = Some(row.cpu_seconds).filter(|_| workload != Workload::Live);
    vec![
        title.to_owned(),
        row.system.title().to_owned(),
        spread,
        less(row.p50_us, quipu.and_then(|it| it.p50_us), latency),
        less(row.p99_us, quipu.and_then(|it| it.p99_us), latency),
        less(cpu_seconds, quipu.map(|it| it.cpu_seconds), |it| format!("{it:.2}")),
        less(row.bytes_per_event, quipu.and_then(|it| it.bytes_per_event), count),
        ratio(workload, row, quipu),
    ]
}

fn ratio(workload: Workload, row: &Medians, quipu: Option<&Medians>) -> String {
    let ratio = speed_ratio(workload, row, quipu);
    ratio.map_or_else(String::new, |ratio| {
        let text = format!("{ratio:.2}×");
        if ratio > 1.0 { format!("**{text}: Quipu is behind**") } else { text }
    })
}

fn speed_ratio(workload: Workload, row: &Medians, quipu: Option<&Medians>) -> Option<f64> {
    Some(row.speed(workload)? / quipu?.speed(workload)?)
}

/// In words, so that nobody has to look for it.
fn behind(results: &Results) -> String {
    let (mut compared, mut behind) = (0, Vec::new());
    for workload in Workload::ALL {
        let all = results.medians(workload);
        behind.extend(all.iter().filter_map(|row| {
            let quipu = row.system.rivals().and_then(|quipu| find(&all, quipu));
            let ratio = speed_ratio(workload, row, quipu)?;
            compared += 1;
            (ratio > 1.0)
                .then(|| format!("{} ({}, {ratio:.2}×)", row.system.title(), workload.title()))
        }));
    }
    if compared == 0 {
        return String::new();
    }
    if behind.is_empty() {
        return "No rival's median speed is ahead of Quipu's in any workload.\n".to_owned();
    }
    format!("Faster than Quipu: {}.\n", behind.join("; "))
}

fn disk(runs: &[DiskRun]) -> Vec<Vec<String>> {
    let headings = ["write", "in flight", "space zeroed before", "p50", "zeroing included", "p50"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    let mut kinds: Vec<_> = runs.iter().map(|run| (run.write_bytes, run.in_flight)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for (write_bytes, in_flight) in kinds {
        let mut row = vec![format!("{} KiB", write_bytes / 1024), in_flight.to_string()];
        for space in ["burst", "zeroed"] {
            let same = |run: &&DiskRun| {
                (run.write_bytes, run.in_flight, &*run.space) == (write_bytes, in_flight, space)
            };
            let runs: Vec<_> = runs.iter().filter(same).collect();
            let rate = median(runs.iter().map(|run| run.mb_per_s).collect());
            let p50 = median(runs.iter().map(|run| as_f64(run.latency_us.p50)).collect());
            row.push(rate.map_or("-".to_owned(), |rate| format!("{} MB/s", count(rate))));
            row.push(p50.map_or("-".to_owned(), latency));
        }
        rows.push(row);
    }
    rows
}

#[expect(clippy::cast_precision_loss, reason = "latencies are shown with three digits")]
fn as_f64(micros: u64) -> f64 {
    micros as f64
}

/// Bold where it is better than Quipu's.
fn bold(text: String, figure: f64, quipu: Option<f64>, less_is_better: bool) -> String {
    let is_ahead = |quipu: f64| if less_is_better { figure < quipu } else { figure > quipu };
    if quipu.is_some_and(is_ahead) { format!("**{text}**") } else { text }
}

/// A whole number with its thousands set apart.
pub(crate) fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A latency in microseconds, as people read it.
pub(crate) fn latency(micros: f64) -> String {
    match micros {
        ..1_000.0 => format!("{micros:.0} µs"),
        ..100_000.0 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.0} ms", micros / 1e3),
    }
}

fn plain(rows: &[Vec<String>]) -> String {
    lines(rows, |_, cell| cell.to_owned())
}

fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    lines(rows, |column, cell| format!("{cell:width$}", width = width(column).unwrap_or(0)))
}

fn lines(rows: &[Vec<String>], cell: impl Fn(usize, &str) -> String) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().enumerate().map(|(at, it)| cell(at, it)).collect();
        writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes text");
        if number == 0 {
            writeln!(text, "|{}", " --- |".repeat(row.len())).expect("a string takes text");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{figures, results};

    #[test]
    fn where_quipu_is_behind_the_table_says_so() {
        let text = markdown(&results(&[
            (System::QuipuServer, Workload::OneWriter, figures(20_000, 100)),
            (System::UmaDb, Workload::OneWriter, figures(10_000, 200)),
            (System::RedisStreams, Workload::OneWriter, figures(30_000, 150)),
        ]));
        assert!(text.contains("| 0.50× "), "{text}");
        assert!(text.contains("| **15,000** (15,000 to 15,000)"), "{text}");
        assert!(text.contains("**1.50×: Quipu is behind**"), "{text}");
        let line = "Faster than Quipu: Redis stream, no version check (one writer, one event at a \
                    time, 1.50×).";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn without_quipu_nothing_is_said_of_who_is_ahead() {
        let text = markdown(&results(&[(System::UmaDb, Workload::OneWriter, figures(1, 2))]));
        assert!(!text.contains("rival's") && !text.contains("Faster"), "{text}");
    }

    #[test]
    fn of_deliveries_the_sooner_is_the_faster() {
        let text = markdown(&results(&[
            (System::QuipuServer, Workload::Live, figures(1_000, 100)),
            (System::Postgres, Workload::Live, figures(1_000, 400)),
        ]));
        assert!(text.contains("| 0.25× "), "{text}");
        assert!(text.contains("No rival's median speed is ahead"), "{text}");
    }

    #[test]
    fn numbers_are_grouped_and_latencies_scaled() {
        assert_eq!([count(999.0), count(1_234_567.4)], ["999", "1,234,567"]);
        assert_eq!(
            [latency(250.0), latency(2_500.0), latency(120_000.0)],
            ["250 µs", "2.50 ms", "120 ms"]
        );
    }
}
