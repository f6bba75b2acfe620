//! Exclusive or, and P+Q over GF(2^8) with the polynomial 0x11d, as RAID 6 has them.
//!
//! P is the exclusive or of all sources. Q is that of each source times its coefficient. Everything
//! is done in pieces of [`PIECE`] bytes: all sources of a piece are read before a byte of its
//! results is written, so a result may lie on a source, as it does when Linux continues a P+Q with
//! more sources than fit.

use bitflags::bitflags;

use crate::memory::{Memory, MemoryError, MoveError};

/// Bytes that are worked on at once.
const PIECE: usize = 1024;
/// The most sources: 16.
const SOURCES: usize = 16;

bitflags! {
    /// What a check found wrong.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Mismatch: u8 {
        /// P, or the exclusive or.
        const P = 1 << 0;
        /// Q.
        const Q = 1 << 1;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Source {
    address: u64,
    /// It is a part of P.
    in_p: bool,
    /// What it is multiplied by for Q.
    coefficient: u8,
}

/// An exclusive or, a P+Q, or a check of either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parity {
    len: u32,
    sources: [Source; SOURCES],
    count: usize,
    p: Option<u64>,
    q: Option<u64>,
    /// Results are compared with what is there, not written.
    check: bool,
}

impl Parity {
    pub(crate) fn new(len: u32) -> Self {
        let sources = [Source::default(); SOURCES];
        Self { len, sources, count: 0, p: None, q: None, check: false }
    }

    pub(crate) const fn set_p(&mut self, address: u64) {
        self.p = Some(address);
    }

    pub(crate) const fn set_q(&mut self, address: u64) {
        self.q = Some(address);
    }

    pub(crate) const fn set_check(&mut self) {
        self.check = true;
    }

    pub(crate) fn add(&mut self, address: u64, coefficient: u8) {
        self.push(Source { address, in_p: true, coefficient });
    }

    pub(crate) fn add_to_p(&mut self, address: u64) {
        if self.p.is_some() {
            self.push(Source { address, in_p: true, coefficient: 0 });
        }
    }

    pub(crate) fn add_to_q(&mut self, address: u64) {
        if self.q.is_some() {
            self.push(Source { address, in_p: false, coefficient: 1 });
        }
    }

    fn push(&mut self, source: Source) {
        if let Some(place) = self.sources.get_mut(self.count) {
            *place = source;
            self.count += 1;
        }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn perform(&self, memory: &mut impl Memory) -> Result<Mismatch, MoveError> {
        let mut mismatch = Mismatch::empty();
        let len = u64::from(self.len);
        for offset in (0..len).step_by(PIECE) {
            // At most PIECE.
            let size = (len - offset).min(PIECE as u64) as usize;
            mismatch |= self.piece(offset, size, memory)?;
        }
        Ok(mismatch)
    }

    fn piece(
        &self,
        offset: u64,
        size: usize,
        memory: &mut impl Memory,
    ) -> Result<Mismatch, MoveError> {
        let (mut p, mut q) = ([0; PIECE], [0; PIECE]);
        let mut bytes = [0; PIECE];
        for source in &self.sources[..self.count] {
            let address = behind(source.address, offset).map_err(MoveError::Source)?;
            memory.read_bytes(address, &mut bytes[..size]).map_err(MoveError::Source)?;
            if source.in_p {
                add(&mut p, &bytes);
            }
            if self.q.is_some() {
                add_product(&mut q, &bytes, source.coefficient);
            }
        }
        let mut mismatch = Mismatch::empty();
        for (result, address, bit) in [(&p, self.p, Mismatch::P), (&q, self.q, Mismatch::Q)] {
            let Some(address) = address else { continue };
            let address = behind(address, offset).map_err(MoveError::Target)?;
            if self.check {
                memory.read_bytes(address, &mut bytes[..size]).map_err(|error| match error {
                    MemoryError::Address => MoveError::Target(error),
                    // It is read, not written.
                    MemoryError::Data => MoveError::Source(error),
                })?;
                mismatch.set(bit, bytes[..size] != result[..size]);
            } else {
                memory.write_bytes(address, &result[..size]).map_err(MoveError::Target)?;
            }
        }
        Ok(mismatch)
    }
}

fn behind(address: u64, offset: u64) -> Result<u64, MemoryError> {
    address.checked_add(offset).ok_or(MemoryError::Address)
}

fn add(sum: &mut [u8; PIECE], bytes: &[u8; PIECE]) {
    for (sum, byte) in sum.iter_mut().zip(bytes) {
        *sum ^= byte;
    }
}

/// Adds `bytes` times `coefficient`, by Horner's rule over the coefficient's bits.
fn add_product(sum: &mut [u8; PIECE], bytes: &[u8; PIECE], coefficient: u8) {
    for (sum, byte) in sum.iter_mut().zip(bytes) {
        let mut product = 0;
        for bit in (0..8).rev() {
            product = double(product) ^ if coefficient >> bit & 1 == 0 { 0 } else { *byte };
        }
        *sum ^= product;
    }
}

/// Times 2 in GF(2^8).
const fn double(byte: u8) -> u8 {
    byte << 1 ^ if byte & 0x80 == 0 { 0 } else { 0x1d }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication by the definition: of polynomials, then reduced.
    fn product(a: u8, b: u8) -> u8 {
        let mut wide = (0..8)
            .fold(0_u16, |sum, bit| sum ^ if b >> bit & 1 == 0 { 0 } else { u16::from(a) << bit });
        for bit in (8..15).rev() {
            if wide >> bit & 1 == 1 {
                wide ^= 0x11d << (bit - 8);
            }
        }
        wide as u8
    }

    #[test]
    fn products_are_those_of_the_field() {
        let mut bytes = [0; PIECE];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8;
        }
        for coefficient in 0..=255 {
            let mut sum = [0; PIECE];
            add_product(&mut sum, &bytes, coefficient);
            for byte in 0..=255_u8 {
                assert_eq!(sum[usize::from(byte)], product(byte, coefficient));
            }
        }
        // 2 generates the field: RAID 6 depends on it.
        let powers: Vec<u8> =
            (0..255).scan(1, |power, _| Some(std::mem::replace(power, double(*power)))).collect();
        let mut sorted = powers.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=255).collect::<Vec<u8>>());
    }
}
