//! The contenders' throughput as an SVG picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::Row;

/// Of the picture, with so much for each contender.
const WIDTH: u32 = 860;
const ROW_HEIGHT: u32 = 46;
const MARGINS_HEIGHT: u32 = 120;

const ONE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const FOUR: RGBColor = RGBColor(0xc4, 0x4e, 0x1f);

/// Draws one and four TCP flows of each contender that was measured into `file`.
pub fn draw(rows: &[Row], file: &Path) -> Result<()> {
    let bars: Vec<(&str, [f64; 2])> = rows
        .iter()
        .filter_map(|row| {
            let figures = row.figures()?;
            let flows = [figures.one.mbit_per_s, figures.four.mbit_per_s];
            Some((row.contender.name(), flows.map(|rate| rate / 1000.0)))
        })
        .collect();
    let rows = u32::try_from(bars.len()).unwrap_or(u32::MAX);
    let size = (WIDTH, rows.saturating_mul(ROW_HEIGHT) + MARGINS_HEIGHT);
    let root = SVGBackend::new(file, size).into_drawing_area();
    paint(&root, &bars).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

fn paint<B: DrawingBackend>(
    root: &DrawingArea<B, plotters::coord::Shift>,
    bars: &[(&str, [f64; 2])],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    root.fill(&WHITE)?;
    let rates = bars.iter().flat_map(|(_, flows)| flows);
    let longest = rates.copied().fold(1.0, f64::max);
    let count = bars.len();
    let mut chart = ChartBuilder::on(root)
        .caption("TCP between two namespaces", ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(110)
        .build_cartesian_2d(0.0..longest * 1.1, 0.0..count.max(1) as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("Gbit/s")
        .light_line_style(WHITE)
        .draw()?;
    // The first contender is at the top; each has its two bars in the middle of its row.
    for (label, colour, flow, place) in [("1 flow", ONE, 0, 0.54), ("4 flows", FOUR, 1, 0.18)] {
        let bottoms = (0..count).rev().map(|row| row as f64 + place);
        let shapes = bars.iter().zip(bottoms).map(|((_, flows), bottom)| {
            let corners = [(0.0, bottom), (flows[flow], bottom + 0.28)];
            Rectangle::new(corners, colour.filled())
        });
        chart
            .draw_series(shapes)?
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled()));
    }
    for (row, (name, _)) in (0..count).rev().zip(bars) {
        let at = chart.backend_coord(&(0.0, row as f64 + 0.5));
        root.draw(&Text::new(*name, (at.0 - 96, at.1 - 8), ("sans-serif", 15)))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()?;
    root.present()
}
