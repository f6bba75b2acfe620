use pcap_file::pcap::PcapReader;

use super::*;
use crate::{BufferCounts, Wire, WireConfig, WireLink};

fn wire() -> (WireLink, WireLink) {
    let config =
        WireConfig { buffers: BufferCounts { small: 16, large: 4 }, ..WireConfig::default() };
    let arena = dmaengine::Arena::new(2 * config.arena_len()).unwrap();
    Wire::pair(&arena, &config).unwrap()
}

/// A disk that is full after `room` bytes.
struct FullDisk {
    room: usize,
}

impl Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = bytes.len().min(self.room);
        self.room -= written;
        if written == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(written) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn both_directions_are_captured_with_nanoseconds() {
    let (link, mut other) = wire();
    let epoch = Duration::from_secs(1_700_000_000);
    let mut link = Capture::new(link, Vec::new(), epoch).unwrap();
    let sent = [1; 60];
    let received = [2; 1514];
    link.transmit(Duration::from_nanos(17), &sent, TxInfo::default()).unwrap();
    other.transmit(Duration::from_nanos(18), &received, TxInfo::default()).unwrap();
    assert!(link.transmit(Duration::from_nanos(19), &[3; 5], TxInfo::default()).is_err());
    link.receive(Duration::from_nanos(20), 8, &mut |frame, _| assert_eq!(frame.as_ref(), received))
        .unwrap();

    let (_, written) = link.finish();
    let written = written.unwrap().unwrap();
    let mut reader = PcapReader::new(&*written).unwrap();
    assert_eq!(reader.header().ts_resolution, TsResolution::NanoSecond);
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap().into_owned();
        packets.push((packet.timestamp - epoch, packet.orig_len, packet.data.into_owned()));
    }
    assert_eq!(
        packets,
        [
            (Duration::from_nanos(17), 60, sent.to_vec()),
            (Duration::from_nanos(20), 1514, received.to_vec())
        ]
    );
}

#[test]
fn a_full_disk_ends_the_capture_and_not_the_link() {
    let (link, mut other) = wire();
    let mut link = Capture::new(link, FullDisk { room: 10_000 }, Duration::ZERO).unwrap();
    let mut errors = 0;
    for _ in 0..100 {
        link.transmit(Duration::ZERO, &[1; 1514], TxInfo::default()).unwrap();
        other
            .receive(Duration::ZERO, 1, &mut |frame, _| assert_eq!(frame.as_ref(), [1; 1514]))
            .unwrap();
        errors += usize::from(link.take_error().is_some());
    }
    assert_eq!(errors, 1, "it is reported once");
    assert_eq!(other.statistics().rx_frames, 100);
    assert!(link.finish().1.unwrap().is_none());
}

#[test]
fn an_error_at_the_very_end_is_not_lost() {
    let (link, _other) = wire();
    let mut link = Capture::new(link, FullDisk { room: 10 }, Duration::ZERO).unwrap();
    link.transmit(Duration::ZERO, &[1; 60], TxInfo::default()).unwrap();
    assert!(link.take_error().is_none(), "it is still buffered");
    assert_eq!(link.finish().1.err().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
}
