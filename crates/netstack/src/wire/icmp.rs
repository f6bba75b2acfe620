//! ICMP (RFC 792): echo, and destination unreachable.

use super::{checksum::Sum, u16_at, u32_at};
use crate::{DropReason, tcp::seq::SeqNumber};

/// Type, code, checksum and four bytes that depend on the type.
pub(crate) const HEADER_LEN: usize = 8;

const ECHO_REPLY: u8 = 0;
const DESTINATION_UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;

/// The codes of a destination unreachable that something here acts upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// Code 2: the host does not know the transport protocol.
    Protocol,
    /// Code 3: nobody has the port.
    Port,
    /// Code 4: the packet is longer than the next link's MTU, which is given in bytes (RFC 1191; 0
    /// from routers that are older than it).
    FragmentationNeeded { mtu: u16 },
    /// Any other: a network or host that cannot be reached at the moment.
    Other,
}

/// A message, in the part of a packet that follows the IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    EchoRequest,
    Unreachable { reason: Unreachable, quoted: &'a [u8] },
}

impl<'a> Message<'a> {
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self, DropReason> {
        if data.len() < HEADER_LEN {
            return Err(DropReason::IcmpMalformed);
        }
        if !Sum::of(data).is_valid() {
            return Err(DropReason::IcmpChecksum);
        }
        match (data[0], data[1]) {
            (ECHO_REQUEST, 0) => Ok(Self::EchoRequest),
            (DESTINATION_UNREACHABLE, code) => {
                let reason = match code {
                    2 => Unreachable::Protocol,
                    3 => Unreachable::Port,
                    4 => Unreachable::FragmentationNeeded {
                        mtu: u16_at(data, 6).unwrap_or_default(),
                    },
                    _ => Unreachable::Other,
                };
                Ok(Self::Unreachable { reason, quoted: &data[HEADER_LEN..] })
            }
            _ => Err(DropReason::IcmpUnknownType),
        }
    }
}

/// The ports (source, destination) and the sequence number of a quoted TCP segment.
pub(crate) fn quoted_tcp(segment: &[u8]) -> Option<((u16, u16), SeqNumber)> {
    Some(((u16_at(segment, 0)?, u16_at(segment, 2)?), SeqNumber(u32_at(segment, 4)?)))
}

/// Writes the answer to an echo request, which is as long as the request.
pub(crate) fn write_echo_reply(request: &[u8], reply: &mut [u8]) {
    let reply = &mut reply[..request.len()];
    reply.copy_from_slice(request);
    reply[0] = ECHO_REPLY;
    write_checksum(reply);
}

/// Writes a destination unreachable that quotes the start of `packet`; returns its length.
pub(crate) fn write_unreachable(reason: Unreachable, packet: &[u8], message: &mut [u8]) -> usize {
    // RFC 792: the IP header, here 60 bytes at most, and 8 bytes of what follows it.
    const QUOTE: usize = 68;
    let quoted = &packet[..packet.len().min(QUOTE)];
    let message = &mut message[..HEADER_LEN + quoted.len()];
    message[..HEADER_LEN].fill(0);
    message[0] = DESTINATION_UNREACHABLE;
    message[1] = match reason {
        Unreachable::Other => 1,
        Unreachable::Protocol => 2,
        Unreachable::Port => 3,
        Unreachable::FragmentationNeeded { mtu } => {
            message[6..8].copy_from_slice(&mtu.to_be_bytes());
            4
        }
    };
    message[HEADER_LEN..].copy_from_slice(quoted);
    write_checksum(message);
    message.len()
}

fn write_checksum(message: &mut [u8]) {
    message[2..4].copy_from_slice(&[0, 0]);
    let sum = Sum::of(message).complete();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo() {
        let mut request = [8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7];
        write_checksum(&mut request);
        assert_eq!(Message::parse(&request), Ok(Message::EchoRequest));
        let mut reply = [0xff; 20];
        write_echo_reply(&request, &mut reply);
        assert!(Sum::of(&reply[..11]).is_valid());
        assert_eq!(reply[0], 0);
        assert_eq!(reply[4..11], request[4..]);
        request[9] ^= 1;
        assert_eq!(Message::parse(&request), Err(DropReason::IcmpChecksum));
        assert_eq!(Message::parse(&request[..7]), Err(DropReason::IcmpMalformed));
    }

    #[test]
    fn unreachable() {
        let packet = [7; 100];
        for reason in [
            Unreachable::Other,
            Unreachable::Protocol,
            Unreachable::Port,
            Unreachable::FragmentationNeeded { mtu: 1400 },
        ] {
            let mut message = [0xff; 100];
            let len = write_unreachable(reason, &packet, &mut message);
            assert_eq!(
                Message::parse(&message[..len]),
                Ok(Message::Unreachable { reason, quoted: &packet[..68] })
            );
        }
    }

    #[test]
    fn unknown_types_are_told_apart() {
        let mut message = [13, 0, 0, 0, 0, 0, 0, 0];
        write_checksum(&mut message);
        assert_eq!(Message::parse(&message), Err(DropReason::IcmpUnknownType));
    }
}
