//! Both distributions of the join experiment and the paper's points, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::distribution::Distribution;
use crate::join::Outcome;

/// Of the picture.
const SIZE: (u32, u32) = (900, 560);

/// The time axis in seconds, logarithmic.
const SECONDS: std::ops::Range<f64> = 0.05..400.0;

/// What WOW measured in 2006: seconds, percent of 300 trials, and how to call it.
const PAPER: [(f64, f64, &str); 2] = [
    (10.0, 90.0, "WOW 2006: routable"),
    (200.0, 99.0, "WOW 2006: direct link"),
];

/// Draws `outcome` into `file`.
pub fn draw(outcome: &Outcome, file: &Path) -> Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    paint(&root, outcome).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

fn paint<B: DrawingBackend>(
    root: &DrawingArea<B, plotters::coord::Shift>,
    outcome: &Outcome,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    root.fill(&WHITE)?;
    let title = format!("Joining a pool: {} trials", outcome.trials.len());
    let mut chart = ChartBuilder::on(root)
        .caption(title, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(SECONDS.log_scale(), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("seconds from the start of the process")
        .y_desc("percent of trials")
        .x_label_formatter(&|seconds| format!("{seconds}"))
        .light_line_style(WHITE)
        .draw()?;
    let curves = [
        (
            "routable",
            RGBColor(0x1f, 0x6f, 0xb4),
            Distribution::new(outcome.trials.iter().map(|trial| trial.routable_ms)),
        ),
        (
            "direct link behind NATs",
            RGBColor(0xc4, 0x4e, 0x1f),
            Distribution::new(outcome.trials.iter().map(|trial| trial.direct_ms)),
        ),
    ];
    for (label, colour, times) in curves {
        chart
            .draw_series(LineSeries::new(stairs(&times), colour.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    for (seconds, percent, label) in PAPER {
        chart.draw_series(PointSeries::of_element(
            [(seconds, percent)],
            5,
            BLACK.filled(),
            &|at, size, style| {
                EmptyElement::at(at)
                    + Circle::new((0, 0), size, style)
                    + Text::new(label, (-70, 12), ("sans-serif", 14))
            },
        ))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()?;
    root.present()
}

/// The corners of the cumulative distribution's steps, in seconds and percent.
fn stairs(times: &Distribution) -> Vec<(f64, f64)> {
    let mut corners = Vec::new();
    let mut reached = 0.0;
    for (ms, percent) in times.steps() {
        let seconds = ms / 1000.0;
        corners.push((seconds, reached));
        corners.push((seconds, percent));
        reached = percent;
    }
    corners.push((SECONDS.end, reached));
    corners
}
