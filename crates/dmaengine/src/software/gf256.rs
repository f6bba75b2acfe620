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

/// The products of `coefficient` with every element.
pub(crate) const fn row(coefficient: u8) -> [u8; 256] {
    let mut row = [0; 256];
    let mut element = 0;
    while element < 256 {
        row[element] = multiply(coefficient, element as u8);
        element += 1;
    }
    row
}

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
            assert_eq!(row(a)[7], multiply(7, a), "commutative");
        }
    }
}
