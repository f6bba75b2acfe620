//! Sizes on the command line: `65536`, `64K`, `64KiB`, `1G`.

/// Parses a number of bytes with an optional binary suffix.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("`{suffix}` is no unit: use K, M, G or T (powers of 1024)")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{text}` is no size: use a number of bytes, such as 65536 or 64K"))
}

/// Parses the length of a buffer: at least 1 byte, at most 1 GiB.
pub(crate) fn parse_length(text: &str) -> Result<usize, String> {
    match usize::try_from(parse(text)?) {
        Ok(bytes @ 1..=LONGEST_BUFFER) => Ok(bytes),
        _ => Err("it must be from 1 byte to 1G".into()),
    }
}

const LONGEST_BUFFER: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("64K"), Ok(65536));
        assert_eq!(parse("64KiB"), Ok(65536));
        assert_eq!(parse("2G"), Ok(2 << 30));
        assert_eq!(parse("7B"), Ok(7));
        for bad in
            ["", "K", "-1", "1.5G", "1 G", "1Q", "99999999999999999999", "18014398509481984T"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_length("1G"), Ok(1 << 30));
        for bad in ["0", "2G", "18446744073709551615"] {
            assert!(parse_length(bad).is_err(), "{bad:?}");
        }
    }
}
