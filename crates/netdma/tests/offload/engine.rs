//! What the engine does, and what the CPU does instead.

use std::time::Duration;

use dmaengine::{Argument, Capabilities, Flags, Status, SubmitError, lend};
use netdma::{Busy, Copybreak, CpuCause, Request, Waiting};

use crate::bench::{Bench, Order, RING, cpu_bytes, pattern};

#[test]
fn the_engine_copies_and_one_doorbell_starts_a_batch() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(10_000);
    bench.send(&data);
    let charged = bench.charged();
    assert!(charged >= data.len());
    let mut buffer = vec![0; 20_000];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target, Request::default());
        bench.serve();
        let progress = bench.offload.progress(receive).unwrap();
        assert_eq!(progress.taken, data.len());
        assert!(progress.in_flight >= 7, "one copy a segment");
        assert_eq!(progress.room, 10_000);
        assert_eq!(bench.offload.bytes_in_flight(), data.len());
        assert_eq!(bench.script.lock().unwrap().doorbells, 1);
        // The segments are on the async wait queue, and charged.
        assert_eq!(bench.charged(), charged);
        assert_eq!(bench.offload.withdraw(receive), Err(Busy));
        bench.reap();
        assert_eq!((bench.charged(), bench.offload.bytes_in_flight()), (0, 0));
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
        assert_eq!(bench.offload.progress(receive), None, "the id is dead");
    });
    assert_eq!(buffer[..data.len()], data);
    assert_eq!(bench.offload.counters().bytes_by_engine, data.len() as u64);
    assert_eq!(bench.offload.counters().bytes_by_cpu_total(), 0);
}

#[test]
fn the_engine_begins_before_a_long_call_has_taken_all() {
    const SEGMENT: usize = 4 << 10;
    for (waiting, len, doorbells) in [
        (Waiting::Never, 12 << 10, 1),
        (Waiting::Never, 16 << 10, 1),
        (Waiting::Never, 20 << 10, 2),
        (Waiting::Never, 64 << 10, 4),
        (Waiting::ForMore, 64 << 10, 4),
        (Waiting::Elsewhere, 64 << 10, 1),
    ] {
        // The headers of a full segment: there are timestamps.
        let mut bench = Bench::with_mtu(Copybreak::Bytes(0), 1 << 20, SEGMENT + 52);
        let data = pattern(len);
        bench.send(&data);
        let mut buffer = vec![0; len];
        lend(&mut buffer, |target| {
            let request = Request { waiting, ..Request::default() };
            let receive = bench.offload.post(bench.server, target, request);
            bench.serve();
            {
                let script = bench.script.lock().unwrap();
                assert_eq!(script.submitted, (len / SEGMENT) as u64, "one copy a segment");
                assert_eq!(script.doorbells, doorbells, "{waiting:?}, {len} bytes");
            }
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Ok(len));
        });
        assert_eq!(buffer, data);
    }
}

#[test]
fn an_engine_that_can_choose_writes_what_finds_room_to_a_cache() {
    let chooses = Capabilities::MEMCPY | Capabilities::CACHE_HINT;
    for (capabilities, len, flags) in [
        (chooses, 1000, Flags::TO_CACHE),
        (chooses, 4 << 20, Flags::TO_CACHE),
        (chooses, (4 << 20) + 1, Flags::empty()),
        (Capabilities::MEMCPY, 1000, Flags::empty()),
    ] {
        let mut bench = Bench::with_engine(Copybreak::Bytes(0), 1 << 20, 1500, capabilities);
        bench.send(&pattern(1000));
        let mut buffer = vec![0; len];
        lend(&mut buffer, |target| {
            let receive = bench.offload.post(bench.server, target, Request::default());
            bench.serve();
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Ok(1000));
        });
        let script = bench.script.lock().unwrap();
        assert_eq!((script.submitted, script.flags), (1, flags), "{capabilities:?}, {len} bytes");
    }
}

#[test]
fn reads_up_to_the_copybreak_are_the_cpus() {
    let mut bench = Bench::new(Copybreak::Bytes(4096));
    let data = pattern(8192);
    bench.send(&data);
    let mut buffer = vec![0; 8192];
    let (small, large) = buffer.split_at_mut(4095);
    lend(small, |target| {
        let receive = bench.offload.post(bench.server, target, Request::default());
        bench.serve();
        assert_eq!(bench.offload.withdraw(receive), Ok(4095));
    });
    assert_eq!(cpu_bytes(&bench, CpuCause::Copybreak), 4095);
    lend(large, |target| {
        let receive = bench.offload.post(bench.server, target, Request::default());
        bench.serve();
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(4097));
    });
    assert_eq!(bench.offload.counters().bytes_by_engine, 4097);
    assert_eq!(buffer, data);
}

#[test]
fn what_the_engine_fails_is_repeated_and_the_engine_rests_and_returns() {
    for status in [Status::WriteError, Status::ReadError, Status::BadAddress, Status::DeviceLost] {
        let mut bench = Bench::new(Copybreak::Bytes(0));
        let data = pattern(40_000);
        let mut buffer = vec![0; data.len()];
        for (round, piece) in buffer.chunks_mut(10_000).enumerate() {
            bench.send(&data[round * 10_000..][..10_000]);
            bench.script.lock().unwrap().order =
                if round == 0 { Order::Fail(status) } else { Order::Copy };
            lend(piece, |target| {
                let receive = bench.offload.post(bench.server, target, Request::default());
                bench.serve();
                bench.reap();
                assert_eq!(bench.offload.withdraw(receive), Ok(10_000));
            });
            assert_eq!(bench.charged(), 0);
            if round == 1 {
                assert_eq!(cpu_bytes(&bench, CpuCause::Resting), 10_000, "it rests");
                bench.now += Duration::from_secs(2);
            } else if round == 2 {
                assert_eq!(bench.offload.counters().copies_by_engine, 1, "the probe");
            }
        }
        assert_eq!(buffer, data, "{status}");
        assert_eq!(cpu_bytes(&bench, CpuCause::Failed), 10_000);
        let engine = bench.offload.counters().bytes_by_engine;
        assert!(engine > 10_000, "it came back: {engine}");
        assert_eq!(engine + cpu_bytes(&bench, CpuCause::Resting), 30_000);
    }
}

#[test]
fn an_engine_that_stands_still_is_reset_and_its_copies_repeated() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(10_000);
    bench.send(&data);
    bench.script.lock().unwrap().order = Order::Hold;
    let mut buffer = vec![0; data.len()];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target, Request::default());
        bench.serve();
        bench.reap();
        assert!(bench.offload.progress(receive).unwrap().in_flight > 0);
        let due = bench.offload.poll_timeout().expect("something is in flight");
        assert!(due > bench.now);
        bench.now = due;
        bench.reap();
        assert_eq!(bench.offload.bytes_in_flight(), 0, "what failed as well");
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
    });
    assert_eq!(buffer, data);
    assert_eq!(bench.offload.counters().engine_resets, 1);
    assert_eq!(cpu_bytes(&bench, CpuCause::Failed), data.len() as u64);
    assert_eq!(bench.offload.poll_timeout(), None);
}

#[test]
fn an_engine_that_cannot_be_stopped_keeps_its_memory_until_it_can() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(5_000);
    bench.send(&data);
    {
        let mut script = bench.script.lock().unwrap();
        script.order = Order::Hold;
        script.stops = false;
    }
    let mut buffer = vec![0; data.len()];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target, Request::default());
        bench.serve();
        while !bench.offload.is_engine_lost() {
            bench.now = bench.offload.poll_timeout().expect("still in flight");
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Err(Busy));
        }
        // It comes to its senses.
        bench.script.lock().unwrap().stops = true;
        bench.now = bench.offload.poll_timeout().unwrap();
        bench.reap();
        assert!(!bench.offload.is_engine_lost());
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
    });
    assert_eq!(buffer, data);
}

#[test]
fn an_engine_that_is_down_is_reset_and_returns() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(30_000);
    bench.script.lock().unwrap().refuse = Some(SubmitError::ChannelDown);
    let mut buffer = vec![0; data.len()];
    for (round, piece) in buffer.chunks_mut(10_000).enumerate() {
        bench.send(&data[round * 10_000..][..10_000]);
        lend(piece, |target| {
            let receive = bench.offload.post(bench.server, target, Request::default());
            bench.serve();
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Ok(10_000));
        });
        // Longer than the first rest.
        bench.now += Duration::from_secs(1);
    }
    assert_eq!(buffer, data);
    assert_eq!(bench.offload.counters().engine_resets, 1);
    assert!(bench.offload.counters().bytes_by_engine > 10_000, "it came back");
}

#[test]
fn what_the_engine_refuses_is_the_cpus_and_counted_by_cause() {
    for (error, cause) in [
        (
            SubmitError::Unreachable { argument: Argument::Target(0), address: 1 },
            CpuCause::Unreachable,
        ),
        (SubmitError::RingFull, CpuCause::RingFull),
        (SubmitError::TooLong { len: 1000, max: 1 }, CpuCause::Unsupported),
        (SubmitError::ChannelDown, CpuCause::Failed),
    ] {
        let mut bench = Bench::new(Copybreak::Bytes(0));
        let data = pattern(1_000);
        bench.send(&data);
        bench.script.lock().unwrap().refuse = Some(error);
        let mut buffer = vec![0; data.len()];
        lend(&mut buffer, |target| {
            let receive = bench.offload.post(bench.server, target, Request::default());
            bench.serve();
            assert!(bench.offload.poll_timeout().is_some(), "it waits to be reaped");
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
        });
        assert_eq!(buffer, data);
        assert_eq!(cpu_bytes(&bench, cause), data.len() as u64, "{error}");
        assert_eq!(bench.script.lock().unwrap().doorbells, 0);
    }
}

#[test]
fn a_full_ring_sends_the_rest_to_the_cpu_and_all_parts_arrive() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    // More segments than the engine's ring has descriptors, and than the ring above it.
    let above = bench.offload.engine().unwrap().info().ring_size;
    assert!(above > RING);
    let data = pattern(1448 * (above + 8));
    for piece in data.chunks(10_000) {
        bench.send(piece);
    }
    let mut buffer = vec![0; data.len()];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target, Request::default());
        bench.serve();
        assert_eq!(bench.offload.progress(receive).unwrap().in_flight, above);
        assert_eq!(bench.script.lock().unwrap().submitted, RING as u64);
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
    });
    assert_eq!(buffer, data);
    assert_eq!(bench.offload.counters().copies_by_engine, RING as u64);
    assert!(cpu_bytes(&bench, CpuCause::RingFull) > 0);
}

#[test]
fn a_frame_is_charged_while_the_engine_reads_a_part_of_it_and_the_cpu_has_copied_the_rest() {
    const LEN: usize = 32 << 10;
    let mut bench = Bench::with_mtu(Copybreak::Bytes(0), 1 << 20, LEN + 100);
    bench.sender.set_nodelay(bench.now, bench.client, true);
    let data = pattern(LEN);
    bench.send(&data);
    let charged = bench.charged();
    assert!(charged >= LEN);
    bench.script.lock().unwrap().order = Order::Hold;
    let mut buffer = vec![0; LEN];
    let (front, back) = buffer.split_at_mut(LEN / 2);
    lend(front, |front| {
        lend(back, |back| {
            let of_engine = bench.offload.post(bench.server, front, Request::default());
            let request = Request { copybreak: Some(Copybreak::Off), ..Request::default() };
            let of_cpu = bench.offload.post(bench.server, back, request);
            bench.serve();
            assert_eq!(bench.offload.withdraw(of_cpu), Ok(LEN / 2));
            assert_eq!(bench.offload.withdraw(of_engine), Err(Busy));
            assert_eq!(bench.charged(), charged, "all of the frame is held");
            bench.script.lock().unwrap().order = Order::Copy;
            bench.reap();
            assert_eq!(bench.charged(), 0);
            assert_eq!(bench.offload.withdraw(of_engine), Ok(LEN / 2));
        });
    });
    assert_eq!(buffer, data);
}

#[test]
fn a_socket_that_dies_under_a_copy_gives_its_memory_back() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(5_000);
    bench.send(&data);
    bench.script.lock().unwrap().order = Order::Hold;
    let mut buffer = vec![0; data.len()];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target, Request::default());
        bench.serve();
        bench.receiver.abort(bench.now, bench.server);
        assert!(bench.pool.available() < bench.pool.capacity(), "the engine holds segments");
        bench.script.lock().unwrap().order = Order::Copy;
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
    });
    assert_eq!(buffer, data);
    assert_eq!(bench.pool.available(), bench.pool.capacity());
}
