//! Ethernet II.

use super::u16_at;
use crate::MacAddress;

/// Destination, source and type, in bytes.
pub(crate) const HEADER_LEN: usize = 14;

/// IPv4's type.
pub(crate) const TYPE_IPV4: u16 = 0x0800;
/// ARP's type.
pub(crate) const TYPE_ARP: u16 = 0x0806;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) destination: MacAddress,
    pub(crate) source: MacAddress,
    pub(crate) ethertype: u16,
}

impl Header {
    /// `None` if the frame is too short.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        Some(Self {
            destination: MacAddress(*frame.first_chunk()?),
            source: MacAddress(*frame.get(6..)?.first_chunk()?),
            ethertype: u16_at(frame, 12)?,
        })
    }

    /// Writes [`HEADER_LEN`] bytes.
    pub(crate) fn write(self, frame: &mut [u8]) {
        frame[..6].copy_from_slice(&self.destination.0);
        frame[6..12].copy_from_slice(&self.source.0);
        frame[12..14].copy_from_slice(&self.ethertype.to_be_bytes());
    }
}
