//! The bytes that tell their place and fate: Linux's `PATTERN_*`.
//!
//! | bit | in the source | in the target |
//! | --- | --- | --- |
//! | 0x80 | set | clear |
//! | 0x40 | the byte is to be copied | clear |
//! | 0x20 | clear | the byte is to be overwritten |
//! | 0x1f | the inverted offset | the inverted offset |
//!
//! The offset in the source of number `n` is counted from `11 n` on, so that the sources of one
//! operation differ.

use std::{fmt, ops::Range};

const SOURCE: u8 = 0x80;
const COPY: u8 = 0x40;
const OVERWRITE: u8 = 0x20;
const COUNT_MASK: u8 = 0x1f;

/// One of the two buffers of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// What is copied from.
    Source,
    /// What is copied to.
    Target,
}

impl fmt::Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "srcbuf",
            Self::Target => "dstbuf",
        })
    }
}

/// Bytes that are not what they should be, and the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// How many bytes in this region of the buffer differ.
    pub count: usize,
    /// Which buffer.
    pub buffer: Buffer,
    /// The first one's offset in the buffer.
    pub offset: usize,
    /// What should be there.
    pub expected: u8,
    /// What is there.
    pub actual: u8,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, buffer, offset, expected, actual } = self;
        write!(
            f,
            "{count} errors, {buffer}[{offset:#x}] first: expected {expected:02x}, got {actual:02x}"
        )
    }
}

/// The low bits of the byte at `offset`.
const fn count(offset: usize) -> u8 {
    !(offset as u8) & COUNT_MASK
}

/// Where the count of a source begins.
const fn shift(number: usize) -> usize {
    11 * number
}

/// A byte that is to be copied, in the source of this number.
pub(super) const fn copied_byte(offset: usize, number: usize) -> u8 {
    SOURCE | COPY | count(offset + shift(number))
}

fn fill(buffer: &mut [u8], range: Range<usize>, outside: u8, inside: u8, shift: usize) {
    for (offset, byte) in buffer.iter_mut().enumerate() {
        *byte = outside | count(offset + shift);
    }
    for byte in &mut buffer[range] {
        *byte |= inside;
    }
}

pub(super) fn fill_source(buffer: &mut [u8], copied: Range<usize>, number: usize) {
    fill(buffer, copied, SOURCE, COPY, shift(number));
}

pub(super) fn fill_target(buffer: &mut [u8], overwritten: Range<usize>) {
    fill(buffer, overwritten, 0, OVERWRITE, 0);
}

/// The source must be as it was filled.
pub(super) fn check_source(buffer: &[u8], copied: Range<usize>, number: usize) -> Option<Mismatch> {
    let check = |range, bits| {
        compare(Buffer::Source, buffer, range, |offset| bits | count(offset + shift(number)))
    };
    check(0..copied.start, SOURCE)
        .or_else(|| check(copied.clone(), SOURCE | COPY))
        .or_else(|| check(copied.end..buffer.len(), SOURCE))
}

/// The target must hold what was to be `written` at each index of `range`, and be untouched
/// elsewhere.
pub(super) fn check_target(
    buffer: &[u8],
    range: Range<usize>,
    written: impl Fn(usize) -> u8,
) -> Option<Mismatch> {
    let untouched = |range| compare(Buffer::Target, buffer, range, count);
    let start = range.start;
    untouched(0..start)
        .or_else(|| compare(Buffer::Target, buffer, range.clone(), |at| written(at - start)))
        .or_else(|| untouched(range.end..buffer.len()))
}

/// Compares `range` of `bytes` with what each offset should hold.
fn compare(
    buffer: Buffer,
    bytes: &[u8],
    range: Range<usize>,
    expected: impl Fn(usize) -> u8,
) -> Option<Mismatch> {
    let differs = |&(offset, &byte): &(usize, &u8)| byte != expected(offset);
    let numbered = || range.clone().zip(&bytes[range.clone()]);
    // Counting without an early end is what compilers make fast.
    let count = numbered().filter(differs).count();
    if count == 0 {
        return None;
    }
    let (offset, &actual) = numbered().find(differs)?;
    Some(Mismatch { count, buffer, offset, expected: expected(offset), actual })
}
