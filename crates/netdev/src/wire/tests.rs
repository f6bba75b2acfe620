use std::thread;

use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::{Checksum, Gso, PartialChecksum, ReceiveError};

const NOW: Duration = Duration::from_secs(5);
const ANY: usize = 64;

fn pair(config: &WireConfig) -> (WireLink, WireLink) {
    let arena = Arena::new(2 * config.arena_len()).unwrap();
    Wire::pair(&arena, config).unwrap()
}

fn small() -> WireConfig {
    WireConfig { buffers: BufferCounts { small: 16, large: 4 }, ..WireConfig::default() }
}

fn received(link: &mut WireLink, now: Duration, max: usize) -> Vec<(Vec<u8>, Checksum)> {
    let mut frames = Vec::new();
    let count = link
        .receive(now, max, &mut |frame, info| {
            frames.push((frame.as_ref().to_vec(), info.checksum));
        })
        .unwrap();
    assert_eq!(count, frames.len());
    frames
}

#[test]
fn frames_arrive_in_order_and_when_they_are_due() {
    let delay = Duration::from_millis(3);
    let (mut a, mut b) = pair(&WireConfig { delay, ..small() });
    a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
    a.transmit(NOW + delay, &[2; 61], TxInfo::default()).unwrap();
    assert_eq!(b.poll_timeout(), Some(NOW + delay));
    assert!(received(&mut b, NOW + delay - Duration::from_nanos(1), ANY).is_empty());
    assert_eq!(received(&mut b, NOW + delay, ANY), [(vec![1; 60], Checksum::Unverified)]);
    assert_eq!(b.poll_timeout(), Some(NOW + 2 * delay));
    assert_eq!(received(&mut b, NOW + 2 * delay, ANY), [(vec![2; 61], Checksum::Unverified)]);
    assert_eq!(b.poll_timeout(), None);
    assert!(received(&mut a, NOW + 2 * delay, ANY).is_empty(), "nothing comes back");
    assert_eq!((a.statistics().tx_frames, a.statistics().tx_bytes), (2, 121));
    assert_eq!((b.statistics().rx_frames, b.statistics().rx_bytes), (2, 121));
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    let (mut a, mut b) = pair(&WireConfig { queue: 2, ..small() });
    for _ in 0..2 {
        a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
    }
    let refused = a.transmit(NOW, &[1; 60], TxInfo::default());
    assert!(matches!(refused, Err(TransmitError::Full)));
    assert_eq!(received(&mut b, NOW, 1).len(), 1);
    a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
    assert_eq!((a.statistics().tx_frames, a.statistics().tx_full), (3, 1));
}

#[test]
fn a_receiver_that_keeps_its_buffers_fills_the_wire() {
    let buffers = BufferCounts { small: 2, large: 1 };
    let (mut a, mut b) = pair(&WireConfig { buffers, ..small() });
    let mut kept = Vec::new();
    for _ in 0..3 {
        a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
        b.receive(NOW, ANY, &mut |frame, _| kept.push(frame)).unwrap();
    }
    assert!(matches!(a.transmit(NOW, &[1; 60], TxInfo::default()), Err(TransmitError::Full)));
    kept.clear();
    a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
    assert_eq!(received(&mut b, NOW, ANY).len(), 1);
}

#[test]
fn a_super_frame_stays_one_frame_and_is_vouched_for() {
    let (mut a, mut b) = pair(&small());
    let info = TxInfo {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        gso: Some(Gso { size: 1448, header_len: 66 }),
    };
    let frame = vec![7; MAX_SUPER_FRAME_LEN];
    a.transmit(NOW, &frame, info).unwrap();
    assert_eq!(received(&mut b, NOW, ANY), [(frame, Checksum::Verified)]);
}

#[test]
fn without_offload_incomplete_frames_are_refused() {
    let (mut a, _b) = pair(&WireConfig { offload: false, ..small() });
    let checksum = Some(PartialChecksum { start: 34, offset: 16 });
    let refused = a.transmit(NOW, &[0; 100], TxInfo { checksum, gso: None });
    assert!(matches!(refused, Err(TransmitError::Unsupported)));
    let refused = a.transmit(NOW, &[0; 1519], TxInfo::default());
    assert!(matches!(refused, Err(TransmitError::TooLong { len: 1519, max: 1518 })));
    assert_eq!(a.statistics().tx_invalid, 2);
}

#[test]
fn what_is_sent_to_a_dropped_end_is_lost() {
    let (mut a, b) = pair(&WireConfig { queue: 1, ..small() });
    a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
    drop(b);
    for _ in 0..10 {
        a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
    }
    assert!(received(&mut a, NOW, ANY).is_empty());
}

#[test]
fn an_arena_that_is_too_small_is_refused() {
    let config = small();
    let arena = Arena::new(config.arena_len()).unwrap();
    let config = WireConfig { buffers: BufferCounts { small: 2048, large: 512 }, ..config };
    assert!(matches!(Wire::pair(&arena, &config), Err(WireError::Buffers { .. })));
}

/// Whether the link's event is readable within `timeout_ms` (-1: wait for it).
fn readable(link: &WireLink, timeout_ms: i64) -> bool {
    let timeout = (timeout_ms >= 0).then(|| {
        let timeout = Duration::from_millis(timeout_ms.cast_unsigned());
        rustix::event::Timespec::try_from(timeout).unwrap()
    });
    let event = link.event().unwrap();
    poll(&mut [PollFd::new(&event, PollFlags::IN)], timeout.as_ref()).unwrap() == 1
}

#[test]
fn the_event_is_readable_exactly_while_frames_wait() {
    let (mut a, mut b) = pair(&small());
    assert!(!readable(&b, 0));
    for _ in 0..3 {
        a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
    }
    assert!(readable(&b, 0));
    assert_eq!(received(&mut b, NOW, 2).len(), 2);
    assert!(readable(&b, 0), "one frame is left");
    assert_eq!(received(&mut b, NOW, 2).len(), 1);
    assert!(!readable(&b, 0));
}

#[test]
fn a_frame_that_is_not_due_does_not_keep_the_event_readable() {
    let (mut a, mut b) = pair(&WireConfig { delay: Duration::from_secs(1), ..small() });
    a.transmit(NOW, &[1; 60], TxInfo::default()).unwrap();
    assert!(readable(&b, 0), "the receiver must learn of the deadline");
    assert!(received(&mut b, NOW, ANY).is_empty());
    assert!(!readable(&b, 0));
    assert_eq!(b.poll_timeout(), Some(NOW + Duration::from_secs(1)));
}

#[test]
fn two_threads_can_wait_for_each_other() -> Result<(), ReceiveError> {
    const ROUNDS: u32 = 2000;
    let (mut a, mut b) = pair(&small());
    let echo = thread::spawn(move || {
        let mut echoed = 0;
        while echoed < ROUNDS {
            assert!(readable(&b, -1));
            for (frame, _) in received(&mut b, NOW, ANY) {
                b.transmit(NOW, &frame, TxInfo::default()).unwrap();
                echoed += 1;
            }
        }
    });
    for round in 0..ROUNDS {
        let mut frame = [0; 60];
        frame[56..].copy_from_slice(&round.to_be_bytes());
        a.transmit(NOW, &frame, TxInfo::default()).unwrap();
        let mut back = None;
        while back.is_none() {
            assert!(readable(&a, -1));
            a.receive(NOW, 1, &mut |frame, _| back = Some(frame.as_ref().to_vec()))?;
        }
        assert_eq!(back.as_deref(), Some(&frame[..]));
    }
    echo.join().unwrap();
    Ok(())
}
