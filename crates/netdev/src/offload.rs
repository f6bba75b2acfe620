//! What travels beside a frame: who computes checksums, and who cuts super-frames.

use crate::{LinkInfo, TransmitError};

/// Length of an Ethernet header in bytes.
pub(crate) const ETHERNET_HEADER_LEN: usize = 14;

/// Length of an IEEE 802.1Q tag in bytes, which the MTU does not count.
pub(crate) const VLAN_TAG_LEN: usize = 4;

/// The longest super-frame in bytes: the greatest IPv4 total length behind an Ethernet header.
pub(crate) const MAX_SUPER_FRAME_LEN: usize = ETHERNET_HEADER_LEN + u16::MAX as usize;

/// What the link says about the transport checksum of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// Nothing: the receiver must verify it.
    #[default]
    Unverified,
    /// The link vouches for the payload: it never left this machine's memory, or a device has
    /// verified it. The checksum field itself may be incomplete.
    Verified,
}

/// Beside a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RxInfo {
    /// Whether the transport checksum need not be computed.
    pub checksum: Checksum,
}

/// A checksum that the link shall complete: the Internet checksum of all bytes from `start` to the
/// end of the frame, which is stored at `start + offset`. That field holds the sum of the
/// pseudo-header before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartialChecksum {
    /// The first byte that is summed (the transport header), from the frame's start.
    pub start: u16,
    /// The checksum field, from `start`.
    pub offset: u16,
}

/// A super-frame that the link shall cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gso {
    /// Payload bytes of a segment (the MSS).
    pub size: u16,
    /// Length of all headers, Ethernet's included, which every segment repeats.
    pub header_len: u16,
}

/// Beside a frame to transmit. The default is a frame that is complete as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TxInfo {
    /// The checksum to complete, if any. Needs [`LinkInfo::checksum_offload`].
    pub checksum: Option<PartialChecksum>,
    /// How to cut the frame, if at all. Needs [`LinkInfo::tso_max`], and `checksum` as well.
    pub gso: Option<Gso>,
}

impl TxInfo {
    /// Refuses what the link cannot do, and offsets that lie outside the frame.
    pub(crate) fn check(&self, frame: &[u8], link: &LinkInfo) -> Result<(), TransmitError> {
        let len = frame.len();
        if len < ETHERNET_HEADER_LEN {
            return Err(TransmitError::TooShort { len });
        }
        if let Some(PartialChecksum { start, offset }) = self.checksum {
            if !link.checksum_offload {
                return Err(TransmitError::Unsupported);
            }
            // The field is two bytes wide.
            if usize::from(start) + usize::from(offset) + 2 > len {
                return Err(TransmitError::BadOffload);
            }
        }
        let max = match self.gso {
            None => link.max_plain_frame(),
            Some(Gso { size, header_len }) => {
                let max = link.tso_max.ok_or(TransmitError::Unsupported)?;
                if size == 0 || usize::from(header_len) >= len || self.checksum.is_none() {
                    return Err(TransmitError::BadOffload);
                }
                max
            }
        };
        if len > max {
            return Err(TransmitError::TooLong { len, max });
        }
        Ok(())
    }

    /// What the receiver of this very frame, uncut, may rely on.
    pub(crate) const fn seen_by_receiver(&self) -> RxInfo {
        // A partial checksum was never computed: the frame has not left memory.
        let checksum =
            if self.checksum.is_some() { Checksum::Verified } else { Checksum::Unverified };
        RxInfo { checksum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(checksum_offload: bool, tso_max: Option<usize>) -> LinkInfo {
        LinkInfo {
            name: "test".into(),
            mac: [2; 6],
            mtu: 1500,
            checksum_offload,
            tso_max,
            receive_memory: 0,
        }
    }

    const CHECKSUM: Option<PartialChecksum> = Some(PartialChecksum { start: 34, offset: 16 });
    const GSO: Option<Gso> = Some(Gso { size: 1448, header_len: 66 });

    fn refusal(link: &LinkInfo, len: usize, info: TxInfo) -> String {
        info.check(&vec![0; len], link).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn lengths_are_bounded_by_what_the_link_carries() {
        let link = link(true, Some(MAX_SUPER_FRAME_LEN));
        let plain = TxInfo::default();
        let cut = TxInfo { checksum: CHECKSUM, gso: GSO };
        assert!(refusal(&link, 13, plain).contains("shorter"));
        assert_eq!(refusal(&link, 14, plain), "");
        assert_eq!(refusal(&link, 1518, plain), "");
        assert!(refusal(&link, 1519, plain).contains("1518"));
        assert_eq!(refusal(&link, MAX_SUPER_FRAME_LEN, cut), "");
        assert!(refusal(&link, MAX_SUPER_FRAME_LEN + 1, cut).contains("65549"));
    }

    #[test]
    fn offloads_need_a_link_that_has_them() {
        let without = link(false, None);
        let unsupported = TransmitError::Unsupported.to_string();
        let checksum = TxInfo { checksum: CHECKSUM, gso: None };
        assert_eq!(refusal(&without, 100, checksum), unsupported);
        let cut = TxInfo { checksum: CHECKSUM, gso: GSO };
        assert_eq!(refusal(&link(true, None), 100, cut), unsupported);
    }

    #[test]
    fn offsets_lie_inside_the_frame() {
        let link = link(true, Some(MAX_SUPER_FRAME_LEN));
        let bad = TransmitError::BadOffload.to_string();
        let checksum = TxInfo { checksum: CHECKSUM, gso: None };
        assert_eq!(refusal(&link, 51, checksum), bad);
        assert_eq!(refusal(&link, 52, checksum), "");
        let cut = TxInfo { checksum: CHECKSUM, gso: GSO };
        assert_eq!(refusal(&link, 66, cut), bad, "no payload");
        assert_eq!(refusal(&link, 67, cut), "");
        assert_eq!(refusal(&link, 100, TxInfo { checksum: None, gso: GSO }), bad);
        let endless = TxInfo { checksum: CHECKSUM, gso: Some(Gso { size: 0, header_len: 66 }) };
        assert_eq!(refusal(&link, 100, endless), bad);
    }
}
