//! The Internet checksum (RFC 1071).

use std::net::Ipv4Addr;

/// A sum of 16-bit words in ones' complement that is not yet complemented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum(u64);

/// Bytes summed in one round of the main loop: two cache lines' worth of independent additions let
/// the compiler use vector registers.
const BLOCK: usize = 64;

impl Sum {
    /// Of bytes that start at an even offset; an odd last byte is padded with zero.
    pub(crate) fn of(data: &[u8]) -> Self {
        // RFC 1071 section 2 (B): the sum does not depend on byte order, so words are added as this
        // machine reads them, and swapped once at the end. (C): any width may be added and folded;
        // 32-bit words in 64-bit lanes cannot overflow for any length that memory has.
        let mut lanes = [0_u64; BLOCK / 4];
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let [last] = *rest {
            sum += u64::from(u16::from_ne_bytes([last, 0]));
        }
        Self(u64::from(u16::from_be(fold(sum))))
    }

    /// Of TCP's pseudo-header (RFC 9293 section 3.1).
    pub(crate) fn of_pseudo_header(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        len: usize,
    ) -> Self {
        let halves = |address: Ipv4Addr| {
            let bits = u64::from(address.to_bits());
            (bits >> 16) + (bits & 0xffff)
        };
        Self(halves(source) + halves(destination) + u64::from(protocol) + len as u64)
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum itself, as a link that completes the checksum expects it in the field.
    pub(crate) const fn partial(self) -> u16 {
        fold(self.0)
    }

    /// The checksum field's value.
    pub(crate) const fn complete(self) -> u16 {
        !fold(self.0)
    }

    /// Whether this is the sum over something that contains its own checksum, and the sum is right.
    pub(crate) const fn is_valid(self) -> bool {
        fold(self.0) == 0xffff
    }
}

const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_definition(data: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in data.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            sum += u32::from(word);
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    #[test]
    fn example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&data).partial(), 0xddf2);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(Sum::of(&data).partial(), by_definition(&data));
        }

        #[test]
        fn a_completed_checksum_verifies(mut data in proptest::collection::vec(any::<u8>(), 2..300)) {
            data[0] = 0;
            data[1] = 0;
            let sum = Sum::of(&data).complete();
            data[..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(Sum::of(&data).is_valid());
        }
    }
}
