//! What calls ask for: their flags, and which of them the engine gets.

use dmaengine::lend;
use netdma::{Conditions, Copybreak, CpuCause, Destination, RecvFlags, Request, Verdict};

use crate::bench::{Bench, Order, cpu_bytes, pattern};

const NOW: Conditions = Conditions { may_wait: false, interrupted: false };

fn peek(bench: &mut Bench, len: usize, flags: RecvFlags) -> (Verdict, Vec<u8>) {
    let mut buffer = vec![0xee; len];
    let request = Request { flags, ..Request::default() };
    let Bench { offload, receiver, server, .. } = bench;
    (offload.peek(receiver, *server, &mut buffer, request, NOW), buffer)
}

#[test]
fn peek_leaves_the_bytes_and_the_engine_alone() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(5000);
    bench.send(&data);
    let charged = bench.charged();
    for _ in 0..2 {
        assert_eq!(
            peek(&mut bench, 3000, RecvFlags::PEEK),
            (Verdict::Return(3000), data[..3000].to_vec())
        );
    }
    let all = RecvFlags::PEEK | RecvFlags::TRUNC;
    assert_eq!(peek(&mut bench, 9000, all), (Verdict::Return(5000), vec![0xee; 9000]));
    assert_eq!(bench.charged(), charged);
    assert_eq!(cpu_bytes(&bench, CpuCause::Peek), 6000);
    assert_eq!(bench.offload.counters().bytes_by_engine, 0);
    assert_eq!(bench.script.lock().unwrap().submitted, 0);
}

#[test]
fn trunc_consumes_and_copies_nothing() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    bench.send(&pattern(5000));
    let receive = bench.post(Destination::Nowhere(3000), RecvFlags::TRUNC);
    bench.serve();
    assert_eq!(bench.offload.check(&mut bench.receiver, receive, NOW), Verdict::Return(3000));
    assert_eq!(bench.offload.withdraw(receive), Ok(3000));
    assert_eq!(bench.receiver.receive_available(bench.server), 2000);
    // Nothing was copied, by nobody; and the memory is free.
    let counters = bench.offload.counters();
    assert_eq!(counters.bytes_by_engine + counters.bytes_by_cpu_total(), 0);
    let receive = bench.post(Destination::Nowhere(3000), RecvFlags::TRUNC);
    bench.serve();
    assert_eq!(bench.offload.withdraw(receive), Ok(2000));
    assert_eq!(bench.charged(), 0);
}

#[test]
fn a_socket_may_have_a_copybreak_of_its_own() {
    for (stack, socket, cause) in [
        (Copybreak::Bytes(0), Some(Copybreak::Off), Some(CpuCause::Policy)),
        (Copybreak::Bytes(0), Some(Copybreak::Bytes(5000)), Some(CpuCause::Copybreak)),
        (Copybreak::Off, Some(Copybreak::Bytes(4999)), None),
        (Copybreak::Off, None, Some(CpuCause::Policy)),
        (Copybreak::Bytes(5000), None, Some(CpuCause::Copybreak)),
    ] {
        let mut bench = Bench::new(stack);
        bench.send(&pattern(5000));
        let mut buffer = vec![0; 5000];
        lend(&mut buffer, |target| {
            let request = Request { copybreak: socket, ..Request::default() };
            let receive = bench.offload.post(bench.server, target, request);
            bench.serve();
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Ok(5000));
        });
        assert_eq!(buffer, pattern(5000));
        match cause {
            Some(cause) => assert_eq!(cpu_bytes(&bench, cause), 5000, "{stack} {socket:?}"),
            None => assert_eq!(bench.offload.counters().bytes_by_engine, 5000),
        }
    }
}

#[test]
fn a_copybreak_that_is_set_counts_for_receives_that_wait() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let mut buffer = vec![0; 5000];
    lend(&mut buffer, |target| {
        let receive = bench.post(target, RecvFlags::WAITALL);
        bench.serve();
        bench.send(&pattern(5000)[..2000]);
        bench.serve();
        bench.offload.set_copybreak(Copybreak::Bytes(5000));
        bench.send(&pattern(5000)[2000..]);
        bench.serve();
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(5000));
    });
    assert_eq!(buffer, pattern(5000));
    assert_eq!(bench.offload.counters().bytes_by_engine, 2000);
    assert_eq!(cpu_bytes(&bench, CpuCause::Copybreak), 3000);
    assert_eq!(bench.offload.counters().early_copies, 5, "one a segment");
}

#[test]
fn an_abandoned_receive_goes_with_its_last_copy() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    bench.script.lock().unwrap().order = Order::Hold;
    bench.send(&pattern(5000));
    let (loan, target) = dmaengine::Loan::new(vec![0; 4000]);
    let receive = bench.post(target, RecvFlags::empty());
    bench.serve();
    bench.offload.abandon(receive);
    assert!(!loan.is_back(), "the engine has it");
    bench.script.lock().unwrap().order = Order::Copy;
    bench.reap();
    assert_eq!(bench.offload.progress(receive), None);
    assert_eq!(loan.into_inner().unwrap(), pattern(5000)[..4000]);
}
