//! ARP for Ethernet and IPv4 (RFC 826).

use std::net::Ipv4Addr;

use super::{ethernet::TYPE_IPV4, u16_at, u32_at};
use crate::MacAddress;

/// The packet's length in bytes.
pub(crate) const LEN: usize = 28;

const HARDWARE_ETHERNET: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Request,
    Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) operation: Operation,
    pub(crate) sender_mac: MacAddress,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target_mac: MacAddress,
    pub(crate) target: Ipv4Addr,
}

impl Packet {
    /// `None` if it is truncated, or for other protocols.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let lengths = [6, 4];
        if u16_at(data, 0)? != HARDWARE_ETHERNET
            || u16_at(data, 2)? != TYPE_IPV4
            || data.get(4..6)? != lengths
        {
            return None;
        }
        let operation = match u16_at(data, 6)? {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_mac: MacAddress(*data.get(8..)?.first_chunk()?),
            sender: Ipv4Addr::from_bits(u32_at(data, 14)?),
            target_mac: MacAddress(*data.get(18..)?.first_chunk()?),
            target: Ipv4Addr::from_bits(u32_at(data, 24)?),
        })
    }

    /// Writes [`LEN`] bytes.
    pub(crate) fn write(&self, data: &mut [u8]) {
        let Self { operation, sender_mac, sender, target_mac, target } = self;
        data[0..2].copy_from_slice(&HARDWARE_ETHERNET.to_be_bytes());
        data[2..4].copy_from_slice(&TYPE_IPV4.to_be_bytes());
        data[4..6].copy_from_slice(&[6, 4]);
        let operation: u16 = match operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        data[6..8].copy_from_slice(&operation.to_be_bytes());
        data[8..14].copy_from_slice(&sender_mac.0);
        data[14..18].copy_from_slice(&sender.octets());
        data[18..24].copy_from_slice(&target_mac.0);
        data[24..28].copy_from_slice(&target.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for operation in [Operation::Request, Operation::Reply] {
            let packet = Packet {
                operation,
                sender_mac: MacAddress([2, 1, 2, 3, 4, 5]),
                sender: Ipv4Addr::new(10, 0, 0, 1),
                target_mac: MacAddress([2, 9, 8, 7, 6, 5]),
                target: Ipv4Addr::new(10, 0, 0, 2),
            };
            let mut data = [0; LEN];
            packet.write(&mut data);
            assert_eq!(Packet::parse(&data), Some(packet));
            assert_eq!(Packet::parse(&data[..LEN - 1]), None);
            data[4] = 8;
            assert_eq!(Packet::parse(&data), None);
        }
    }
}
