//! The comparison as bars, in one SVG.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{count, latency};
use crate::results::{Medians, Results};
use crate::systems::{Maker, System};
use crate::workload::Workload;

const WIDTH: u32 = 900;
const BARS_FROM: i32 = 310;
const BARS_TO: i32 = 760;
const ROW: i32 = 22;
const BAR: i32 = 14;
const TITLE: i32 = 34;
const MARGIN: i32 = 14;

const INK: RGBColor = RGBColor(40, 40, 40);
const OF_QUIPU: RGBColor = RGBColor(35, 100, 170);
const OF_OTHERS: RGBColor = RGBColor(165, 165, 165);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws it; what stores nothing is left out.
pub(crate) fn svg(results: &Results) -> Result<String> {
    let panels: Vec<(Workload, Vec<Medians>)> = Workload::ALL
        .into_iter()
        .map(|workload| (workload, results.medians(workload)))
        .map(|(workload, all)| {
            (workload, all.into_iter().filter(|it| it.system != System::QuipuEcho).collect())
        })
        .filter(|(_, systems): &(_, Vec<_>)| !systems.is_empty())
        .collect();
    let height: i32 = panels.iter().map(|(_, systems)| height_of(systems)).sum::<i32>() + MARGIN;
    let mut text = String::new();
    {
        let size = (WIDTH, height.unsigned_abs());
        let canvas = SVGBackend::with_string(&mut text, size).into_drawing_area();
        canvas.fill(&WHITE).map_err(drawing)?;
        let mut top = 0;
        for (workload, systems) in &panels {
            panel(&canvas, top, *workload, systems)?;
            top += height_of(systems);
        }
        canvas.present().map_err(drawing)?;
    }
    Ok(text)
}

fn height_of(systems: &[Medians]) -> i32 {
    TITLE + ROW * i32::try_from(systems.len()).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "pixels are whole and few")]
fn panel(canvas: &Canvas<'_>, top: i32, workload: Workload, systems: &[Medians]) -> Result<()> {
    let title = match workload {
        Workload::Live => format!("{}: p50 at 200/s, shorter is better", workload.title()),
        _ => format!("{}: events/s", workload.title()),
    };
    let left = Pos::new(HPos::Left, VPos::Center);
    let right = Pos::new(HPos::Right, VPos::Center);
    draw_text(canvas, &title, 18, left, (MARGIN, top + TITLE - 12))?;
    let value = |row: &Medians| match workload {
        Workload::Live => row.p50_us.unwrap_or(0.0),
        _ => row.events_per_s,
    };
    let most = systems.iter().map(value).fold(f64::MIN_POSITIVE, f64::max);
    for (row, number) in systems.iter().zip(0..) {
        let middle = top + TITLE + ROW * number + ROW / 2;
        let length = f64::from(BARS_TO - BARS_FROM) * value(row) / most;
        let end = BARS_FROM + (length as i32).max(1);
        let is_quipu = row.system.maker() == Maker::Quipu;
        let color = if is_quipu { OF_QUIPU } else { OF_OTHERS };
        let corners = [(BARS_FROM, middle - BAR / 2), (end, middle + BAR / 2)];
        canvas.draw(&Rectangle::new(corners, color.filled())).map_err(drawing)?;
        draw_text(canvas, row.system.title(), 16, right, (BARS_FROM - 8, middle))?;
        let value = match workload {
            Workload::Live => latency(value(row)),
            _ => count(value(row)),
        };
        draw_text(canvas, &value, 16, left, (end + 6, middle))?;
    }
    Ok(())
}

fn draw_text(
    canvas: &Canvas<'_>,
    text: &str,
    size: i32,
    anchor: Pos,
    place: (i32, i32),
) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&INK).pos(anchor);
    canvas.draw_text(text, &style, place).map_err(drawing)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw the plot: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{figures, results};

    #[test]
    fn every_system_has_a_bar_and_the_echo_none() {
        let text = svg(&results(&[
            (System::QuipuServer, Workload::OneWriter, figures(20_000, 100)),
            (System::QuipuEcho, Workload::OneWriter, figures(90_000, 10)),
            (System::UmaDb, Workload::OneWriter, figures(10_000, 200)),
        ]));
        let text = text.unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        assert!(text.contains("UmaDB") && text.contains("Quipu over TCP"));
        assert!(text.contains("10,000") && !text.contains("echo"), "{text}");
    }
}
