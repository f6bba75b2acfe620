//! Descriptors of operations with several sources, as words: exclusive or, P and Q.
//!
//! A descriptor has room for some sources. More are in a second descriptor behind it, its
//! *extension*, which is nothing but addresses, and the address of the next descriptor where all have
//! it. P and Q of more than 8 sources are in a *super extended descriptor* instead, two lines of memory
//! outside the ring.
//!
//! | sources | descriptor | extension | super extended |
//! | --- | --- | --- | --- |
//! | exclusive or, 2 to 5 | 5 | | |
//! | exclusive or, 6 to 8 | 5 | 3 | |
//! | P and Q, 2 to 3 | 3 | | |
//! | P and Q, 4 to 8 | 3 | 5 | |
//! | P and Q, 9 to 16 | 2 | | 14 |

use bitflags::bitflags;

use super::{Control, HEAD, SOURCE, TARGET};
use crate::lines::WORDS;

/// Operation codes, bits 31:24 of `ctl`.
const OP_XOR: u64 = 0x87 << 56;
const OP_XOR_VAL: u64 = 0x88 << 56;
const OP_PQ: u64 = 0x89 << 56;
const OP_PQ_VAL: u64 = 0x8a << 56;
const OP_PQ_16: u64 = 0xa0 << 56;
const OP_PQ_VAL_16: u64 = 0xa1 << 56;

/// Where the number of sources is, less the least, in the first word.
const SOURCE_COUNT_SHIFT: u32 = 32 + 5;
/// The fewest sources.
pub(crate) const MIN_SOURCES: usize = 2;
/// The most without a super extended descriptor.
pub(crate) const MAX_SOURCES: usize = 8;
/// The fewest with one.
const MIN_SOURCES_16: usize = MAX_SOURCES + 1;
/// The most with one.
pub(crate) const MAX_SOURCES_16: usize = 16;

/// Words that a descriptor has besides those of all: the fourth to seventh source of an exclusive or
/// and the second and third of P and Q.
const XOR_SOURCES: [usize; 5] = [SOURCE, 4, 5, 6, 7];
const XOR_EXTENSION_SOURCES: [usize; 3] = [0, 1, 2];
const PQ_SOURCES: [usize; 3] = [SOURCE, 4, 5];
const PQ_EXTENSION_SOURCES: [usize; 5] = [0, 1, 2, 4, 5];
const PQ_16_SOURCES: [usize; 2] = [SOURCE, 4];
/// Where the super extended descriptor is.
const SUPER_EXTENDED: usize = 5;
const COEFFICIENTS: usize = 6;
const Q: usize = 7;

bitflags! {
    /// Flags in `ctl`, where they are in the first word, of P and Q.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct PqControl: u64 {
        const P_DISABLE = 1 << (32 + 11);
        const Q_DISABLE = 1 << (32 + 12);
        /// Write the result of a check to the first 32 bits of the descriptor.
        const WRITE_BACK = 1 << (32 + 15);
    }
}

/// The words of a descriptor, and of what belongs to it. The address of the next descriptor is not
/// among them, though it has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) base: [u64; WORDS],
    pub(crate) extension: Option<[u64; WORDS]>,
    pub(crate) super_extended: Option<[[u64; WORDS]; 2]>,
}

/// Sources in bus addresses, each with its coefficient: 2 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    addresses: [u64; MAX_SOURCES_16],
    coefficients: [u8; MAX_SOURCES_16],
    count: usize,
}

impl Sources {
    pub(crate) const fn new() -> Self {
        let (addresses, coefficients) = ([0; MAX_SOURCES_16], [0; MAX_SOURCES_16]);
        Self { addresses, coefficients, count: 0 }
    }

    /// Adds a source. There is room: operations with more are refused.
    pub(crate) fn push(&mut self, address: u64, coefficient: u8) {
        self.addresses[self.count] = address;
        self.coefficients[self.count] = coefficient;
        self.count += 1;
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Of one source makes enough for the hardware: the same thrice, of which two times cancel each
    /// other out in an exclusive or, and are multiplied by 0 in Q.
    pub(crate) fn pad(&mut self) {
        if self.count == 1 {
            self.push(self.addresses[0], 0);
            self.push(self.addresses[0], 0);
        }
    }

    /// All bits that any of the addresses has.
    pub(crate) fn bits(&self) -> u64 {
        self.at(0).fold(0, |bits, address| bits | address)
    }

    /// The sources `offset` bytes further on.
    fn at(&self, offset: u64) -> impl Iterator<Item = u64> {
        self.addresses[..self.count].iter().map(move |address| address.wrapping_add(offset))
    }

    /// The coefficients of 8 sources from `first` on, as a word.
    fn coefficients(&self, first: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.coefficients[first..first + 8]);
        u64::from_le_bytes(bytes)
    }

    /// Whether a descriptor of P and Q has an extension for them.
    pub(crate) const fn extend_pq(&self) -> bool {
        self.count > PQ_SOURCES.len() && self.count <= MAX_SOURCES
    }

    /// Whether a descriptor of an exclusive or has an extension for them.
    pub(crate) const fn extend_xor(&self) -> bool {
        self.count > XOR_SOURCES.len()
    }
}

/// A piece of an operation: so many bytes, so far behind all its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) control: Control,
    /// Whether it is a check.
    pub(crate) check: bool,
}

/// An exclusive or of up to 8 sources; `target` is what it is written to or compared with.
pub(crate) fn xor(sources: &Sources, target: u64, piece: Piece) -> Words {
    let Piece { offset, len, control, check } = piece;
    let code = if check { OP_XOR_VAL } else { OP_XOR };
    let mut base = [0; WORDS];
    base[HEAD] = code | control.bits() | count(sources, MIN_SOURCES) | u64::from(len);
    base[TARGET] = target.wrapping_add(offset);
    let mut extension = [0; WORDS];
    place(sources, offset, [(&mut base, &XOR_SOURCES), (&mut extension, &XOR_EXTENSION_SOURCES)]);
    Words { base, extension: sources.extend_xor().then_some(extension), super_extended: None }
}

/// Where P and Q are written to or read from, in bus addresses: one of them at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syndromes {
    pub(crate) p: Option<u64>,
    pub(crate) q: Option<u64>,
    /// Whether the result of a check is to be written to the descriptor.
    pub(crate) write_back: bool,
}

/// P and Q. With more than 8 sources, `super_extended` is where the super extended descriptor will be.
pub(crate) fn pq(
    sources: &Sources,
    syndromes: Syndromes,
    super_extended: Option<u64>,
    piece: Piece,
) -> Words {
    let Syndromes { p, q, write_back } = syndromes;
    let Piece { offset, len, control, check } = piece;
    let mut flags = PqControl::empty();
    flags.set(PqControl::P_DISABLE, p.is_none());
    flags.set(PqControl::Q_DISABLE, q.is_none());
    flags.set(PqControl::WRITE_BACK, check && write_back);
    let mut base = [0; WORDS];
    // Also the address of what is left out has to be a valid one.
    let address = |one: Option<u64>, other: Option<u64>| {
        one.or(other).unwrap_or_default().wrapping_add(offset)
    };
    base[TARGET] = address(p, q);
    base[Q] = address(q, p);
    base[COEFFICIENTS] = sources.coefficients(0);
    let head = |code: u64, least| {
        code | control.bits() | flags.bits() | count(sources, least) | u64::from(len)
    };
    if let Some(address) = super_extended {
        base[HEAD] = head(if check { OP_PQ_VAL_16 } else { OP_PQ_16 }, MIN_SOURCES_16);
        base[SUPER_EXTENDED] = address;
        let (mut first, mut second) = ([0; WORDS], [0; WORDS]);
        first[0] = sources.coefficients(8);
        let places: [(&mut [u64; WORDS], &[usize]); 3] = [
            (&mut base, &PQ_16_SOURCES),
            (&mut first, &[1, 2, 3, 4, 5, 6, 7]),
            (&mut second, &[0, 1, 2, 3, 4, 5, 6]),
        ];
        place(sources, offset, places);
        return Words { base, extension: None, super_extended: Some([first, second]) };
    }
    base[HEAD] = head(if check { OP_PQ_VAL } else { OP_PQ }, MIN_SOURCES);
    let mut extension = [0; WORDS];
    place(sources, offset, [(&mut base, &PQ_SOURCES), (&mut extension, &PQ_EXTENSION_SOURCES)]);
    Words { base, extension: sources.extend_pq().then_some(extension), super_extended: None }
}

/// The field of the number of sources, which are at least `least`.
fn count(sources: &Sources, least: usize) -> u64 {
    debug_assert!((least..least + 8).contains(&sources.count));
    (sources.count.saturating_sub(least) as u64) << SOURCE_COUNT_SHIFT
}

/// Puts the sources into words, one line after the other.
fn place<'a, const N: usize>(
    sources: &Sources,
    offset: u64,
    lines: [(&'a mut [u64; WORDS], &'a [usize]); N],
) {
    let mut addresses = sources.at(offset);
    for (line, words) in lines {
        for (&word, address) in words.iter().zip(&mut addresses) {
            line[word] = address;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(count: usize) -> Sources {
        let mut sources = Sources::new();
        for index in 1..=count {
            sources.push(0x1000 * index as u64, index as u8);
        }
        sources
    }

    fn piece(check: bool) -> Piece {
        Piece { offset: 0x40, len: 0x200, control: Control::COMPL_WRITE, check }
    }

    /// The `ctl` word of a descriptor.
    fn control(words: &Words) -> u32 {
        (words.base[0] >> 32) as u32
    }

    // What stands here is written out from the facts (reference of the descriptors), not computed.

    #[test]
    fn an_exclusive_or_of_few_sources() {
        let words = xor(&sources(5), 0x9000, piece(false));
        let expected =
            [0x8700_0068 << 32 | 0x200, 0x1040, 0x9040, 0, 0x2040, 0x3040, 0x4040, 0x5040];
        assert_eq!(words, Words { base: expected, extension: None, super_extended: None });
        assert_eq!(control(&xor(&sources(2), 0, piece(true))), 0x8800_0008);
    }

    #[test]
    fn an_exclusive_or_with_an_extension() {
        let words = xor(&sources(8), 0x9000, piece(true));
        assert_eq!(control(&words), 0x8800_00c8);
        assert_eq!(words.extension, Some([0x6040, 0x7040, 0x8040, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn p_and_q_of_few_sources() {
        let both = Syndromes { p: Some(0xa000), q: Some(0xb000), write_back: false };
        let words = pq(&sources(3), both, None, piece(false));
        let expected =
            [0x8900_0028 << 32 | 0x200, 0x1040, 0xa040, 0, 0x2040, 0x3040, 0x03_0201, 0xb040];
        assert_eq!(words, Words { base: expected, extension: None, super_extended: None });
    }

    #[test]
    fn p_and_q_with_an_extension() {
        let both = Syndromes { p: Some(0xa000), q: Some(0xb000), write_back: false };
        let words = pq(&sources(8), both, None, piece(true));
        assert_eq!(control(&words), 0x8a00_00c8);
        assert_eq!(words.base[6], 0x0807_0605_0403_0201);
        assert_eq!(words.extension, Some([0x4040, 0x5040, 0x6040, 0, 0x7040, 0x8040, 0, 0]));
        assert_eq!(
            pq(&sources(4), both, None, piece(true)).extension.map(|words| words[0]),
            Some(0x4040)
        );
    }

    #[test]
    fn what_is_left_out_has_the_address_of_the_other() {
        let p = Syndromes { p: Some(0xa000), q: None, write_back: false };
        let words = pq(&sources(2), p, None, piece(false));
        assert_eq!((control(&words), words.base[2], words.base[7]), (0x8900_1008, 0xa040, 0xa040));
        let q = Syndromes { p: None, q: Some(0xb000), write_back: true };
        let words = pq(&sources(2), q, None, piece(true));
        assert_eq!((control(&words), words.base[2], words.base[7]), (0x8a00_8808, 0xb040, 0xb040));
        // Only a check has a result.
        assert_eq!(control(&pq(&sources(2), q, None, piece(false))), 0x8900_0808);
    }

    #[test]
    fn sixteen_sources() {
        let both = Syndromes { p: Some(0xa000), q: Some(0xb000), write_back: false };
        let words = pq(&sources(16), both, Some(0xc000), piece(false));
        let expected = [
            0xa000_00e8 << 32 | 0x200,
            0x1040,
            0xa040,
            0,
            0x2040,
            0xc000,
            0x0807_0605_0403_0201,
            0xb040,
        ];
        assert_eq!((words.base, words.extension), (expected, None));
        let first = [0x100f_0e0d_0c0b_0a09, 0x3040, 0x4040, 0x5040, 0x6040, 0x7040, 0x8040, 0x9040];
        let second = [0xa040, 0xb040, 0xc040, 0xd040, 0xe040, 0xf040, 0x1_0040, 0];
        assert_eq!(words.super_extended, Some([first, second]));
        assert_eq!(control(&pq(&sources(9), both, Some(0xc000), piece(true))), 0xa100_0008);
    }

    #[test]
    fn one_source_is_given_thrice() {
        let mut one = sources(1);
        one.pad();
        assert_eq!(one.at(0).collect::<Vec<_>>(), [0x1000; 3]);
        assert_eq!(one.coefficients(0), 1);
        let mut two = sources(2);
        two.pad();
        assert_eq!(two.count(), 2);
    }
}
