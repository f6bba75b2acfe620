//! The figures as a picture: for each batch, what the caller pays and what the engine gives, over the
//! size of a copy.

use std::{collections::BTreeSet, error::Error, ops::Range};

use plotters::{coord::combinators::LogCoord, prelude::*};

use super::{
    figures::{Figures, Row},
    results::Results,
};
use crate::measure::Samples;

/// Of one panel, in pixels.
const WIDTH: u32 = 760;
const HEIGHT: u32 = 460;
/// Above the panels, in pixels.
const TITLE: u32 = 70;

/// Dark enough for text on white, and apart from each other for most of the colour-blind.
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 138, 100),
    RGBColor(178, 80, 140),
    RGBColor(150, 110, 0),
    RGBColor(60, 150, 210),
    RGBColor(110, 110, 110),
];

/// The picture could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the picture could not be drawn: {0}")]
pub struct PictureError(String);

/// What a panel shows.
struct Quantity {
    title: &'static str,
    axis: &'static str,
    of: fn(&Figures) -> &Samples,
    /// Whether the break-even sizes belong in here.
    marked: bool,
    /// Whether the names of the engines have a place in here: below the lines, on the right.
    named: bool,
}

const QUANTITIES: [Quantity; 2] = [
    Quantity {
        title: "What the caller pays",
        axis: "ns per copy",
        of: |figures| &figures.caller_ns,
        marked: true,
        named: false,
    },
    Quantity {
        title: "Throughput",
        axis: "GB/s",
        of: |figures| &figures.gb_per_s,
        marked: false,
        named: true,
    },
];

type Panel<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;

/// Draws `results` as an SVG document.
///
/// # Errors
///
/// [`PictureError`] if there is nothing to draw.
pub fn draw(results: &Results) -> Result<String, PictureError> {
    let mut svg = String::new();
    draw_into(&mut svg, results).map_err(|error| PictureError(error.to_string()))?;
    Ok(svg)
}

fn draw_into(svg: &mut String, results: &Results) -> Result<(), Box<dyn Error>> {
    let batches: BTreeSet<usize> = results.rows.iter().map(|row| row.batch).collect();
    if batches.is_empty() {
        return Err("nothing was measured".into());
    }
    let size = (WIDTH * QUANTITIES.len() as u32, HEIGHT * batches.len() as u32 + TITLE);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (title, panels) = root.split_vertically(TITLE);
    draw_title(&title, results)?;
    let mut panels = panels.split_evenly((batches.len(), QUANTITIES.len())).into_iter();
    for batch in batches {
        let rows: Vec<&Row> = results.rows.iter().filter(|row| row.batch == batch).collect();
        for quantity in &QUANTITIES {
            let area = panels.next().ok_or("there are fewer panels than figures")?;
            draw_panel(&area, results, batch, &rows, quantity)?;
        }
    }
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_title(area: &Area<'_>, results: &Results) -> Result<(), Box<dyn Error>> {
    let Results { rounds, pass_ms, depth, pairs, .. } = results;
    let large = ("sans-serif", 24).into_font();
    let small = ("sans-serif", 15).into_font();
    area.draw(&Text::new("Copies through DMA engines", (20, 12), large))?;
    let how = format!(
        "Medians of {rounds} rounds in turns, with least and greatest; passes of {pass_ms} ms, \
         {depth} copies in flight at most, {pairs} pairs of buffers. A model or a thread is no \
         hardware."
    );
    area.draw(&Text::new(how, (20, 44), small))?;
    Ok(())
}

fn draw_panel(
    area: &Area<'_>,
    results: &Results,
    batch: usize,
    rows: &[&Row],
    quantity: &Quantity,
) -> Result<(), Box<dyn Error>> {
    let Quantity { title, axis, of, marked, named } = quantity;
    let sizes = range(rows.iter().map(|row| row.size as f64)).ok_or("no size was measured")?;
    let values = range(rows.iter().flat_map(|row| {
        let spread = of(&row.figures).spread();
        [spread.least, spread.greatest]
    }))
    .ok_or("nothing was measured")?;
    let mut panel = ChartBuilder::on(area)
        .caption(format!("{title}, batches of {batch}"), ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(sizes.log_scale(), values.clone().log_scale())?;
    panel
        .configure_mesh()
        .x_desc("bytes per copy")
        .y_desc(*axis)
        .x_label_formatter(&|bytes| format!("{bytes}"))
        .y_label_formatter(&|value| format!("{value}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    // Rows of one engine and interface lie together.
    let engines = rows
        .chunk_by(|left, right| (&left.engine, left.interface) == (&right.engine, right.interface));
    for (index, rows) in engines.enumerate() {
        let [row, ..] = rows else { continue };
        let color = COLORS[index % COLORS.len()].to_rgba();
        draw_engine(&mut panel, rows, *of, color)?
            .label(row.title())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
        if *marked {
            let found = results.break_even.iter().find(|found| {
                (&found.engine, found.interface, found.batch) == (&row.engine, row.interface, batch)
            });
            if let Some(bytes) = found.and_then(|found| found.size.within()) {
                // One below the other: those of similar engines lie close together.
                let step = (values.end / values.start).powf(0.05 * index as f64);
                draw_break_even(&mut panel, bytes, &values, values.start * step, color)?;
            }
        }
    }
    if *named {
        panel
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.4))
            .label_font(("sans-serif", 14))
            .draw()?;
    }
    Ok(())
}

/// A line through the medians, and at each of them one from the least to the greatest.
fn draw_engine<'a, 'b, 'c>(
    panel: &'c mut Panel<'a, 'b>,
    rows: &[&Row],
    of: fn(&Figures) -> &Samples,
    color: RGBAColor,
) -> Result<&'c mut plotters::chart::SeriesAnno<'a, SVGBackend<'b>>, Box<dyn Error>> {
    let mut points: Vec<_> =
        rows.iter().map(|row| (row.size as f64, of(&row.figures).spread())).collect();
    points.sort_by(|(left, _), (right, _)| left.total_cmp(right));
    panel.draw_series(points.iter().map(|(size, spread)| {
        let ends = [(*size, spread.least), (*size, spread.greatest)];
        PathElement::new(ends, color.mix(0.5).stroke_width(4))
    }))?;
    panel.draw_series(
        points.iter().map(|(size, spread)| Circle::new((*size, spread.median), 3, color.filled())),
    )?;
    let line = points.iter().map(|(size, spread)| (*size, spread.median));
    Ok(panel.draw_series(LineSeries::new(line, color.stroke_width(2)))?)
}

/// A dashed line at a break-even size, with the number at `height`.
fn draw_break_even(
    panel: &mut Panel<'_, '_>,
    bytes: f64,
    values: &Range<f64>,
    height: f64,
    color: RGBAColor,
) -> Result<(), Box<dyn Error>> {
    let ends = [(bytes, values.start), (bytes, values.end)];
    panel.draw_series(DashedLineSeries::new(ends, 4, 4, color.stroke_width(1)))?;
    let font = ("sans-serif", 13).into_font().color(&color);
    let label = Text::new(format!(" break-even {bytes:.0} B"), (bytes, height), font);
    panel.draw_series([label])?;
    Ok(())
}

/// From a little below the least value to a little above the greatest. Nothing is zero on a
/// logarithmic axis.
fn range(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    const MARGIN: f64 = 1.3;
    let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let greatest = values.iter().copied().max_by(f64::total_cmp)?;
    Some(least / MARGIN..greatest * MARGIN)
}

#[cfg(test)]
mod tests;
