//! TCP's header (RFC 9293 section 3.1) and options.

use std::ops::Range;

use super::{u16_at, u32_at};
use crate::tcp::seq::SeqNumber;

/// The header without options, in bytes.
pub(crate) const HEADER_LEN: usize = 20;
/// Where the checksum field is, in bytes.
pub(crate) const CHECKSUM_OFFSET: usize = 16;
/// What the timestamps option takes when padded to a multiple of four, in bytes (RFC 7323 appendix
/// A).
pub(crate) const TIMESTAMPS_LEN: usize = 12;

bitflags::bitflags! {
    /// The control bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Flags: u8 {
        const FIN = 1 << 0;
        const SYN = 1 << 1;
        const RST = 1 << 2;
        const PSH = 1 << 3;
        const ACK = 1 << 4;
        const URG = 1 << 5;
    }
}

/// The timestamps option (RFC 7323 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamps {
    /// `TSval`.
    pub(crate) value: u32,
    /// `TSecr`.
    pub(crate) echo: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) timestamps: Option<Timestamps>,
}

/// Option kinds, from the IANA registry.
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const TIMESTAMPS: u8 = 8;
}

impl Options {
    /// Reads the options it knows. As in Linux, what follows an impossible length is ignored.
    fn parse(mut data: &[u8]) -> Self {
        let mut options = Self::default();
        while let [kind, rest @ ..] = data {
            match *kind {
                kind::END => break,
                kind::NOP => {
                    data = rest;
                    continue;
                }
                _ => {}
            }
            let len = rest.first().copied().map_or(0, usize::from);
            if len < 2 || len > data.len() {
                break;
            }
            match (*kind, len) {
                (kind::MSS, 4) => options.mss = u16_at(data, 2),
                (kind::WINDOW_SCALE, 3) => options.window_scale = Some(data[2]),
                (kind::TIMESTAMPS, 10) => {
                    options.timestamps = u32_at(data, 2)
                        .zip(u32_at(data, 6))
                        .map(|(value, echo)| Timestamps { value, echo });
                }
                _ => {}
            }
            data = &data[len..];
        }
        options
    }

    /// Their length in bytes, with padding.
    const fn len(&self) -> usize {
        let Self { mss, window_scale, timestamps } = self;
        let mut len = 0;
        if mss.is_some() {
            len += 4;
        }
        if window_scale.is_some() {
            len += 4;
        }
        if timestamps.is_some() {
            len += TIMESTAMPS_LEN;
        }
        len
    }

    fn write(&self, data: &mut [u8]) {
        let Self { mss, window_scale, timestamps } = self;
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            data[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let Some(mss) = mss {
            put(&[kind::MSS, 4]);
            put(&mss.to_be_bytes());
        }
        if let Some(scale) = window_scale {
            put(&[kind::NOP, kind::WINDOW_SCALE, 3, *scale]);
        }
        if let Some(Timestamps { value, echo }) = timestamps {
            put(&[kind::NOP, kind::NOP, kind::TIMESTAMPS, 10]);
            put(&value.to_be_bytes());
            put(&echo.to_be_bytes());
        }
    }
}

/// A header. The acknowledgment number counts only with [`Flags::ACK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) seq: SeqNumber,
    pub(crate) ack: SeqNumber,
    pub(crate) flags: Flags,
    /// As it is on the wire, unscaled.
    pub(crate) window: u16,
    /// Where urgent data ends, counted from `seq` on; only with [`Flags::URG`].
    pub(crate) urgent: u16,
    pub(crate) options: Options,
}

impl Header {
    /// Reads a segment's header and finds its payload; `None` if it is truncated, or its ports or
    /// length are impossible.
    pub(crate) fn parse(segment: &[u8]) -> Option<(Self, Range<usize>)> {
        let header: &[u8; HEADER_LEN] = segment.first_chunk()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let options = segment.get(HEADER_LEN..header_len)?;
        let header = Self {
            source_port: u16::from_be_bytes([header[0], header[1]]),
            destination_port: u16::from_be_bytes([header[2], header[3]]),
            seq: SeqNumber(u32_at(header, 4)?),
            ack: SeqNumber(u32_at(header, 8)?),
            flags: Flags::from_bits_truncate(header[13]),
            window: u16::from_be_bytes([header[14], header[15]]),
            urgent: u16::from_be_bytes([header[18], header[19]]),
            options: Options::parse(options),
        };
        if header.source_port == 0 || header.destination_port == 0 {
            return None;
        }
        Some((header, header_len..segment.len()))
    }

    /// The header's length in bytes, with options.
    pub(crate) const fn len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Writes [`len`](Self::len) bytes, with a checksum of zero.
    pub(crate) fn write(&self, segment: &mut [u8]) {
        let Self { source_port, destination_port, seq, ack, flags, window, urgent, options } = self;
        segment[0..2].copy_from_slice(&source_port.to_be_bytes());
        segment[2..4].copy_from_slice(&destination_port.to_be_bytes());
        segment[4..8].copy_from_slice(&seq.0.to_be_bytes());
        segment[8..12].copy_from_slice(&ack.0.to_be_bytes());
        segment[12] = ((self.len() / 4) << 4) as u8;
        segment[13] = flags.bits();
        segment[14..16].copy_from_slice(&window.to_be_bytes());
        segment[16..18].fill(0);
        segment[18..20].copy_from_slice(&urgent.to_be_bytes());
        options.write(&mut segment[HEADER_LEN..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(options: Options) -> Header {
        Header {
            source_port: 1,
            destination_port: 65535,
            seq: SeqNumber(0x0102_0304),
            ack: SeqNumber(0xa0b0_c0d0),
            flags: Flags::SYN | Flags::ACK | Flags::URG,
            window: 512,
            urgent: 0x0304,
            options,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mss = Some(1460);
        let window_scale = Some(7);
        let timestamps = Some(Timestamps { value: 1, echo: u32::MAX });
        for options in [
            Options::default(),
            Options { mss, ..Options::default() },
            Options { timestamps, ..Options::default() },
            Options { mss, window_scale, timestamps },
        ] {
            let header = header(options);
            let mut segment = [0xee; 64];
            header.write(&mut segment);
            let len = header.len();
            assert_eq!(Header::parse(&segment[..len + 3]), Some((header, len..len + 3)));
            assert_eq!(Header::parse(&segment[..len - 1]), None);
        }
    }

    #[test]
    fn impossible_options_end_the_list() {
        let good = [2, 4, 5, 0xb4];
        for bad in [&[8][..], &[8, 0], &[8, 1], &[8, 11, 0], &[0, 8, 10]] {
            let data = [&good[..], bad].concat();
            assert_eq!(Options::parse(&data), Options { mss: Some(1460), ..Options::default() });
        }
        // A known kind with another length is skipped.
        let data = [2, 3, 0, 3, 3, 9];
        assert_eq!(Options::parse(&data).window_scale, Some(9));
    }

    #[test]
    fn impossible_headers_are_refused() {
        let mut segment = [0; 24];
        header(Options::default()).write(&mut segment);
        segment[12] = 4 << 4;
        assert_eq!(Header::parse(&segment), None);
        segment[12] = 7 << 4;
        assert_eq!(Header::parse(&segment), None);
        segment[12] = 5 << 4;
        segment[0..2].fill(0);
        assert_eq!(Header::parse(&segment), None);
    }
}
