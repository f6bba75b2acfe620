use std::{os::fd::BorrowedFd, sync::Arc};

use super::*;
use crate::{
    ArenaFull, Capabilities, ChannelInfo, Completion, Cookie, CpuDevice, DmaChannel, DmaDevice,
    FaultPlan, Faults, Layered, OperationKind, Stuck, ThreadsDevice,
};

/// What is wrong with a [`Faulty`] channel's every third copy, or operation of parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    OneByteMore,
    OneByteLess,
    OneByteBefore,
    SourceWritten,
    NotCopied,
    ErrorStatus,
    NeverEnds,
    NeverEndsNorStops,
    Refused,
    /// Parity without its last source.
    OneSourceLess,
    /// Checks find nothing.
    ChecksAlwaysPass,
    /// Checks find something where nothing is.
    ChecksAlwaysFail,
}

/// A channel that does what a broken engine may do.
#[derive(Debug)]
struct Faulty {
    good: Box<dyn DmaChannel>,
    fault: Fault,
    copies: u64,
    /// Operations with the error status, or that do not end.
    bad: Vec<Cookie>,
    terminated: bool,
}

impl Faulty {
    fn channel(fault: Fault) -> Box<dyn DmaChannel> {
        let good = CpuDevice::new(1).request_channel(0).unwrap();
        Box::new(Self { good, fault, copies: 0, bad: Vec::new(), terminated: false })
    }
}

// SAFETY: it breaks the promises, by bytes within buffers of `dmatest` that nobody else has: every
// copy here leaves room around it, or is left alone.
unsafe impl DmaChannel for Faulty {
    fn info(&self) -> &ChannelInfo {
        self.good.info()
    }

    fn space(&self) -> usize {
        self.good.space()
    }

    unsafe fn submit(
        &mut self,
        operation: &crate::Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        let mut operation = *operation;
        if let crate::Operation::Xor { sources, .. } = &mut operation
            && self.fault == Fault::OneSourceLess
        {
            *sources = &sources[1..];
        }
        let crate::Operation::Memcpy { source, target, len } = &mut operation else {
            // SAFETY: passed on.
            return unsafe { self.good.submit(&operation, flags) };
        };
        self.copies += 1;
        let faulty = self.copies.is_multiple_of(3);
        if faulty && *len > 1 {
            match self.fault {
                Fault::OneByteLess => *len -= 1,
                Fault::NotCopied => *len = 1,
                Fault::Refused => return Err(SubmitError::ChannelDown),
                // SAFETY: as said above: tests that write outside choose short copies in the
                // middle of large buffers.
                Fault::OneByteMore => unsafe { *target.add(*len) ^= 0xff },
                // SAFETY: as above.
                Fault::OneByteBefore => unsafe { *target.sub(1) ^= 0xff },
                // SAFETY: the source is a buffer of the test, for which its owner has a `&mut`.
                Fault::SourceWritten => unsafe { *source.cast_mut() = 0 },
                _ => {}
            }
        }
        // SAFETY: passed on.
        let cookie = unsafe { self.good.submit(&operation, flags) }?;
        if faulty
            && matches!(
                self.fault,
                Fault::ErrorStatus | Fault::NeverEnds | Fault::NeverEndsNorStops
            )
        {
            self.bad.push(cookie);
        }
        Ok(cookie)
    }

    fn issue_pending(&mut self) {
        self.good.issue_pending();
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        let Self { good, fault, bad, terminated, .. } = self;
        good.poll(&mut |completion| {
            let completion = match (*fault, completion.status) {
                (Fault::ChecksAlwaysPass, status) if status.is_done() => {
                    Completion { status: Status::Success, ..completion }
                }
                (Fault::ChecksAlwaysFail, Status::Success) => {
                    Completion { status: Status::MismatchP, ..completion }
                }
                _ => completion,
            };
            if !bad.contains(&completion.cookie) {
                report(completion);
            } else if *fault == Fault::ErrorStatus {
                report(Completion { status: Status::ReadError, bytes: 0, ..completion });
            }
        });
        if std::mem::take(terminated) {
            for cookie in bad.drain(..) {
                report(Completion::failed(cookie, Status::Aborted));
            }
        }
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        if self.fault == Fault::NeverEndsNorStops {
            return Err(Stuck);
        }
        self.good.terminate_sync(timeout)?;
        self.terminated = true;
        Ok(())
    }
}

fn arena() -> Arena {
    Arena::new(1 << 20).unwrap()
}

/// A multiple of 3: a [`Faulty`] channel's every third operation goes wrong.
const ITERATIONS: u64 = if cfg!(miri) { 6 } else { 300 };
const SIZE: usize = if cfg!(miri) { 192 } else { 4096 };

fn params() -> Params {
    Params { iterations: ITERATIONS, test_buf_size: SIZE, ..Params::default() }
}

#[test]
fn good_channels_pass() {
    let all = [Operation::Memcpy, Operation::Pq, Operation::Memset, Operation::Xor];
    for &operation in if cfg!(miri) { &all[..2] } else { &all } {
        for threads_per_chan in [1, if cfg!(miri) { 2 } else { 7 }] {
            for polled in [false, true] {
                let params = Params { operation, threads_per_chan, polled, ..params() };
                let devices: [&dyn DmaDevice; 2] = [&CpuDevice::new(1), &ThreadsDevice::new(1)];
                for device in devices {
                    let (mut rounds, mut last, mut results) = (0, (0, None, 0), Vec::new());
                    let channel = device.request_channel(0).unwrap();
                    let arena = Arena::new(params.arena_len()).unwrap();
                    let summary = run(channel, &arena, &params, |now| {
                        rounds += 1;
                        last = (now.tests, now.total, now.failures);
                        results.extend(now.results.iter().map(|result| result.test));
                    });
                    let summary = summary.unwrap();
                    assert_eq!(summary.failed, []);
                    assert_eq!((summary.failures, summary.stuck), (0, false));
                    let total = ITERATIONS * threads_per_chan as u64;
                    assert_eq!(summary.tests, total);
                    // Miri's seconds are of its own making.
                    assert!(cfg!(miri) || (summary.iops > 0 && summary.kbps > 0));
                    assert_eq!((last, rounds), ((total, Some(total), 0), ITERATIONS));
                    assert!(results.into_iter().eq(1..=total), "each test once, in order");
                }
            }
        }
    }
}

#[test]
fn more_threads_than_descriptors_take_turns() {
    let options = crate::ThreadsOptions { ring_size: 4, ..Default::default() };
    let channel = ThreadsDevice::with_options(options).request_channel(0).unwrap();
    let params = Params { threads_per_chan: 10, ..params() };
    let summary = run(channel, &arena(), &params, |_| ()).unwrap();
    assert_eq!((summary.tests, summary.failures), (10 * ITERATIONS, 0));
}

/// Runs on a faulty channel; every failure must be of the kind that `expected` accepts.
fn run_faulty(fault: Fault, expected: impl Fn(&Cause) -> bool) -> Summary {
    let timeout = Duration::from_millis(1);
    // The odds that a random place is at a buffer's end are one in thousands, and the first tests
    // of this seed are not.
    let params = Params {
        timeout,
        iterations: 12,
        test_buf_size: if cfg!(miri) { 1024 } else { 65536 },
        ..params()
    };
    let summary = run(Faulty::channel(fault), &arena(), &params, |_| ()).unwrap();
    let mut causes = summary.failed.iter().map(|result| result.failure.as_ref());
    assert!(causes.all(|cause| cause.is_some_and(&expected)), "{:?}", summary.failed);
    summary
}

#[test]
#[cfg_attr(miri, ignore = "the channel writes where it must not")]
fn wrong_bytes_are_found() {
    for (fault, at) in [
        (Fault::OneByteMore, Buffer::Target),
        (Fault::OneByteLess, Buffer::Target),
        (Fault::OneByteBefore, Buffer::Target),
        (Fault::NotCopied, Buffer::Target),
        (Fault::SourceWritten, Buffer::Source),
    ] {
        let summary = run_faulty(
            fault,
            |cause| matches!(cause, Cause::Data(Mismatch { buffer, .. }) if *buffer == at),
        );
        assert_eq!((summary.tests, summary.failures), (12, 4), "{fault:?}");
        let TestResult { failure: Some(Cause::Data(mismatch)), src_off, dst_off, len, test } =
            summary.failed[0]
        else {
            panic!("not a data error")
        };
        assert_eq!(test, 3);
        let (offset, count) = match fault {
            Fault::OneByteMore => (dst_off + len, 1),
            Fault::OneByteLess => (dst_off + len - 1, 1),
            Fault::OneByteBefore => (dst_off - 1, 1),
            Fault::NotCopied => (dst_off + 1, len - 1),
            _ => (src_off, 1),
        };
        assert_eq!((mismatch.offset, mismatch.count), (offset, count), "{fault:?}");
    }
}

#[test]
fn errors_are_told_apart() {
    let refused = run_faulty(Fault::Refused, |c| *c == Cause::Submit(SubmitError::ChannelDown));
    assert_eq!((refused.tests, refused.failures), (12, 4));
    let status = run_faulty(Fault::ErrorStatus, |c| *c == Cause::Completion(Status::ReadError));
    assert_eq!((status.tests, status.failures), (12, 4));
    let timed_out = run_faulty(Fault::NeverEnds, |c| *c == Cause::TimedOut);
    assert_eq!((timed_out.tests, timed_out.failures, timed_out.stuck), (12, 4, false));
    let stuck = run_faulty(Fault::NeverEndsNorStops, |c| *c == Cause::TimedOut);
    assert_eq!((stuck.tests, stuck.failures, stuck.stuck), (3, 1, true));
}

#[test]
fn a_channel_that_is_down_is_brought_back() {
    let plan: FaultPlan = "halt@3:read-error".parse().unwrap();
    let device = Layered::new(Arc::new(CpuDevice::new(1)), Faults::new(plan));
    let params = Params { iterations: 6, ..params() };
    let summary = run(device.request_channel(0).unwrap(), &arena(), &params, |_| ()).unwrap();
    let failed: Vec<_> = summary.failed.iter().map(|it| (it.test, it.failure.unwrap())).collect();
    let down = Cause::Submit(SubmitError::ChannelDown);
    assert_eq!(failed, [(3, Cause::Completion(Status::ReadError)), (4, down)]);
    assert_eq!((summary.tests, summary.failures, summary.stuck), (6, 2, false));
}

#[test]
fn lines_read_as_linux_prints_them() {
    let mut summary = Summary::of_channel("dma0chan1", Operation::Memcpy);
    let test = Test { number: 3, source_offset: 16, target_offset: 32, len: 255, pattern: 0 };
    let mismatch =
        Mismatch { count: 2, buffer: Buffer::Target, offset: 33, expected: 0xde, actual: 0x3e };
    summary.count(&test, Err(Cause::Data(mismatch)));
    summary.count(&test, Err(Cause::TimedOut));
    let passed = summary.count(&test, Ok(()));
    summary.rate(Duration::from_millis(500), 2, 1 << 20);
    assert_eq!(
        summary.describe(&passed),
        "dmatest: dma0chan1-copy0: result #3: 'test passed' with src_off=0x10 dst_off=0x20 len=0xff"
    );
    assert_eq!(
        summary.describe(&summary.failed[0]),
        "dmatest: dma0chan1-copy0: result #3: 'data error' with src_off=0x10 dst_off=0x20 \
         len=0xff (2 errors, dstbuf[0x21] first: expected de, got 3e)"
    );
    assert_eq!(
        summary.describe(&summary.failed[1]),
        "dmatest: dma0chan1-copy0: result #3: 'test timed out' with src_off=0x10 dst_off=0x20 \
         len=0xff"
    );
    assert_eq!(
        summary.to_string(),
        "dmatest: dma0chan1-copy0: summary 3 tests, 2 failures 4 iops 2048 KB/s"
    );
}

#[test]
fn impossible_parameters_are_refused() {
    let refused = |params: &Params| {
        let channel = CpuDevice::new(1).request_channel(0).unwrap();
        run(channel, &arena(), params, |_| ()).unwrap_err()
    };
    for (parameter, params) in [
        ("test_buf_size", Params { test_buf_size: 0, ..params() }),
        ("threads_per_chan", Params { threads_per_chan: 0, ..params() }),
        ("timeout", Params { timeout: Duration::ZERO, ..params() }),
    ] {
        assert_eq!(refused(&params), RunError::Zero { parameter });
    }
    assert_eq!(refused(&Params { iterations: 0, ..params() }), RunError::Endless);
    assert!(matches!(
        refused(&Params { test_buf_size: 1 << 20, ..params() }),
        RunError::ArenaFull(ArenaFull { .. })
    ));
    assert_eq!(
        refused(&Params { transfer_size: SIZE + 1, ..params() }),
        RunError::TransferSize { transfer_size: SIZE + 1, test_buf_size: SIZE }
    );
    for (power, transfer_size) in [(13, 0), (255, 0), (6, 63)] {
        let params = Params { alignment: Some(power), transfer_size, ..params() };
        assert_eq!(refused(&params), RunError::Alignment { power });
    }
    for (operation, sources) in [(Operation::Xor, 0), (Operation::Xor, 17), (Operation::Pq, 17)] {
        let params = Params { operation, xor_sources: sources, pq_sources: sources, ..params() };
        let error = SubmitError::SourceCount { sources, max: 16 };
        assert_eq!(refused(&params), RunError::Channel(error));
    }
}

#[test]
fn limits_of_the_channel_are_kept() {
    let info = ChannelInfo {
        capabilities: Capabilities::MEMCPY,
        xfercap: (SIZE / 4).try_into().unwrap(),
        ..ChannelInfo::new("small", crate::Kind::Cpu)
    };
    let error = SubmitError::Unsupported { operation: OperationKind::Pq };
    let pq = Params { operation: Operation::Pq, ..params() };
    assert_eq!(pq.check(&info), Err(RunError::Channel(error)));
    let error = SubmitError::TooLong { len: SIZE, max: SIZE / 4 };
    assert_eq!(params().check(&info), Err(RunError::Channel(error)));
    assert_eq!(Params { transfer_size: SIZE / 4, ..params() }.check(&info), Ok(()));
    // The engine's own alignment counts, unless another is asked for.
    let aligned = ChannelInfo { alignment: 4096.try_into().unwrap(), ring_size: 4, ..info };
    let short = Params { test_buf_size: 100, ..params() };
    assert_eq!(short.check(&aligned), Err(RunError::Alignment { power: 12 }));
    assert_eq!(Params { alignment: Some(0), ..short }.check(&aligned), Ok(()));
}

/// What the tests of a run were: number, offsets and length.
fn tests(params: &Params) -> Vec<TestResult> {
    let channel = CpuDevice::new(1).request_channel(0).unwrap();
    let arena = Arena::new(params.arena_len()).unwrap();
    let mut all = Vec::new();
    let summary = run(channel, &arena, params, |now| all.extend_from_slice(now.results)).unwrap();
    assert_eq!(summary.failures, 0, "{:?}", summary.failed);
    all
}

#[test]
fn lengths_and_places_are_as_asked() {
    let random = tests(&params());
    assert!(random.iter().all(|test| test.len <= SIZE && test.src_off + test.len <= SIZE));
    assert!(random.iter().any(|test| test.src_off % 2 == 1 && test.dst_off % 2 == 1));
    let whole = tests(&Params { norandom: true, ..params() });
    assert!(whole.iter().all(|test| (test.src_off, test.dst_off, test.len) == (0, 0, SIZE)));
    let part = tests(&Params { norandom: true, transfer_size: 100, ..params() });
    assert!(part.iter().all(|test| (test.src_off, test.dst_off, test.len) == (0, 0, 100)));
    let fixed = tests(&Params { transfer_size: 100, ..params() });
    assert!(fixed.iter().all(|test| test.len == 100));
    assert!(fixed.iter().any(|test| test.src_off != test.dst_off));
    for operation in [Operation::Memcpy, Operation::Xor, Operation::Pq] {
        let aligned = tests(&Params { alignment: Some(6), operation, ..params() });
        let multiple = |number: usize| number.is_multiple_of(64);
        assert!(aligned.iter().all(|t| multiple(t.src_off) && multiple(t.dst_off)));
        assert!(aligned.iter().all(|t| multiple(t.len) && t.len > 0));
        assert!(aligned.iter().any(|test| test.src_off > 0));
    }
}

#[test]
fn without_verification_only_the_channels_word_counts() {
    let noverify = Params { noverify: true, ..params() };
    let wrong = |fault, params: &Params| {
        run(Faulty::channel(fault), &arena(), params, |_| ()).unwrap().failures
    };
    assert_eq!(wrong(Fault::NotCopied, &noverify), 0);
    assert_eq!(wrong(Fault::NotCopied, &params()), ITERATIONS / 3);
    assert_eq!(wrong(Fault::ErrorStatus, &noverify), ITERATIONS / 3);
}

#[test]
fn parity_is_checked_by_the_channel_too() {
    const CHECKS: u64 = if cfg!(miri) { 3 } else { 20 };

    let failed = |fault, operation, xor_sources| {
        let params = Params { operation, xor_sources, iterations: CHECKS, ..params() };
        run(Faulty::channel(fault), &arena(), &params, |_| ()).unwrap()
    };
    let cause = |summary: &Summary| summary.failed.first().and_then(|result| result.failure);
    let less = failed(Fault::OneSourceLess, Operation::Xor, 3);
    assert!(matches!(cause(&less), Some(Cause::Data(Mismatch { buffer: Buffer::Target, .. }))));
    assert_eq!(less.failures, CHECKS);
    for operation in [Operation::Xor, Operation::Pq] {
        let blind = failed(Fault::ChecksAlwaysPass, operation, 3);
        assert!(matches!(cause(&blind), Some(Cause::Missed(_))), "{blind:?}");
        assert_eq!((blind.tests, blind.failures), (CHECKS, CHECKS));
        let wrong = failed(Fault::ChecksAlwaysFail, operation, 3);
        assert_eq!(cause(&wrong), Some(Cause::Completion(Status::MismatchP)));
    }
    // As many sources as the channel takes leave no room for the parity in a check.
    let most = failed(Fault::ChecksAlwaysPass, Operation::Xor, 16);
    assert_eq!(most.failures, 0);
}

#[test]
fn a_run_without_end_is_broken_off() {
    const ROUNDS: u64 = if cfg!(miri) { 2 } else { 50 };

    let params = Params { iterations: 0, threads_per_chan: 3, ..params() };
    let channel = CpuDevice::new(1).request_channel(0).unwrap();
    let mut rounds = 0;
    let summary = run_while(channel, &arena(), &params, |Progress { total, .. }| {
        assert_eq!(total, None);
        rounds += 1;
        if rounds == ROUNDS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(summary.unwrap().tests, 3 * ROUNDS);
}

#[test]
fn a_seed_makes_the_same_tests() {
    let offsets = |seed| {
        let params = Params { seed, ..params() };
        let summary = run(Faulty::channel(Fault::Refused), &arena(), &params, |_| ()).unwrap();
        summary.failed.iter().map(|f| (f.src_off, f.dst_off, f.len)).collect::<Vec<_>>()
    };
    assert_eq!(offsets(5), offsets(5));
    assert_ne!(offsets(5), offsets(6));
}
