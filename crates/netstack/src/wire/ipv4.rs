//! IPv4 (RFC 791), without fragments.

use std::net::Ipv4Addr;

use super::{checksum::Sum, u16_at, u32_at};
use crate::DropReason;

/// The header without options, in bytes. We send no options.
pub(crate) const HEADER_LEN: usize = 20;

pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_UDP: u8 = 17;

/// RFC 1700 and Linux's `ip_default_ttl`.
const TTL: u8 = 64;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    /// Bytes of header, with options.
    pub(crate) header_len: usize,
    /// Bytes of header and payload.
    pub(crate) total_len: usize,
}

impl Header {
    /// Checks everything about a received header but its addresses.
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        let header = Self::parse_quoted(packet).ok_or(DropReason::Ipv4Malformed)?;
        let Self { header_len, total_len, .. } = header;
        // Options are skipped: RFC 1122 section 3.2.1.8 lets a host ignore all of them but source
        // routes, whose packets are not for us unless the route ends here.
        if header_len > total_len || total_len > packet.len() {
            return Err(DropReason::Ipv4Malformed);
        }
        if !Sum::of(&packet[..header_len]).is_valid() {
            return Err(DropReason::Ipv4Checksum);
        }
        let fragment = u16_at(packet, 6).unwrap_or_default();
        if fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0 {
            return Err(DropReason::Ipv4Fragment);
        }
        Ok(header)
    }

    /// Reads a header that an ICMP error quotes: routers change what its checksum covers, and cut
    /// its payload.
    pub(crate) fn parse_quoted(packet: &[u8]) -> Option<Self> {
        let version_and_len = *packet.first()?;
        let header_len = usize::from(version_and_len & 0xf) * 4;
        if version_and_len >> 4 != 4 || header_len < HEADER_LEN || packet.len() < header_len {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::from_bits(u32_at(packet, 12)?),
            destination: Ipv4Addr::from_bits(u32_at(packet, 16)?),
            protocol: packet[9],
            header_len,
            total_len: usize::from(u16_at(packet, 2)?),
        })
    }

    /// A header for `payload_len` bytes.
    pub(crate) const fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        payload_len: usize,
    ) -> Self {
        let total_len = HEADER_LEN + payload_len;
        Self { source, destination, protocol, header_len: HEADER_LEN, total_len }
    }

    /// Writes [`HEADER_LEN`] bytes.
    pub(crate) fn write(&self, packet: &mut [u8]) {
        let Self { source, destination, protocol, header_len: _, total_len } = self;
        let total_len = u16::try_from(*total_len).expect("frames are cut to IPv4's length");
        packet[0] = 0x45;
        packet[1] = 0;
        packet[2..4].copy_from_slice(&total_len.to_be_bytes());
        // RFC 6864 section 4.1: a packet that must not be fragmented needs no identification.
        packet[4..6].copy_from_slice(&[0, 0]);
        packet[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
        packet[8] = TTL;
        packet[9] = *protocol;
        packet[10..12].copy_from_slice(&[0, 0]);
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        let sum = Sum::of(&packet[..HEADER_LEN]).complete();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        let mut packet = vec![0; 30];
        let addresses = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        Header::new(addresses.0, addresses.1, PROTOCOL_TCP, 10).write(&mut packet);
        packet
    }

    fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
        packet[10..12].copy_from_slice(&[0, 0]);
        let len = usize::from(packet[0] & 0xf) * 4;
        let sum = Sum::of(&packet[..len]).complete();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    #[test]
    fn what_is_written_is_read() {
        let header = Header::parse(&packet()).expect("valid");
        assert_eq!(header.total_len, 30);
        assert_eq!(header.header_len, 20);
        assert_eq!(header.protocol, PROTOCOL_TCP);
        assert_eq!(header.destination, Ipv4Addr::new(10, 0, 0, 2));
    }

    #[test]
    fn options_are_skipped() {
        let mut packet = packet();
        packet[0] = 0x46;
        let header = Header::parse(&with_checksum(packet)).expect("valid");
        assert_eq!(header.header_len, 24);
    }

    #[test]
    fn faults() {
        let change = |at: usize, value: u8| {
            let mut packet = packet();
            packet[at] = value;
            Header::parse(&with_checksum(packet))
        };
        assert_eq!(change(0, 0x65), Err(DropReason::Ipv4Malformed));
        assert_eq!(change(0, 0x44), Err(DropReason::Ipv4Malformed));
        assert_eq!(change(3, 31), Err(DropReason::Ipv4Malformed));
        assert_eq!(change(3, 19), Err(DropReason::Ipv4Malformed));
        assert_eq!(change(6, 0x20), Err(DropReason::Ipv4Fragment));
        assert_eq!(change(7, 1), Err(DropReason::Ipv4Fragment));
        assert_eq!(Header::parse(&packet()[..19]), Err(DropReason::Ipv4Malformed));
        let mut damaged = packet();
        damaged[8] ^= 1;
        assert_eq!(Header::parse(&damaged), Err(DropReason::Ipv4Checksum));
    }
}
