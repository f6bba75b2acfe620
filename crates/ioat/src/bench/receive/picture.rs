//! The figures as a picture: for each scene, what the receiver pays and what it gets, over the length
//! of a read.

use super::{
    figures::{Figures, Row},
    results::Results,
};
use crate::{
    bench::picture::{Line, Panel, Picture, PictureError},
    measure::Samples,
};

/// What a panel shows.
struct Quantity {
    title: &'static str,
    axis: &'static str,
    of: fn(&Figures) -> &Samples,
    named: bool,
}

const QUANTITIES: [Quantity; 2] = [
    Quantity {
        title: "What the receiving thread pays",
        axis: "CPU seconds per GB",
        of: |figures| &figures.receiver_cpu_s_per_gb,
        named: false,
    },
    Quantity { title: "Throughput", axis: "GB/s", of: |figures| &figures.gb_per_s, named: true },
];

/// Draws `results` as an SVG document.
///
/// # Errors
///
/// [`PictureError`] if there is nothing to draw.
pub fn draw(results: &Results) -> Result<String, PictureError> {
    let Results { rounds, bytes, copybreak, rows, .. } = results;
    let mut kinds = Vec::new();
    for row in rows {
        let kind = (row.scene, row.point.program);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let panels = kinds.into_iter().map(|(scene, program)| {
        let is_in = |row: &&Row| (row.scene, row.point.program) == (scene, program);
        let rows: Vec<&Row> = rows.iter().filter(is_in).collect();
        let caption = |title| format!("{title}: {scene}; {program}");
        QUANTITIES.iter().map(|quantity| quantity.panel(caption(quantity.title), &rows)).collect()
    });
    Picture {
        title: "Receiving through DMA engines",
        how: format!(
            "Medians of {rounds} rounds in turns, with least and greatest; streams of {bytes} bytes; \
             copybreak {copybreak}. A model or a thread is no hardware."
        ),
        panels: panels.collect(),
    }
    .draw()
}

impl Quantity {
    fn panel(&self, caption: String, rows: &[&Row]) -> Panel {
        let mut lines: Vec<Line> = Vec::new();
        for row in rows {
            let name = row.title();
            let point = (row.point.read_size as f64, (self.of)(&row.figures).spread());
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name, points: vec![point], mark: None }),
            }
        }
        let Self { axis, named, .. } = *self;
        Panel { caption, x: "bytes per read", y: axis, lines, named }
    }
}

#[cfg(test)]
mod tests;
