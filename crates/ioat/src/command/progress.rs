//! Progress bars: on a terminal, on standard error, and nowhere else.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over a known number of bytes.
pub(super) fn bytes(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    bar.set_style(style("{msg:<22} [{bar:30}] {bytes} of {total_bytes}  {binary_bytes_per_sec}"));
    bar
}

/// A counter over an unknown number of bytes.
pub(super) fn bytes_unbounded() -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(style("{spinner} {bytes}  {binary_bytes_per_sec}"));
    bar
}

/// A bar over a known number of steps.
pub(super) fn steps(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    bar.set_style(style("{msg:<22} [{bar:30}] {pos} of {len}  {eta} left"));
    bar
}

/// A counter over an unknown number of steps.
pub(super) fn steps_unbounded() -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(style("{msg:<22} {spinner} {pos}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are well-formed")
}
