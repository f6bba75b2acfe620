use std::fmt;

/// Channel `channel` of device number `device`: `dma<N>chan<M>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChannelName {
    pub(super) device: usize,
    pub(super) channel: usize,
}

impl ChannelName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (device, channel) = name.strip_prefix("dma")?.split_once("chan")?;
        let parsed = Self { device: device.parse().ok()?, channel: channel.parse().ok()? };
        // One name each: not `dma+0chan01`.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dma{}chan{}", self.device, self.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        assert_eq!(ChannelName::parse("dma0chan12"), Some(ChannelName { device: 0, channel: 12 }));
        for name in [
            "",
            "dma",
            "dma0",
            "dmachan",
            "dma0chan",
            "dma00chan0",
            "dma+1chan0",
            "dma0chan0 ",
            "dma0chan18446744073709551616",
        ] {
            assert_eq!(ChannelName::parse(name), None, "{name:?}");
        }
    }
}
