//! The virtio-net header in front of each frame: virtio 1.2, section 5.1.6, `struct
//! virtio_net_hdr` without `num_buffers`.
//!
//! ```text
//!  0      1          2        4         6           8             10
//!  +------+----------+--------+---------+-----------+-------------+
//!  | flags| gso_type | hdr_len| gso_size| csum_start| csum_offset |
//!  +------+----------+--------+---------+-----------+-------------+
//! ```
//!
//! The kernel writes the fields in the byte order of this machine unless `TUNSETVNETLE` or
//! `TUNSETVNETBE` was used.

use crate::{
    Checksum, Gso, PartialChecksum, RxInfo, TransmitError, TxInfo, offload::ETHERNET_HEADER_LEN,
};

/// Length in bytes, which `TUNSETVNETHDRSZ` is told.
pub(super) const HEADER_LEN: usize = 10;

/// `flags`: the checksum is partial (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
const NEEDS_CSUM: u8 = 1;
/// `flags`: a device has verified the checksum (`VIRTIO_NET_HDR_F_DATA_VALID`).
const DATA_VALID: u8 = 2;

/// `gso_type`: not to be cut (`VIRTIO_NET_HDR_GSO_NONE`).
const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
const GSO_TCPV4: u8 = 1;
/// `gso_type`: TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
const GSO_TCPV6: u8 = 4;
/// Bit of `gso_type`: TCP's CWR is set in the first segment (`VIRTIO_NET_HDR_GSO_ECN`).
const GSO_ECN: u8 = 0x80;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// A received header offers what was never negotiated, or points outside its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadHeader;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VirtioNetHeader {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl VirtioNetHeader {
    pub(super) const fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        }
    }

    pub(super) const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// What the header says about a received frame of `frame_len` bytes.
    pub(super) fn rx_info(self, frame_len: usize) -> Result<RxInfo, BadHeader> {
        // `hdr_len` is a hint (virtio 1.2, 5.1.6.3.2): the stack parses the frame anyway.
        let Self { flags, gso_type, hdr_len: _, gso_size, csum_start, csum_offset } = self;
        match gso_type & !GSO_ECN {
            GSO_NONE => {}
            GSO_TCPV4 | GSO_TCPV6 if gso_size > 0 => {}
            _ => return Err(BadHeader),
        }
        if flags & NEEDS_CSUM != 0
            && usize::from(csum_start) + usize::from(csum_offset) + 2 > frame_len
        {
            return Err(BadHeader);
        }
        let vouched_for = flags & (NEEDS_CSUM | DATA_VALID) != 0;
        let checksum = if vouched_for { Checksum::Verified } else { Checksum::Unverified };
        Ok(RxInfo { checksum })
    }

    /// The header for a frame whose `info` was [checked](TxInfo::check).
    pub(super) fn for_frame(frame: &[u8], info: TxInfo) -> Result<Self, TransmitError> {
        let mut header = Self::default();
        if let Some(PartialChecksum { start, offset }) = info.checksum {
            header.flags = NEEDS_CSUM;
            header.csum_start = start;
            header.csum_offset = offset;
        }
        if let Some(Gso { size, header_len }) = info.gso {
            header.gso_type = match frame.get(ETHERNET_HEADER_LEN - 2..ETHERNET_HEADER_LEN) {
                Some(kind) if kind == ETHERTYPE_IPV4 => GSO_TCPV4,
                Some(kind) if kind == ETHERTYPE_IPV6 => GSO_TCPV6,
                _ => return Err(TransmitError::Unsupported),
            };
            header.gso_size = size;
            header.hdr_len = header_len;
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTIAL: VirtioNetHeader = VirtioNetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 34,
        csum_offset: 16,
    };

    fn checksum(header: VirtioNetHeader) -> Option<Checksum> {
        header.rx_info(100).ok().map(|info| info.checksum)
    }

    #[test]
    fn only_the_two_flags_vouch_for_a_checksum() {
        assert_eq!(checksum(VirtioNetHeader::default()), Some(Checksum::Unverified));
        assert_eq!(checksum(PARTIAL), Some(Checksum::Verified));
        let valid = VirtioNetHeader { flags: DATA_VALID, ..Default::default() };
        assert_eq!(checksum(valid), Some(Checksum::Verified));
        let other = VirtioNetHeader { flags: 4, ..Default::default() };
        assert_eq!(checksum(other), Some(Checksum::Unverified));
    }

    #[test]
    fn the_checksum_field_lies_inside_the_frame() {
        assert!(PARTIAL.rx_info(52).is_ok());
        assert_eq!(PARTIAL.rx_info(51), Err(BadHeader));
        let far = VirtioNetHeader { csum_start: u16::MAX, csum_offset: u16::MAX, ..PARTIAL };
        assert_eq!(far.rx_info(65_549), Err(BadHeader));
    }

    #[test]
    fn only_negotiated_kinds_of_super_frame_are_taken() {
        for gso_type in 0..=u8::MAX {
            let header = VirtioNetHeader { gso_type, gso_size: 1448, ..PARTIAL };
            let negotiated = [0, 1, 4, 0x80, 0x81, 0x84].contains(&gso_type);
            assert_eq!(header.rx_info(100).is_ok(), negotiated, "gso_type {gso_type}");
        }
        let endless = VirtioNetHeader { gso_type: GSO_TCPV4, gso_size: 0, ..PARTIAL };
        assert_eq!(endless.rx_info(100), Err(BadHeader));
    }

    #[test]
    fn bytes_lie_where_virtio_puts_them() {
        let mut frame = [0; 100];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV6);
        let info = TxInfo {
            checksum: Some(PartialChecksum { start: 54, offset: 16 }),
            gso: Some(Gso { size: 1428, header_len: 86 }),
        };
        let header = VirtioNetHeader::for_frame(&frame, info).unwrap();
        let mut expected = vec![1, 4];
        for field in [86_u16, 1428, 54, 16] {
            expected.extend(field.to_ne_bytes());
        }
        assert_eq!(header.to_bytes(), *expected);
        assert_eq!(VirtioNetHeader::from_bytes(header.to_bytes()), header);
    }

    #[test]
    fn only_ip_can_be_cut() {
        let info = TxInfo {
            checksum: Some(PartialChecksum { start: 34, offset: 16 }),
            gso: Some(Gso { size: 1448, header_len: 66 }),
        };
        let refused = VirtioNetHeader::for_frame(&[0; 100], info).unwrap_err();
        assert!(matches!(refused, TransmitError::Unsupported));
    }
}
