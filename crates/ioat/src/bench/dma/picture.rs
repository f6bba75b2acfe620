//! The figures as a picture: for each batch, what the caller pays, what the engine gives and how long
//! a copy takes, over the size of a copy.

use std::collections::BTreeSet;

use super::{
    figures::{Figures, Row},
    results::Results,
};
use crate::{
    bench::picture::{Line, Panel, Picture, PictureError},
    measure::Spread,
};

/// What a panel shows.
struct Quantity {
    title: &'static str,
    axis: &'static str,
    of: fn(&Figures) -> Spread,
    /// Whether the break-even sizes belong in here.
    marked: bool,
    /// Whether the names of the engines do.
    named: bool,
}

const QUANTITIES: [Quantity; 3] = [
    Quantity {
        title: "What the caller pays",
        axis: "ns per copy",
        of: |figures| figures.caller_ns.spread(),
        marked: true,
        named: false,
    },
    Quantity {
        title: "Throughput",
        axis: "GB/s",
        of: |figures| figures.gb_per_s.spread(),
        marked: false,
        named: true,
    },
    Quantity {
        title: "Latency",
        axis: "ns, p50 up to p99",
        of: latency,
        marked: false,
        named: false,
    },
];

/// What half of the operations take, up to what one in a hundred takes longer than.
fn latency(Figures { latency_ns, .. }: &Figures) -> Spread {
    let median = latency_ns.p50.spread().median;
    Spread { median, least: median, greatest: latency_ns.p99.spread().median }
}

/// Draws `results` as an SVG document.
///
/// # Errors
///
/// [`PictureError`] if there is nothing to draw.
pub fn draw(results: &Results) -> Result<String, PictureError> {
    let Results { rounds, pass_ms, depth, pairs, rows, .. } = results;
    let batches: BTreeSet<usize> = rows.iter().map(|row| row.batch).collect();
    let panels = batches
        .into_iter()
        .map(|batch| QUANTITIES.iter().map(|quantity| panel(results, batch, quantity)).collect());
    Picture {
        title: "Copies through DMA engines",
        how: format!(
            "Medians of {rounds} rounds in turns, with least and greatest; passes of {pass_ms} ms, \
             {depth} copies in flight at most, {pairs} pairs of buffers. Latencies are of one batch in \
             flight, p50 with a line up to p99. A model or a thread is no hardware."
        ),
        panels: panels.collect(),
    }
    .draw()
}

fn panel(results: &Results, batch: usize, quantity: &Quantity) -> Panel {
    let Quantity { title, axis, of, marked, named } = quantity;
    let rows: Vec<&Row> = results.rows.iter().filter(|row| row.batch == batch).collect();
    // Rows of one engine and interface lie together.
    let engines = rows
        .chunk_by(|left, right| (&left.engine, left.interface) == (&right.engine, right.interface));
    let lines = engines.map(|rows| {
        let row = rows[0];
        let is_it = |found: &&super::BreakEvenRow| {
            (&found.engine, found.interface, found.batch) == (&row.engine, row.interface, batch)
        };
        let found = results.break_even.iter().find(is_it).filter(|_| *marked);
        let break_even = found.and_then(|found| found.size.within());
        Line {
            name: row.title(),
            points: rows.iter().map(|row| (row.size as f64, of(&row.figures))).collect(),
            mark: break_even.map(|bytes| (bytes, format!("break-even {bytes:.0} B"))),
        }
    });
    Panel {
        caption: format!("{title}, batches of {batch}"),
        x: "bytes per copy",
        y: axis,
        lines: lines.collect(),
        named: *named,
    }
}

#[cfg(test)]
mod tests;
