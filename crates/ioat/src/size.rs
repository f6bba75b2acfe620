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

/// Parses a number of bytes that is at least 1 and fits in memory.
pub(crate) fn parse_length(text: &str) -> Result<usize, String> {
    match parse(text)? {
        0 => Err("it must be at least 1 byte".into()),
        bytes => usize::try_from(bytes).map_err(|_| format!("{bytes} bytes do not fit in memory")),
    }
}

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
        assert!(parse_length("0").is_err());
    }
}
