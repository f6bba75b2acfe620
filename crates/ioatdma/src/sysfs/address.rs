use std::{fmt, num::ParseIntError, str::FromStr};

/// Where a function is on the PCI buses: `0000:00:04.0`.
///
/// ```
/// use ioatdma::sysfs::PciAddress;
///
/// let address: PciAddress = "00:04.1".parse()?;
/// assert_eq!(address.to_string(), "0000:00:04.1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text that is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no PCI address: write it as lspci -D does, for example 0000:00:04.0")]
pub struct ParseAddressError(String);

/// The most devices of a bus.
const DEVICES: u8 = 32;
/// The most functions of a device.
const FUNCTIONS: u8 = 8;

impl FromStr for PciAddress {
    type Err = ParseAddressError;

    /// Takes `[DOMAIN:]BUS:DEVICE.FUNCTION` in hexadecimal digits. Without a domain it is 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseAddressError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.split_once(':').unwrap_or(("0", rest));
    let number = |digits: &str, most: usize| -> Option<u32> {
        // `from_str_radix` takes a sign.
        let digits_only = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number: Result<u32, ParseIntError> = u32::from_str_radix(digits, 16);
        number.ok().filter(|_| digits_only && digits.len() <= most)
    };
    let byte = |digits| number(digits, 2).and_then(|number| u8::try_from(number).ok());
    let address = PciAddress {
        domain: number(domain, 8)?,
        bus: byte(bus)?,
        device: byte(device)?,
        function: byte(function)?,
    };
    (address.device < DEVICES && address.function < FUNCTIONS).then_some(address)
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_as_the_kernel_does() {
        for (text, written) in [
            ("0000:00:04.0", "0000:00:04.0"),
            ("00:04.7", "0000:00:04.7"),
            ("10000:80:1f.3", "10000:80:1f.3"),
            ("0:0:4.0", "0000:00:04.0"),
            ("ABCD:EF:0A.1", "abcd:ef:0a.1"),
        ] {
            let address: PciAddress = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "04.0",
            "0000:00:04",
            "0000:00:20.0",
            "0000:00:04.8",
            "0000:100:04.0",
            "0:0000:00:04.0",
            "+0:00:04.0",
            "0000:00:04.0 ",
            "0000:00:004.0",
            "123456789:00:04.0",
            "../00:04.0",
            "0000:00:04.",
            ":00:04.0",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?}");
        }
    }
}
