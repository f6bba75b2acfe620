//! GF(256) with the polynomial 0x11d, as in RAID 6 (H. Peter Anvin, "The mathematics of RAID-6").

/// The product of two elements.
pub(crate) const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        let carry = a & 0x80 != 0;
        a <<= 1;
        if carry {
            a ^= 0x1d;
        }
        b >>= 1;
    }
    product
}

/// The products of one element with every low and every high nibble: any product is the sum of two
/// of them.
#[derive(Debug)]
pub(crate) struct Nibbles {
    pub(crate) low: [u8; 16],
    pub(crate) high: [u8; 16],
}

impl Nibbles {
    const fn of(element: u8) -> Self {
        let (mut low, mut high) = ([0; 16], [0; 16]);
        let mut nibble = 0;
        while nibble < 16 {
            low[nibble] = multiply(element, nibble as u8);
            high[nibble] = multiply(element, (nibble << 4) as u8);
            nibble += 1;
        }
        Self { low, high }
    }

    /// The element's product with `other`.
    #[inline]
    pub(crate) const fn times(&self, other: u8) -> u8 {
        self.low[(other & 0xf) as usize] ^ self.high[(other >> 4) as usize]
    }
}

/// Of each element.
pub(crate) static NIBBLES: [Nibbles; 256] = {
    let mut all = [const { Nibbles { low: [0; 16], high: [0; 16] } }; 256];
    let mut element = 0;
    while element < 256 {
        all[element] = Nibbles::of(element as u8);
        element += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_field_of_raid_6() {
        // The powers of the generator 2, from the paper's table.
        let powers: Vec<u8> =
            std::iter::successors(Some(1), |&power| Some(multiply(power, 2))).take(256).collect();
        assert_eq!(powers[..10], [1, 2, 4, 8, 16, 32, 64, 128, 0x1d, 0x3a]);
        assert_eq!((powers[254], powers[255]), (0x8e, 1), "the order is 255");
        assert!(powers[1..255].iter().all(|&power| power != 1));
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(NIBBLES[usize::from(a)].times(b), multiply(b, a), "{a} times {b}");
            }
        }
    }
}
