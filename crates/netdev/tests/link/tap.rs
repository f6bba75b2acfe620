//! The TAP against the kernel's end of it.

use std::time::Duration;

use dmaengine::{Arena, PacketBuf};
use netdev::{
    BufferCounts, Checksum, Gso, Link, OpenError, PartialChecksum, ReceiveError, RxInfo, Tap,
    TapConfig, TransmitError, TxInfo,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::namespace::{self, KernelEnd, in_namespace, set_up};

const NAME: &str = "ioat0";
const NOW: Duration = Duration::ZERO;
/// IEEE 802's Ethernet type for local experiments: the kernel leaves such frames alone.
const EXPERIMENT: u16 = 0x88b5;
const IPV4: u16 = 0x0800;

fn open(config: &TapConfig) -> Result<Tap, OpenError> {
    Tap::open(&Arena::new(config.arena_len()).unwrap(), config)
}

/// A TAP, or a failed test that says what the machine lacks.
fn opened(config: &TapConfig) -> Tap {
    open(config).unwrap_or_else(|error| panic!("{error}"))
}

/// A TAP that is up, and the kernel's end of it.
fn tap(config: &TapConfig, protocol: u16) -> (Tap, KernelEnd) {
    let tap = opened(config);
    set_up(NAME);
    let kernel = KernelEnd::new(NAME, protocol);
    (tap, kernel)
}

fn small() -> TapConfig {
    TapConfig { buffers: BufferCounts { small: 64, large: 4 }, ..TapConfig::new(NAME) }
}

/// A frame of `len` bytes to everybody.
fn frame(protocol: u16, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&protocol.to_be_bytes());
    frame
}

/// An IPv4 TCP super-frame with `payload` bytes: what both sides need to accept it for cutting.
fn super_frame(payload: usize) -> Vec<u8> {
    let mut frame = frame(IPV4, 14 + 20 + 20 + payload);
    let total = (frame.len() - 14) as u16;
    frame[14..34]
        .copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[34..54].fill(0);
    frame[46] = 5 << 4;
    frame[47] = 0x10;
    frame
}

/// The fields of a virtio-net header: flags, type, header length, segment size, checksum's place.
fn virtio(flags: u8, gso_type: u8, fields: [u16; 4]) -> [u8; 10] {
    let mut header = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
    for (at, field) in header[2..].chunks_exact_mut(2).zip(fields) {
        at.copy_from_slice(&field.to_ne_bytes());
    }
    header
}

/// Waits until `count` frames of this Ethernet type have come. The kernel sends frames of its own
/// on a new interface (router solicitations).
fn receive(tap: &mut Tap, protocol: u16, count: usize) -> Vec<(PacketBuf, RxInfo)> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let event = tap.event().expect("there are buffers");
        poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
        tap.receive(NOW, 1, &mut |frame, info| {
            if frame.as_ref()[12..14] == protocol.to_be_bytes() {
                frames.push((frame, info));
            }
        })
        .unwrap();
    }
    frames
}

#[test]
fn frames_pass_in_both_directions() {
    in_namespace("tap::frames_pass_in_both_directions", || {
        let (mut tap, kernel) = tap(&small(), EXPERIMENT);
        let sent = frame(EXPERIMENT, 1514);
        kernel.send([0; 10], &sent);
        let (received, info) = receive(&mut tap, EXPERIMENT, 1).remove(0);
        assert_eq!((received.as_ref(), info.checksum), (&*sent, Checksum::Unverified));
        assert_eq!(received.truesize(), 2048, "a short frame does not hold a large slot");

        let sent = frame(EXPERIMENT, 60);
        tap.transmit(NOW, &sent, TxInfo::default()).unwrap();
        let (header, received) = kernel.receive();
        assert_eq!((header, received), ([0; 10], sent));
        assert_eq!((tap.statistics().tx_frames, tap.statistics().tx_bytes), (1, 60));
    });
}

#[test]
fn a_super_frame_is_received_in_one_piece() {
    in_namespace("tap::a_super_frame_is_received_in_one_piece", || {
        let (mut tap, kernel) = tap(&small(), IPV4);
        // Linux cuts frames of 64 KiB and more (GSO_LEGACY_MAX_SIZE), Ethernet header included.
        let sent = super_frame(65_535 - 54);
        kernel.send(virtio(1, 1, [54, 1448, 34, 16]), &sent);
        let (received, info) = receive(&mut tap, IPV4, 1).remove(0);
        assert_eq!(info.checksum, Checksum::Verified);
        assert!(received.as_ref() == sent, "{} of {} bytes", received.as_ref().len(), sent.len());
        assert_eq!(received.truesize(), 69_632);
    });
}

#[test]
fn a_super_frame_is_transmitted_in_one_piece() {
    in_namespace("tap::a_super_frame_is_transmitted_in_one_piece", || {
        let (mut tap, kernel) = tap(&small(), IPV4);
        let sent = super_frame(60_000);
        let info = TxInfo {
            checksum: Some(PartialChecksum { start: 34, offset: 16 }),
            gso: Some(Gso { size: 1448, header_len: 54 }),
        };
        tap.transmit(NOW, &sent, info).unwrap();
        let (header, received) = kernel.receive();
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
        assert_eq!(header[..2], [1, 1], "partial checksum, TCP over IPv4");
        assert_eq!(header[4..], virtio(0, 0, [0, 1448, 34, 16])[4..]);
    });
}

#[test]
fn without_offload_the_kernel_completes_frames_first() {
    in_namespace("tap::without_offload_the_kernel_completes_frames_first", || {
        let (mut tap, kernel) = tap(&TapConfig { offload: false, ..small() }, IPV4);
        kernel.send(virtio(1, 1, [54, 1448, 34, 16]), &super_frame(10 * 1448));
        let frames = receive(&mut tap, IPV4, 10);
        for (frame, info) in frames {
            assert_eq!((frame.as_ref().len(), info.checksum), (1448 + 54, Checksum::Unverified));
        }
        let info = TxInfo { checksum: Some(PartialChecksum { start: 34, offset: 16 }), gso: None };
        let refused = tap.transmit(NOW, &super_frame(100), info);
        assert!(matches!(refused, Err(TransmitError::Unsupported)));
    });
}

#[test]
fn without_buffers_long_frames_are_dropped_and_short_ones_pass() {
    in_namespace("tap::without_buffers_long_frames_are_dropped_and_short_ones_pass", || {
        let buffers = BufferCounts { small: 64, large: 2 };
        let (mut tap, kernel) = tap(&TapConfig { buffers, ..small() }, IPV4);
        assert_eq!(tap.info().receive_memory, 2 * 69_632);
        let header = virtio(1, 1, [54, 1448, 34, 16]);
        // Too long for a small slot.
        let long = super_frame(3000);
        let short = frame(IPV4, 60);
        for _ in 0..3 {
            kernel.send(header, &long);
        }
        kernel.send([0; 10], &short);
        let mut kept = receive(&mut tap, IPV4, 3);
        let lengths: Vec<_> = kept.iter().map(|(frame, _)| frame.as_ref().len()).collect();
        assert_eq!(lengths, [long.len(), long.len(), short.len()]);
        assert_eq!(tap.statistics().rx_no_buffer, 1);

        // One that comes back serves the next.
        kept.remove(0);
        kernel.send(header, &long);
        kernel.send(header, &long);
        kernel.send([0; 10], &short);
        kept.extend(receive(&mut tap, IPV4, 2));
        let lengths: Vec<_> = kept.iter().map(|(frame, _)| frame.as_ref().len()).collect();
        assert_eq!(lengths, [long.len(), short.len(), long.len(), short.len()]);
        assert_eq!(tap.statistics().rx_no_buffer, 2);
    });
}

#[test]
fn a_frame_that_outgrew_its_buffer_is_dropped_and_counted() {
    in_namespace("tap::a_frame_that_outgrew_its_buffer_is_dropped_and_counted", || {
        let (mut tap, kernel) = tap(&TapConfig { offload: false, ..small() }, EXPERIMENT);
        namespace::set_mtu(NAME, 9000);
        kernel.send([0; 10], &frame(EXPERIMENT, 9000));
        kernel.send([0; 10], &frame(EXPERIMENT, 100));
        assert_eq!(receive(&mut tap, EXPERIMENT, 1)[0].0.as_ref().len(), 100);
        assert_eq!(tap.statistics().rx_truncated, 1);
    });
}

#[test]
fn a_link_that_is_down_says_so() {
    in_namespace("tap::a_link_that_is_down_says_so", || {
        let mut tap = opened(&small());
        let refused = tap.transmit(NOW, &frame(EXPERIMENT, 60), TxInfo::default());
        assert!(matches!(refused, Err(TransmitError::Down)), "{refused:?}");
        assert_eq!(tap.statistics().tx_failed, 1);
    });
}

#[test]
fn a_link_that_was_deleted_says_so() {
    in_namespace("tap::a_link_that_was_deleted_says_so", || {
        let (mut tap, _kernel) = tap(&small(), EXPERIMENT);
        namespace::delete(NAME);
        let gone = loop {
            match tap.receive(NOW, 8, &mut |_, _| {}) {
                Ok(_) => {}
                Err(gone) => break gone,
            }
        };
        assert!(matches!(gone, ReceiveError::Gone), "{gone:?}");
        let gone = tap.transmit(NOW, &frame(EXPERIMENT, 60), TxInfo::default());
        assert!(matches!(gone, Err(TransmitError::Gone)), "{gone:?}");
    });
}

#[test]
fn the_interface_vanishes_with_the_link() {
    in_namespace("tap::the_interface_vanishes_with_the_link", || {
        let tap = opened(&small());
        assert!(!tap.is_persistent());
        assert_eq!(tap.info().name, NAME);
        assert_eq!((tap.info().mtu, tap.info().tso_max), (1500, Some(65_549)));
        assert_eq!(tap.info().mac[0] & 1, 0, "unicast");
        assert!(namespace::exists(NAME));
        drop(tap);
        assert!(!namespace::exists(NAME));
    });
}

#[test]
fn the_kernel_can_pick_the_number() {
    in_namespace("tap::the_kernel_can_pick_the_number", || {
        let config = TapConfig { name: "ioat%d".into(), ..small() };
        let taps = [opened(&config), opened(&config)];
        assert_eq!(taps.map(|tap| tap.info().name.clone()), ["ioat0", "ioat1"]);
    });
}

#[test]
fn a_link_has_one_user() {
    in_namespace("tap::a_link_has_one_user", || {
        let _tap = opened(&small());
        assert!(matches!(open(&small()), Err(OpenError::Busy { .. })));
        let other = TapConfig { name: "lo".into(), ..small() };
        assert!(matches!(open(&other), Err(OpenError::NotATap { .. })));
    });
}

#[test]
fn an_arena_that_is_too_small_is_refused_and_leaves_no_link() {
    in_namespace("tap::an_arena_that_is_too_small_is_refused_and_leaves_no_link", || {
        let refused = Tap::open(&Arena::new(4096).unwrap(), &small());
        assert!(matches!(refused, Err(OpenError::Buffers { .. })));
        assert!(!namespace::exists(NAME));
    });
}
