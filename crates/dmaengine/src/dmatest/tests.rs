use std::os::fd::BorrowedFd;

use super::*;
use crate::{
    ChannelInfo, Completion, Cookie, CpuDevice, DmaChannel, DmaDevice, Flags, Stuck, ThreadsDevice,
};

/// What is wrong with a [`Faulty`] channel's every third copy.
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
                Fault::ErrorStatus | Fault::NeverEnds | Fault::NeverEndsNorStops => {}
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

fn params() -> Params {
    Params { iterations: 300, test_buf_size: 4096, ..Params::default() }
}

#[test]
fn good_channels_pass() {
    for operation in [Operation::Memcpy, Operation::Memset] {
        for threads_per_chan in [1, 7] {
            for polled in [false, true] {
                let params = Params { operation, threads_per_chan, polled, ..params() };
                let devices: [&dyn DmaDevice; 2] = [&CpuDevice::new(1), &ThreadsDevice::new(1)];
                for device in devices {
                    let mut reports = Vec::new();
                    let channel = device.request_channel(0).unwrap();
                    let summary =
                        run(channel, &arena(), &params, |progress| reports.push(progress)).unwrap();
                    assert_eq!(summary.failed, []);
                    assert_eq!((summary.failures, summary.stuck), (0, false));
                    let total = 300 * threads_per_chan as u64;
                    assert_eq!(summary.tests, total);
                    assert!(summary.iops > 0 && summary.kbps > 0);
                    let last = Progress { tests: total, total, failures: 0 };
                    assert_eq!(reports.last(), Some(&last));
                    assert_eq!(reports.len(), 300);
                }
            }
        }
    }
}

#[test]
fn more_threads_than_descriptors_take_turns() {
    let options = crate::ThreadsOptions { ring_size: 4, ..Default::default() };
    let channel = ThreadsDevice::with_options(options).request_channel(0).unwrap();
    let params = Params { threads_per_chan: 10, iterations: 50, ..params() };
    let summary = run(channel, &arena(), &params, |_| ()).unwrap();
    assert_eq!((summary.tests, summary.failures), (500, 0));
}

/// Runs on a faulty channel; every failure must be of the kind that `expected` accepts.
fn run_faulty(fault: Fault, expected: impl Fn(&Cause) -> bool) -> Summary {
    let timeout = Duration::from_millis(1);
    // The odds that a random place is at a buffer's end are one in thousands, and the first tests
    // of this seed are not.
    let params = Params { timeout, iterations: 12, test_buf_size: 65536, ..params() };
    let summary = run(Faulty::channel(fault), &arena(), &params, |_| ()).unwrap();
    assert!(summary.failed.iter().all(|failure| expected(&failure.cause)), "{:?}", summary.failed);
    summary
}

#[test]
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
        let Failure { cause: Cause::Data(mismatch), src_off, dst_off, len, test } =
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
    let stuck = run_faulty(Fault::NeverEndsNorStops, |_| false);
    assert_eq!((stuck.tests, stuck.failures, stuck.stuck), (3, 1, true));
}

#[test]
fn lines_read_as_linux_prints_them() {
    let mut summary = Summary::new("dma0chan1".to_owned(), Operation::Memcpy);
    let test = Test { number: 3, source_offset: 16, target_offset: 32, len: 255, pattern: 0 };
    let mismatch =
        Mismatch { count: 2, buffer: Buffer::Target, offset: 33, expected: 0xde, actual: 0x3e };
    summary.fail(test, Cause::Data(mismatch));
    summary.fail(test, Cause::TimedOut);
    summary.rate(Duration::from_millis(500), 1 << 20);
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
        "dmatest: dma0chan1-copy0: summary 2 tests, 2 failures 4 iops 2048 KB/s"
    );
}

#[test]
fn impossible_parameters_are_refused() {
    let channel = || CpuDevice::new(1).request_channel(0).unwrap();
    for params in
        [Params { test_buf_size: 0, ..params() }, Params { threads_per_chan: 0, ..params() }]
    {
        assert_eq!(run(channel(), &arena(), &params, |_| ()), Err(RunError::Zero));
    }
    let params = Params { test_buf_size: 1 << 20, ..params() };
    assert!(matches!(run(channel(), &arena(), &params, |_| ()), Err(RunError::ArenaFull(_))));
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
