//! Copies through a queue: wrapping counts, full rings, refusals, two channels.

use std::time::Instant;

use dmaengine::{DmaDevice, Queue, Status, SubmitError};
use ioat_model::{Config, Stepped};
use ioatdma::Options;

use crate::rig::{Copies, DEADLINE, Rig, Threaded, check};

#[test]
fn dmacount_wraps_under_a_running_queue() {
    let mut rig = Rig::<Threaded>::new(Config::default(), Options::default());
    let mut buffers: Vec<_> = (0..500).map(|_| (rig.buffer(64, 1), rig.buffer(64, 0))).collect();
    for round in 0..300_u32 {
        for (mut source, mut target) in buffers.drain(..) {
            source.fill(round as u8);
            target.fill(!round as u8);
            rig.queue.copy(source.slice(0..64), target.slice(0..64), 0).expect("room");
        }
        rig.queue.issue_pending();
        for done in rig.wait_for(500) {
            assert_eq!(done.status, Status::Success);
            let (source, target) = (done.source.into_inner(), done.target.into_inner());
            assert_eq!(*source, *target);
            buffers.push((source, target));
        }
    }
}

#[test]
fn a_full_ring_refuses_and_gets_its_capacity_back() {
    let options = Options { ring_order: 4, ..Options::default() };
    let mut rig = Rig::<Stepped>::new(Config::default(), options);
    let ring_size = rig.queue.info().ring_size;
    assert_eq!(ring_size, 13);
    for _ in 0..100 {
        assert_eq!(rig.queue.space(), ring_size);
        for number in 0..ring_size {
            rig.submit(number, 50);
        }
        let refused = rig.queue.copy(
            rig.arena.alloc(8).expect("room").slice(0..8),
            rig.arena.alloc(8).expect("room").slice(0..8),
            0,
        );
        assert_eq!(refused.expect_err("full").error, SubmitError::RingFull);
        rig.queue.issue_pending();
        rig.wait_for(ring_size).iter().for_each(|done| check(done, Status::Success));
    }
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let config = Config { channels: 2, xfercap: 12, ..Config::default() };
    let options = Options { ring_order: 3, ..Options::default() };
    let mut rig = Rig::<Stepped>::new(config, options);
    let mut heap: Queue<Vec<u8>, Vec<u8>, ()> =
        Queue::new(rig.device.request_channel(1).expect("free"));
    let error = heap.copy(vec![1; 8], vec![0; 8], ()).expect_err("no arena memory").error;
    assert!(matches!(error, SubmitError::Unreachable { .. }));
    let max = 5 * 4096;
    let (source, target) = (rig.buffer(max + 1, 1), rig.buffer(max + 1, 0));
    let refused = rig.queue.copy(source.slice(0..max + 1), target.slice(0..max + 1), 0);
    assert_eq!(refused.expect_err("6 pieces").error, SubmitError::TooLong { len: max + 1, max });
    assert_eq!(rig.queue.space(), 5, "nothing was taken");
    rig.submit(1, max);
    rig.queue.issue_pending();
    check(&rig.wait_for(1)[0], Status::Success);
}

/// A fill and copies on two channels at once.
#[test]
fn two_channels_work_side_by_side() {
    let config = Config { channels: 2, ..Config::default() };
    let mut rig = Rig::<Threaded>::new(config, Options::default());
    let mut second: Copies = Queue::new(rig.device.request_channel(1).expect("free"));
    for round in 0..200 {
        rig.submit(round, 3000);
        rig.queue.issue_pending();
        let target = rig.buffer(100, 0).slice(1..99);
        second.fill(0x0807_0605_0403_0201, target, round).expect("room");
        second.issue_pending();
        check(&rig.wait_for(1)[0], Status::Success);
        let start = Instant::now();
        let mut filled = 0;
        while filled == 0 {
            filled = second.poll(|done| {
                assert_eq!(done.status, Status::Success);
                let bytes = done.target.into_inner();
                let pattern = bytes[1..99].iter().enumerate();
                assert!(pattern.into_iter().all(|(index, byte)| *byte == index as u8 % 8 + 1));
                assert_eq!((bytes[0], bytes[99]), (0, 0));
            });
            assert!(start.elapsed() < DEADLINE);
        }
    }
}
