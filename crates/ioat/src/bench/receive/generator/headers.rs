//! The few headers that a sender writes and reads.

use std::net::Ipv4Addr;

/// In front of the payload of every data frame, in bytes: Ethernet, IPv4, TCP with timestamps. It is
/// Linux's, so that 1448 bytes of payload fill an MTU of 1500.
pub(super) const DATA_HEADER_LEN: usize = IP + 20 + 32;

/// The longest frame without payload, in bytes: a SYN with its options.
pub(super) const CONTROL_FRAME_MAX: usize = IP + 20 + 40;

const IP: usize = 14;
const TCP: usize = IP + 20;
const OPTIONS: usize = TCP + 20;

const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROTOCOL_TCP: u8 = 6;

pub(super) const FIN: u8 = 1 << 0;
pub(super) const SYN: u8 = 1 << 1;
pub(super) const RST: u8 = 1 << 2;
pub(super) const PSH: u8 = 1 << 3;
pub(super) const ACK: u8 = 1 << 4;

/// What is put on a SYN: room for 1448 bytes and timestamps in each frame.
const MSS: u16 = 1460;

/// The window that is offered, as nobody sends anything here.
const WINDOW: u16 = 0xffff;

/// A host on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub address: Ipv4Addr,
}

/// What changes from one frame of a connection to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// `TSval` and `TSecr`.
    pub(super) timestamps: (u32, u32),
}

impl Tcp {
    /// Writes the headers of a frame with `payload` bytes behind them; how long they are.
    pub(super) fn write(
        &self,
        frame: &mut [u8],
        from: Station,
        to: Station,
        payload: usize,
    ) -> usize {
        let syn: &[u8] = if self.flags & SYN == 0 {
            &[1, 1]
        } else {
            let [high, low] = MSS.to_be_bytes();
            // MSS; and a scale of 0, without which the peer may not scale its own window.
            &[2, 4, high, low, 1, 3, 3, 0, 1, 1]
        };
        let header_len = OPTIONS + syn.len() + 10;
        frame[..6].copy_from_slice(&to.mac);
        frame[6..12].copy_from_slice(&from.mac);
        frame[12..IP].copy_from_slice(&TYPE_IPV4);
        let total_len = (header_len - IP + payload) as u16;
        frame[IP..TCP].fill(0);
        frame[IP] = 0x45;
        frame[IP + 2..IP + 4].copy_from_slice(&total_len.to_be_bytes());
        // Not to be fragmented.
        frame[IP + 6] = 0x40;
        frame[IP + 8] = 64;
        frame[IP + 9] = PROTOCOL_TCP;
        frame[IP + 12..IP + 16].copy_from_slice(&from.address.octets());
        frame[IP + 16..TCP].copy_from_slice(&to.address.octets());
        let checksum = internet_checksum(&frame[IP..TCP]);
        frame[IP + 10..IP + 12].copy_from_slice(&checksum.to_be_bytes());
        frame[TCP + 12] = ((header_len - TCP) as u8 / 4) << 4;
        frame[TCP + 14..TCP + 16].copy_from_slice(&WINDOW.to_be_bytes());
        // The checksum, which the link vouches for, and the urgent pointer.
        frame[TCP + 16..OPTIONS].fill(0);
        let timestamps = OPTIONS + syn.len();
        frame[OPTIONS..timestamps].copy_from_slice(syn);
        frame[timestamps..timestamps + 2].copy_from_slice(&[8, 10]);
        self.rewrite(frame, header_len);
        header_len
    }

    /// Writes what changes into a frame whose headers have this length.
    pub(super) fn rewrite(&self, frame: &mut [u8], header_len: usize) {
        let Self { source_port, destination_port, seq, ack, flags, timestamps } = self;
        frame[TCP..TCP + 2].copy_from_slice(&source_port.to_be_bytes());
        frame[TCP + 2..TCP + 4].copy_from_slice(&destination_port.to_be_bytes());
        frame[TCP + 4..TCP + 8].copy_from_slice(&seq.to_be_bytes());
        frame[TCP + 8..TCP + 12].copy_from_slice(&ack.to_be_bytes());
        frame[TCP + 13] = *flags;
        frame[header_len - 8..header_len - 4].copy_from_slice(&timestamps.0.to_be_bytes());
        frame[header_len - 4..header_len].copy_from_slice(&timestamps.1.to_be_bytes());
    }
}

/// What the receiver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Who has this address?
    WhoHas(Ipv4Addr),
    Segment {
        tcp: Tcp,
        /// As it is on the wire.
        window: u16,
        /// The shift of later windows, on a SYN.
        scale: Option<u8>,
    },
}

impl Heard {
    /// Reads a frame; `None` if it says nothing of interest.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let ethertype: [u8; 2] = *frame.get(12..)?.first_chunk()?;
        if ethertype == TYPE_ARP {
            let is_request = frame.get(20..22)? == [0, 1];
            let target: [u8; 4] = *frame.get(38..)?.first_chunk()?;
            return is_request.then(|| Self::WhoHas(target.into()));
        }
        if ethertype != TYPE_IPV4 || *frame.get(IP + 9)? != PROTOCOL_TCP {
            return None;
        }
        let header: &[u8; 20] = frame.get(TCP..)?.first_chunk()?;
        let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let long = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
        let end = TCP + usize::from(header[12] >> 4) * 4;
        let mut tcp = Tcp {
            source_port: short(0),
            destination_port: short(2),
            seq: long(4),
            ack: long(8),
            flags: header[13],
            timestamps: (0, 0),
        };
        let mut scale = None;
        let mut options = frame.get(OPTIONS..end)?;
        while let [kind, rest @ ..] = options {
            // The end of the list, and padding.
            let len = match kind {
                0 => break,
                1 => 1,
                _ => usize::from(*rest.first()?),
            };
            match (kind, rest) {
                (3, [3, shift, ..]) => scale = Some(*shift),
                (8, [10, v0, v1, v2, v3, e0, e1, e2, e3, ..]) => {
                    let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
                    tcp.timestamps = (value, u32::from_be_bytes([*e0, *e1, *e2, *e3]));
                }
                _ => {}
            }
            options = options.get(len.max(1)..)?;
        }
        Some(Self::Segment { tcp, window: short(14), scale })
    }
}

/// Writes the answer to [`Heard::WhoHas`]; how long it is.
pub(super) fn write_arp_reply(frame: &mut [u8], from: Station, to: Station) -> usize {
    const LEN: usize = 14 + 28;
    frame[..6].copy_from_slice(&to.mac);
    frame[6..12].copy_from_slice(&from.mac);
    frame[12..14].copy_from_slice(&TYPE_ARP);
    // Ethernet and IPv4, the lengths of their addresses, a reply.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    frame[22..28].copy_from_slice(&from.mac);
    frame[28..32].copy_from_slice(&from.address.octets());
    frame[32..38].copy_from_slice(&to.mac);
    frame[38..LEN].copy_from_slice(&to.address.octets());
    LEN
}

/// RFC 1071, of an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let (words, _) = bytes.as_chunks::<2>();
    let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Station = Station { mac: [2, 0, 0, 0, 0, 1], address: Ipv4Addr::new(10, 0, 0, 1) };
    const THERE: Station = Station { mac: [2, 0, 0, 0, 0, 2], address: Ipv4Addr::new(10, 0, 0, 2) };

    #[test]
    fn what_is_written_is_read() {
        for flags in [ACK, SYN, FIN | ACK] {
            let tcp = Tcp {
                source_port: 40_000,
                destination_port: 9000,
                seq: 0xffff_fffe,
                ack: 0x0102_0304,
                flags,
                timestamps: (7, 8),
            };
            let mut frame = [0xee; CONTROL_FRAME_MAX];
            let len = tcp.write(&mut frame, HERE, THERE, 0);
            let scale = (flags == SYN).then_some(0);
            let window = WINDOW;
            assert_eq!(Heard::parse(&frame[..len]), Some(Heard::Segment { tcp, window, scale }));
            assert_eq!(internet_checksum(&frame[IP..TCP]), 0, "the header with its checksum");
            for short in 0..len {
                assert_eq!(Heard::parse(&frame[..short]), None, "{short}");
            }
        }
        assert_eq!(DATA_HEADER_LEN + 1448, 14 + 1500);
    }

    #[test]
    fn the_answer_to_a_question_is_no_question() {
        let mut frame = [0; CONTROL_FRAME_MAX];
        let len = write_arp_reply(&mut frame, HERE, THERE);
        assert_eq!(Heard::parse(&frame[..len]), None);
        frame[21] = 1;
        assert_eq!(Heard::parse(&frame[..len]), Some(Heard::WhoHas(THERE.address)));
    }

    #[test]
    fn options_without_a_length_end_the_list() {
        let tcp = Tcp {
            source_port: 1,
            destination_port: 2,
            seq: 3,
            ack: 4,
            flags: ACK,
            timestamps: (5, 6),
        };
        let mut frame = [0; CONTROL_FRAME_MAX];
        let len = tcp.write(&mut frame, HERE, THERE, 0);
        frame[OPTIONS] = 9;
        frame[OPTIONS + 1] = 0;
        assert!(matches!(Heard::parse(&frame[..len]), None | Some(Heard::Segment { .. })));
    }
}
