//! Figures as a picture: panels with logarithmic axes, side by side and one row below the other.

use std::{error::Error, ops::Range};

use plotters::{coord::combinators::LogCoord, prelude::*};

use crate::measure::Spread;

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

/// A picture of panels.
pub(super) struct Picture {
    pub(super) title: &'static str,
    /// How it was measured.
    pub(super) how: String,
    /// By row. All rows have as many.
    pub(super) panels: Vec<Vec<Panel>>,
}

/// Lines over a common axis.
pub(super) struct Panel {
    pub(super) caption: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) lines: Vec<Line>,
    /// Whether the names of the lines have a place in here: below them, on the right.
    pub(super) named: bool,
}

/// What was measured of one engine.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Spread)>,
    /// A place on the x axis, and what to call it.
    pub(super) mark: Option<(f64, String)>,
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Picture {
    /// As an SVG document.
    pub(super) fn draw(&self) -> Result<String, PictureError> {
        let mut svg = String::new();
        self.draw_into(&mut svg).map_err(|error| PictureError(error.to_string()))?;
        Ok(svg)
    }

    fn draw_into(&self, svg: &mut String) -> Result<(), Box<dyn Error>> {
        let rows = self.panels.len();
        let columns = self.panels.first().map(Vec::len).ok_or("nothing was measured")?;
        let size = (WIDTH * columns as u32, HEIGHT * rows as u32 + TITLE);
        let root = SVGBackend::with_string(svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (title, areas) = root.split_vertically(TITLE);
        self.draw_title(&title)?;
        let areas = areas.split_evenly((rows, columns));
        for (panel, area) in self.panels.iter().flatten().zip(&areas) {
            panel.draw(area)?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_title(&self, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
        let large = ("sans-serif", 24).into_font();
        let small = ("sans-serif", 15).into_font();
        area.draw(&Text::new(self.title, (20, 12), large))?;
        area.draw(&Text::new(self.how.as_str(), (20, 44), small))?;
        Ok(())
    }
}

impl Panel {
    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let xs = range(points().map(|(x, _)| *x)).ok_or("no size was measured")?;
        let ys = range(points().flat_map(|(_, spread)| [spread.least, spread.greatest]))
            .ok_or("nothing was measured")?;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.caption, ("sans-serif", 18))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(70)
            .build_cartesian_2d(xs.log_scale(), ys.clone().log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|x| format!("{x}"))
            // Without what a binary fraction lacks of a decimal one.
            .y_label_formatter(&|y| format!("{}", (y * 1e6).round() / 1e6))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (index, line) in self.lines.iter().enumerate() {
            let color = COLORS[index % COLORS.len()].to_rgba();
            line.draw(&mut chart, color)?;
            if let Some((x, label)) = &line.mark {
                // One below the other: those of similar engines lie close together.
                let step = (ys.end / ys.start).powf(0.05 * index as f64);
                draw_mark(&mut chart, *x, label, &ys, ys.start * step, color)?;
            }
        }
        if self.named {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerRight)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.4))
                .label_font(("sans-serif", 14))
                .draw()?;
        }
        Ok(())
    }
}

impl Line {
    /// A line through the medians, and at each of them one from the least to the greatest.
    fn draw(&self, chart: &mut Chart<'_, '_>, color: RGBAColor) -> Result<(), Box<dyn Error>> {
        let mut points = self.points.clone();
        points.sort_by(|(left, _), (right, _)| left.total_cmp(right));
        chart.draw_series(points.iter().map(|(x, spread)| {
            let ends = [(*x, spread.least), (*x, spread.greatest)];
            PathElement::new(ends, color.mix(0.5).stroke_width(4))
        }))?;
        chart.draw_series(
            points.iter().map(|(x, spread)| Circle::new((*x, spread.median), 3, color.filled())),
        )?;
        let medians = points.iter().map(|(x, spread)| (*x, spread.median));
        chart
            .draw_series(LineSeries::new(medians, color.stroke_width(2)))?
            .label(&self.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
        Ok(())
    }
}

/// A dashed line at a place on the x axis, with its name at `height`.
fn draw_mark(
    chart: &mut Chart<'_, '_>,
    x: f64,
    label: &str,
    ys: &Range<f64>,
    height: f64,
    color: RGBAColor,
) -> Result<(), Box<dyn Error>> {
    let ends = [(x, ys.start), (x, ys.end)];
    chart.draw_series(DashedLineSeries::new(ends, 4, 4, color.stroke_width(1)))?;
    let font = ("sans-serif", 13).into_font().color(&color);
    chart.draw_series([Text::new(format!(" {label}"), (x, height), font)])?;
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
