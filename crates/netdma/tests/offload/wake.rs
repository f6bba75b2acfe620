//! When a reader that waits is woken, and what the peer is told meanwhile.

use std::time::Duration;

use dmaengine::lend;
use netdma::{Conditions, Copybreak, RecvFlags, Verdict, WakeReason};

use crate::bench::{Bench, Order, pattern};

/// The payload of a full frame: there are timestamps.
const MSS: usize = 1448;
const NONE: RecvFlags = RecvFlags::empty();

/// A bench whose sender has `len` bytes to send, none of them delivered. Only the last has PSH.
fn bench(len: usize) -> Bench {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    bench.queue(&pattern(len));
    bench
}

#[test]
fn a_full_buffer_wakes_and_the_rest_stays_queued() {
    let mut bench = bench(10 * MSS);
    let mut buffer = vec![0; MSS + 100];
    lend(&mut buffer, |target| {
        let receive = bench.post(target, NONE);
        bench.serve();
        bench.deliver(1);
        assert!(!bench.serve(), "one segment is not worth a wake-up");
        assert_eq!((bench.taken(receive), bench.ended(receive)), (MSS, None));
        assert_eq!(bench.check(receive), Verdict::Wait);
        bench.deliver(1);
        bench.serve();
        assert_eq!(bench.ended(receive), Some(WakeReason::BufferFull));
        assert_eq!(bench.check(receive), Verdict::Copying);
        bench.reap();
        assert_eq!(bench.check(receive), Verdict::Return(MSS + 100));
        assert_eq!(bench.receiver.receive_available(bench.server), MSS - 100);
        bench.offload.withdraw(receive).unwrap();
    });
    assert_eq!(buffer, pattern(10 * MSS)[..MSS + 100]);
}

#[test]
fn push_wakes() {
    let mut bench = bench(3 * MSS);
    let mut buffer = vec![0; 100_000];
    lend(&mut buffer, |target| {
        let receive = bench.post(target, NONE);
        for frame in 0..3 {
            assert_eq!(bench.ended(receive), None, "before frame {frame}");
            bench.deliver(1);
            bench.serve();
        }
        assert_eq!(bench.ended(receive), Some(WakeReason::Push));
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(3 * MSS));
    });
}

#[test]
fn waitall_sleeps_through_push() {
    let mut bench = bench(3 * MSS);
    let mut buffer = vec![0; 4 * MSS];
    lend(&mut buffer, |target| {
        let receive = bench.post(target, RecvFlags::WAITALL);
        bench.deliver(3);
        bench.serve();
        bench.offload.settle(|_| panic!("it has not enough"));
        assert_eq!((bench.taken(receive), bench.ended(receive)), (3 * MSS, None));
        bench.answers();
        bench.queue(&pattern(MSS));
        bench.deliver(1);
        bench.serve();
        assert_eq!(bench.ended(receive), Some(WakeReason::BufferFull));
        bench.reap();
        bench.offload.withdraw(receive).unwrap();
    });
}

#[test]
fn a_half_full_receive_buffer_wakes() {
    // Full frames hold 2048 bytes each: half of it is 16 of them.
    let mut bench = Bench::with_receive_buffer(Copybreak::Bytes(0), 64 << 10);
    bench.script.lock().unwrap().order = Order::Hold;
    bench.queue(&pattern(60_000));
    let mut buffer = vec![0; 100_000];
    lend(&mut buffer, |target| {
        let receive = bench.post(target, NONE);
        let mut frames = 0;
        while bench.ended(receive).is_none() {
            frames += bench.deliver(1);
            bench.serve();
            bench.answers();
        }
        assert_eq!(bench.ended(receive), Some(WakeReason::HalfFull));
        assert_eq!(frames, 17);
        bench.script.lock().unwrap().order = Order::Copy;
        bench.reap();
        bench.offload.withdraw(receive).unwrap();
    });
}

#[test]
fn when_nothing_more_is_at_hand_enough_is_enough() {
    let mut bench = bench(3 * MSS);
    let mut buffer = vec![0; 100_000];
    lend(&mut buffer, |target| {
        let receive = bench.post(target, NONE);
        bench.offload.settle(|_| panic!("it has nothing"));
        bench.deliver(1);
        bench.serve();
        bench.reap();
        let mut woken = Vec::new();
        bench.offload.settle(|socket| woken.push(socket));
        assert_eq!(woken, [bench.server]);
        assert_eq!(bench.ended(receive), Some(WakeReason::Idle));
        assert_eq!(bench.check(receive), Verdict::Return(MSS));
        bench.offload.settle(|_| panic!("once"));
        bench.offload.withdraw(receive).unwrap();
    });
}

#[test]
fn fewer_than_the_low_water_mark_are_not_enough() {
    let mut bench = bench(3 * MSS);
    let mut buffer = vec![0; 100_000];
    lend(&mut buffer, |target| {
        let request = netdma::Request { low_water: MSS + 1, ..netdma::Request::default() };
        let receive = bench.offload.post(bench.server, target, request);
        bench.deliver(1);
        bench.serve();
        bench.offload.settle(|_| panic!("it has not enough"));
        assert_eq!(bench.ended(receive), None);
        bench.deliver(1);
        bench.serve();
        bench.offload.settle(|_| {});
        assert_eq!(bench.ended(receive), Some(WakeReason::Idle));
        bench.reap();
        bench.offload.withdraw(receive).unwrap();
    });
}

#[test]
fn an_urgent_byte_ends_a_read_and_the_next_begins_behind_it() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    bench.send(b"abc");
    assert_eq!(bench.sender.send_urgent(bench.now, bench.client, b"!"), Ok(1));
    bench.send(b"def");
    let mut buffer = [0; 20];
    let (first, second) = buffer.split_at_mut(10);
    lend(first, |target| {
        let receive = bench.post(target, RecvFlags::WAITALL);
        bench.serve();
        assert_eq!(bench.ended(receive), Some(WakeReason::UrgentMark));
        bench.reap();
        assert_eq!(bench.check(receive), Verdict::Return(3));
        bench.offload.withdraw(receive).unwrap();
    });
    assert_eq!(bench.receiver.receive_urgent(bench.server, false), Ok(Some(b'!')));
    lend(second, |target| {
        let receive = bench.post(target, NONE);
        bench.serve();
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(3));
    });
    assert_eq!(&buffer, b"abc\0\0\0\0\0\0\0def\0\0\0\0\0\0\0");
}

#[test]
fn the_end_of_the_stream_wakes() {
    for len in [0, 5] {
        let mut bench = Bench::new(Copybreak::Bytes(0));
        let mut buffer = [0; 10];
        lend(&mut buffer, |target| {
            let receive = bench.post(target, RecvFlags::WAITALL);
            bench.serve();
            if len > 0 {
                bench.send(&pattern(len));
                bench.serve();
                assert_eq!(bench.ended(receive), None);
            }
            bench.sender.shutdown(bench.now, bench.client).unwrap();
            bench.deliver(1);
            bench.serve();
            bench.reap();
            assert_eq!(bench.check(receive), Verdict::Return(len));
            bench.offload.withdraw(receive).unwrap();
        });
    }
}

#[test]
fn a_call_that_gives_up_returns_what_it_has_once_it_is_there() {
    for conditions in [
        Conditions { may_wait: false, interrupted: false },
        Conditions { may_wait: true, interrupted: true },
    ] {
        let mut bench = bench(2 * MSS);
        bench.script.lock().unwrap().order = Order::Hold;
        let mut buffer = vec![0; 10 * MSS];
        lend(&mut buffer, |target| {
            let receive = bench.post(target, RecvFlags::WAITALL);
            bench.deliver(1);
            bench.serve();
            let verdict = bench.offload.check(&mut bench.receiver, receive, conditions);
            assert_eq!(verdict, Verdict::Copying);
            // It takes no more.
            bench.deliver(1);
            bench.serve();
            bench.script.lock().unwrap().order = Order::Copy;
            bench.now += Duration::from_millis(3);
            bench.reap();
            let verdict = bench.offload.check(&mut bench.receiver, receive, conditions);
            assert_eq!(verdict, Verdict::Return(MSS));
            bench.offload.withdraw(receive).unwrap();
        });
        assert_eq!(bench.receiver.receive_available(bench.server), MSS);
        let counters = bench.offload.counters();
        assert_eq!((counters.waits, counters.wait_time), (1, Duration::from_millis(3)));
    }
}

#[test]
fn receives_stand_in_a_line() {
    let mut bench = bench(3 * MSS);
    let mut buffers = [vec![0; 1000], vec![0; 2000], vec![0; 5000]];
    let [first, second, third] = &mut buffers;
    lend(first, |a| {
        lend(second, |b| {
            lend(third, |c| {
                let receives = [bench.post(a, NONE), bench.post(b, NONE), bench.post(c, NONE)];
                // The one in the middle goes.
                bench.offload.stop(receives[1]);
                bench.deliver(3);
                bench.serve();
                assert_eq!(receives.map(|id| bench.taken(id)), [1000, 0, 3 * MSS - 1000]);
                let ended = receives.map(|id| bench.ended(id));
                let reasons = [WakeReason::BufferFull, WakeReason::Stopped, WakeReason::Push];
                assert_eq!(ended, reasons.map(Some));
                bench.reap();
                for receive in receives {
                    bench.offload.withdraw(receive).unwrap();
                }
            });
        });
    });
    let data = pattern(3 * MSS);
    assert_eq!(buffers[0], data[..1000]);
    assert_eq!(buffers[2][..3 * MSS - 1000], data[1000..]);
    assert_eq!(bench.offload.counters().early_copies, 3, "the first waited for nobody");
}

#[test]
fn nobody_is_kept_asleep_without_a_receive() {
    let mut bench = bench(MSS);
    bench.deliver(1);
    assert!(bench.serve(), "whoever waits for something else may look");
}

#[test]
fn a_batch_is_acknowledged_once_whatever_the_engine_does() {
    let mut bench = bench(8 * MSS);
    let mut buffer = vec![0; 100_000];
    lend(&mut buffer, |target| {
        let receive = bench.post(target, NONE);
        bench.deliver(8);
        bench.serve();
        assert_eq!(bench.answers().len(), 1, "the batch");
        // The end of the copies gives the memory back. That is no news to a peer whose window is
        // open: no double ACK.
        bench.reap();
        assert_eq!(bench.charged(), 0);
        assert_eq!(bench.answers().len(), 0);
        bench.offload.withdraw(receive).unwrap();
    });
}

#[test]
fn a_window_that_copies_keep_closed_opens_when_they_end() {
    // NET_DMA slept here for ever, until it drained its copies before it slept.
    let mut bench = Bench::with_receive_buffer(Copybreak::Bytes(0), 16 << 10);
    bench.script.lock().unwrap().order = Order::Hold;
    bench.queue(&pattern(60_000));
    let mut buffer = vec![0; 60_000];
    lend(&mut buffer, |target| {
        let receive = bench.post(target, RecvFlags::WAITALL);
        while bench.deliver(1) > 0 {
            bench.serve();
            bench.answers();
        }
        let window = bench.receiver.tcp_info(bench.server).unwrap().rcv_wnd;
        assert!(window < MSS, "copies hold all of the receive buffer: {window}");
        assert_eq!(bench.check(receive), Verdict::Wait);
        // Whoever sleeps now must wake for the copies, not for packets: none will come.
        assert!(bench.offload.poll_timeout().is_some());
        bench.script.lock().unwrap().order = Order::Copy;
        bench.reap();
        let answers = bench.answers();
        assert!(answers.len() == 1 && answers[0] >= 4 * MSS, "one update: {answers:?}");
        while bench.taken(receive) < 60_000 {
            assert!(bench.deliver(usize::MAX) > 0, "the sender goes on");
            bench.serve();
            bench.reap();
            bench.answers();
        }
        assert_eq!(bench.check(receive), Verdict::Return(60_000));
        bench.offload.withdraw(receive).unwrap();
    });
    assert_eq!(buffer, pattern(60_000));
}
