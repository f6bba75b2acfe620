//! Every byte of source, target and surroundings, with and without faults.

use std::time::{Duration, Instant};

use dmaengine::{DmaDevice, Queue, Status, SubmitError};
use ioat_model::{Config, Fault, Faults, Stepped, registers::ChanErr};
use ioatdma::{Bar, Completions, Options};

use crate::rig::{Copies, DEADLINE, FIRST, Random, Rig, Shell, Threaded, check};

const BUFFER: usize = 9000;
/// Pairs of buffers, so the most operations in flight.
const PAIRS: usize = 60;

/// What a pair of buffers was filled with, and what of it is to be copied.
struct Expected {
    source: Vec<u8>,
    target: Vec<u8>,
    from: usize,
    to: usize,
    len: usize,
}

impl Expected {
    fn check(&self, source: &[u8], target: &[u8], status: Status) {
        let Self { from, to, len, .. } = *self;
        assert_eq!(source, self.source, "the source changed");
        assert_eq!(target[..to], self.target[..to], "bytes before the target changed");
        assert_eq!(target[to + len..], self.target[to + len..], "bytes after the target changed");
        let (copied, wanted) = (&target[to..to + len], &self.source[from..from + len]);
        if status == Status::Success {
            assert_eq!(copied, wanted, "{len} bytes from {from} to {to}");
        } else {
            let old = &self.target[to..to + len];
            let known = copied.iter().zip(wanted).zip(old).all(|((c, w), o)| c == w || c == o);
            assert!(known, "bytes that are neither the old nor the new ones");
        }
    }
}

/// Copies `count` times at random, in batches, and checks everything. Returns the statuses' counts:
/// (success, failed by itself, aborted).
fn random_copies<S: Shell>(
    seed: u64,
    count: usize,
    faults: Faults,
    completions: Completions,
) -> (usize, usize, usize) {
    let mut random = Random(seed);
    // Small pieces, so that most operations take several.
    let config = Config { xfercap: 12, faults, ..Config::default() };
    let options = Options { ring_order: 6, completions, ..Options::default() };
    let mut rig = Rig::<S>::new(config, options);
    let mut free = Vec::new();
    for _ in 0..PAIRS {
        free.push((rig.buffer(BUFFER, 0), rig.buffer(BUFFER, 0)));
    }
    let mut expected: Vec<Option<Expected>> = (0..count).map(|_| None).collect();
    let (mut submitted, mut ended) = (0, 0);
    let mut statuses = (0, 0, 0);
    let mut last_progress = Instant::now();
    let mut idle_polls = 0;
    while ended < count {
        for _ in 0..random.below(32) {
            if submitted == count {
                break;
            }
            let Some((mut source, mut target)) = free.pop() else { break };
            random.fill(&mut source);
            random.fill(&mut target);
            let len = 1 + random.below(BUFFER);
            let from = random.below(BUFFER - len + 1);
            let to = random.below(BUFFER - len + 1);
            let record =
                Expected { source: source.to_vec(), target: target.to_vec(), from, to, len };
            let copy = rig.queue.copy(
                source.slice(from..from + len),
                target.slice(to..to + len),
                submitted,
            );
            match copy {
                Ok(cookie) => {
                    assert_eq!(cookie.get(), submitted as u64 + 1, "cookies are consecutive");
                    expected[submitted] = Some(record);
                    submitted += 1;
                }
                Err(refused) => {
                    assert_eq!(refused.error, SubmitError::RingFull);
                    free.push((refused.source.into_inner(), refused.target.into_inner()));
                    break;
                }
            }
        }
        rig.queue.issue_pending();
        rig.host.delay(Duration::from_micros(random.below(4) as u64));
        let hung = idle_polls > 3000;
        let each = |done: crate::rig::Ended| {
            let record = expected[done.tag].take().expect("each ends once");
            match done.status {
                Status::Success => statuses.0 += 1,
                Status::Aborted => statuses.2 += 1,
                _ => statuses.1 += 1,
            }
            let (source, target) = (done.source.into_inner(), done.target.into_inner());
            record.check(&source, &target, done.status);
            free.push((source, target));
            ended += 1;
            idle_polls = 0;
            last_progress = Instant::now();
        };
        if hung {
            rig.queue.terminate_sync(Duration::from_secs(1), each).expect("a reset helps");
            idle_polls = 0;
        } else {
            rig.queue.poll(each);
            idle_polls += 1;
        }
        assert!(last_progress.elapsed() < DEADLINE, "stuck at {ended} of {submitted}");
    }
    assert_eq!(rig.queue.spurious_completions(), 0);
    assert!(expected.iter().all(Option::is_none));
    rig.works();
    statuses
}

/// Every kind of fault a channel survives, at about one descriptor in a hundred.
fn random_faults(seed: u64, descriptors: u64) -> Faults {
    let mut random = Random(seed);
    let mut faults = Faults::none();
    let mut position = FIRST;
    loop {
        // Not closer, so that the start after a reset meets none.
        position += 20 + random.below(200) as u64;
        if position > descriptors {
            return faults;
        }
        let fault = match random.below(8) {
            0 => Fault::Hang,
            1 => Fault::Halt,
            2 | 3 => Fault::LostCompletion,
            _ => Fault::Error(ChanErr::from_bits_retain(1 << random.below(12))),
        };
        faults = faults.at(0, position, fault);
    }
}

#[test]
fn random_copies_arrive() {
    for completions in [Completions::PerOperation, Completions::PerBatch] {
        let all = (10_000, 0, 0);
        assert_eq!(random_copies::<Threaded>(1, 10_000, Faults::none(), completions), all);
        assert_eq!(random_copies::<Stepped>(2, 10_000, Faults::none(), completions), all);
    }
}

#[test]
fn random_copies_with_faults_end_as_they_should() {
    for completions in [Completions::PerOperation, Completions::PerBatch] {
        let faults = || random_faults(3, 40_000);
        for (good, failed, aborted) in [
            random_copies::<Threaded>(4, 10_000, faults(), completions),
            random_copies::<Stepped>(5, 10_000, faults(), completions),
        ] {
            assert_eq!(good + failed + aborted, 10_000);
            assert!(good > 5_000 && failed > 20 && aborted > 20, "{good} {failed} {aborted}");
        }
    }
}

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
