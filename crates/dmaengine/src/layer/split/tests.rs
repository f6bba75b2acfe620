use std::{
    ptr::NonNull,
    time::{Duration, Instant},
};

use super::{clock::Clock, controller::Controller, *};
use crate::{
    Completion, CpuDevice, DmaDevice, Faults, Flags, Layered, Operation, Status, SubmitError,
    ThreadsDevice, conformance,
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A channel of this engine, with faults.
fn below(engine: &dyn DmaDevice, plan: &str) -> Box<dyn DmaChannel> {
    Faults::new(plan.parse().unwrap()).wrap(engine.request_channel(0).unwrap())
}

/// Shares copies of all lengths, beginning with this share.
fn split(below: Box<dyn DmaChannel>, share: f64) -> SplitChannel {
    let mut channel = SplitChannel::new(below, 1, BORDER, Box::new(Monotonic), Arc::default());
    channel.controller = Controller::starting_at(share);
    channel
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn it_is_an_engine_over_every_engine() {
    let arena = crate::Arena::new(conformance::ARENA_LEN).unwrap();
    let cpu: Arc<dyn DmaDevice> = Arc::new(CpuDevice::new(1));
    let threads: Arc<dyn DmaDevice> = Arc::new(ThreadsDevice::new(1));
    let disorderly = Faults::new("reorder,delay@1/3:2".parse().unwrap());
    let disorderly: Arc<dyn DmaDevice> = Arc::new(Layered::new(Arc::clone(&threads), disorderly));
    for device in [cpu, threads, disorderly] {
        let device = Layered::new(device, Split::new(3 * BORDER));
        conformance::all(|| device.request_channel(0).unwrap(), &arena);
    }
}

/// A source, and a target with a page before and after it, written through pointers and never freed.
struct Buffers {
    source: NonNull<u8>,
    target: NonNull<u8>,
    len: usize,
}

impl Buffers {
    /// `offset`: of the target in a page.
    fn new(len: usize, offset: usize) -> Self {
        let source: Vec<_> = (0..len).map(|index| (index % 251) as u8).collect();
        let source = NonNull::from(Box::leak(source.into_boxed_slice())).cast();
        let room = Box::leak(vec![0xa5_u8; len + 4 * BORDER].into_boxed_slice());
        let start = room.as_ptr().addr() + BORDER;
        let skip = start.next_multiple_of(BORDER) - start + BORDER + offset;
        let room = NonNull::from(room).cast::<u8>();
        // SAFETY: less than three pages, and there are four and more.
        let target = unsafe { room.add(skip) };
        Self { source, target, len }
    }

    fn copy(&self) -> Operation<'static> {
        let (source, target) = (self.source.as_ptr().cast_const(), self.target.as_ptr());
        Operation::Memcpy { source, target, len: self.len }
    }

    /// Where the target is not the source; the guards must be as they were.
    fn wrong(&self) -> Vec<usize> {
        let at = |index: isize| {
            // SAFETY: in the target or the page before or after it. Nothing is in flight.
            unsafe { self.target.as_ptr().offset(index).read() }
        };
        let (page, len) = (BORDER.cast_signed(), self.len.cast_signed());
        assert!((-page..0).chain(len..len + page).all(|index| at(index) == 0xa5), "outside");
        (0..self.len).filter(|&index| at(index.cast_signed()) != (index % 251) as u8).collect()
    }
}

fn submit(channel: &mut dyn DmaChannel, buffers: &Buffers, flags: Flags) {
    // SAFETY: both are leaked, and used by nobody else until the tests have seen the end.
    unsafe { channel.submit(&buffers.copy(), flags) }.unwrap();
}

/// Waits for so many ends, in the order of submission.
fn wait(channel: &mut dyn DmaChannel, count: usize) -> Vec<Completion> {
    let mut ends: Vec<Completion> = Vec::new();
    channel.issue_pending();
    while ends.len() < count {
        channel.poll(&mut |end| ends.push(end));
        std::thread::yield_now();
    }
    ends.sort_by_key(|end| end.cookie.get());
    ends
}

#[test]
fn every_border_is_exact() {
    let lengths = [1, 4095, 8191, 8192, 8193, 12_288, 16_383, 16_384, 16_385, 40_000, 300_001];
    let lengths = if cfg!(miri) { &lengths[5..6] } else { &lengths[..] };
    let engines: [&dyn DmaDevice; 2] = [&CpuDevice::new(1), &ThreadsDevice::new(1)];
    for engine in engines {
        for &len in lengths {
            for offset in [0, 1, 64, 2048, 4095] {
                for share in [0.0, 0.01, 0.2, 0.5, 0.77, 0.99, 1.0] {
                    let buffers = Buffers::new(len, offset);
                    let mut channel = split(below(engine, "poison"), share);
                    submit(&mut channel, &buffers, Flags::empty());
                    assert_eq!(wait(&mut channel, 1)[0].bytes, len);
                    assert_eq!(buffers.wrong(), [], "{len} bytes at {offset}, {share}");
                }
            }
        }
    }
}

#[test]
fn the_parts_meet_at_a_page_of_the_target_and_both_are_used() {
    for offset in [0, 1, 4095] {
        let buffers = Buffers::new(1 << 18, offset);
        // The engine fails without having done anything, and leaves one byte or more of garbage.
        let mut channel = split(below(&CpuDevice::new(1), "fail@1:not-attempted"), 0.5);
        submit(&mut channel, &buffers, Flags::empty());
        let [end] = wait(&mut channel, 1)[..] else { panic!() };
        assert_eq!((end.status, end.bytes), (Status::Aborted, 0), "half of it was attempted");
        let wrong = buffers.wrong();
        let border = wrong.last().unwrap() + 1;
        assert_eq!((buffers.target.as_ptr().addr() + border) % BORDER, 0);
        assert!(border.abs_diff(1 << 17) <= BORDER / 2 + 1);
    }
}

#[test]
fn a_failed_part_of_the_engines_is_a_failed_copy() {
    for seed in 0..if cfg!(miri) { 2 } else { 50 } {
        let buffers = Buffers::new(1 << 16, 0);
        let plan = format!("fail@1:write-error,partial,seed={seed}");
        let mut channel = split(below(&CpuDevice::new(1), &plan), 0.5);
        submit(&mut channel, &buffers, Flags::empty());
        let [end] = wait(&mut channel, 1)[..] else { panic!() };
        assert_eq!(end.status, Status::WriteError);
        assert!(end.bytes < 1 << 15, "the prefix is in the engine's part");
        let wrong = buffers.wrong();
        assert!(!wrong.is_empty() && wrong[0] >= end.bytes);
        assert!(*wrong.last().unwrap() < 1 << 15, "the CPU's part is there");
    }
}

#[test]
fn nothing_moves_before_the_doorbell_and_a_stop_forgets_it() {
    let buffers: [_; 3] = std::array::from_fn(|_| Buffers::new(1 << 16, 0));
    for share in [0.0, 0.5, 1.0] {
        let mut channel = split(CpuDevice::new(1).request_channel(0).unwrap(), share);
        buffers.iter().for_each(|buffers| submit(&mut channel, buffers, Flags::empty()));
        channel.poll(&mut |end| panic!("{end:?}"));
        channel.terminate_sync(TIMEOUT).unwrap();
        channel.issue_pending();
        let mut ends = Vec::new();
        channel.poll(&mut |end| ends.push((end.cookie.get(), end.status, end.bytes)));
        assert_eq!(ends, [1, 2, 3].map(|cookie| (cookie, Status::Aborted, 0)));
        for buffers in &buffers {
            // The target has bytes that happen to be right.
            assert_eq!(buffers.wrong().len(), (1 << 16) - (1 << 16) / 251);
        }
        assert_eq!(channel.space(), channel.info().ring_size);
    }
    let mut channel = split(below(&CpuDevice::new(1), "lose@1,stuck=1"), 0.5);
    submit(&mut channel, &buffers[0], Flags::empty());
    channel.issue_pending();
    channel.terminate_sync(TIMEOUT).unwrap_err();
    // SAFETY: as in `submit`.
    let refused = unsafe { channel.submit(&buffers[1].copy(), Flags::empty()) };
    assert_eq!(refused, Err(SubmitError::ChannelDown));
    channel.terminate_sync(TIMEOUT).unwrap();
    assert_eq!(wait(&mut channel, 1)[0].status, Status::Aborted);
    submit(&mut channel, &buffers[1], Flags::empty());
    assert_eq!(wait(&mut channel, 1)[0].status, Status::Success);
}

#[test]
fn reports_keep_the_order_of_an_engine_that_keeps_it() {
    // The engine has the first copy for a while; the CPU is done with the second at once.
    let engine = ThreadsDevice::new(1);
    let buffers: [_; 2] = std::array::from_fn(|_| Buffers::new(1 << 16, 0));
    for _ in 0..if cfg!(miri) { 2 } else { 50 } {
        let mut channel = split(below(&engine, "delay@1:3"), 1.0);
        submit(&mut channel, &buffers[0], Flags::empty());
        channel.controller = Controller::starting_at(0.0);
        submit(&mut channel, &buffers[1], Flags::empty());
        channel.issue_pending();
        let mut ends = Vec::new();
        while ends.len() < 2 {
            channel.poll(&mut |end| ends.push(end.cookie.get()));
        }
        assert_eq!(ends, [1, 2]);
    }
}

#[test]
fn a_fence_waits_for_both_parts() {
    let engine = ThreadsDevice::new(1);
    for (round, len) in
        (0..if cfg!(miri) { 2 } else { 300 }).zip([1 << 14, 1 << 15, 300_000].into_iter().cycle())
    {
        // Each is read by the next, and the last is what the first was.
        let mut chain: Vec<_> = (0..4).map(|_| Buffers::new(len, 0)).collect();
        for link in 1..4 {
            chain[link].source = chain[link - 1].target;
        }
        let mut channel = split(below(&engine, "poison"), 0.5);
        for (link, buffers) in chain.iter().enumerate() {
            let is_fenced = link > 0;
            submit(&mut channel, buffers, if is_fenced { Flags::FENCE } else { Flags::empty() });
            if round % 3 == 0 {
                channel.issue_pending();
            }
        }
        assert!(wait(&mut channel, 4).iter().all(|end| end.status == Status::Success));
        assert!(chain.iter().all(|buffers| buffers.wrong().is_empty()));
    }
}

#[test]
fn an_engine_that_is_busy_gets_less() {
    let part_of_the_second = |first_len| {
        let buffers = [Buffers::new(first_len, 0), Buffers::new(1 << 18, 0)];
        let mut channel = split(below(&CpuDevice::new(1), "fail@2:not-attempted"), 0.5);
        channel.min_len = 1 << 18;
        buffers.iter().for_each(|buffers| submit(&mut channel, buffers, Flags::empty()));
        wait(&mut channel, 2);
        buffers[1].wrong().last().map_or(0, |last| last + 1)
    };
    // Half of all that there is to do is the engine's; what it has already counts.
    assert_eq!(part_of_the_second(1 << 16), ((1 << 18) - (1 << 16)) / 2);
    assert_eq!(part_of_the_second((1 << 18) - 1), 0, "the CPU does it all");
}

/// A clock on which every look at it takes as long: time passes with what the layer does, which is
/// to look at the engine and to copy a chunk, by turns.
#[derive(Debug)]
struct Strides(Instant);

impl Clock for Strides {
    fn now(&mut self) -> Instant {
        self.0 += Duration::from_micros(10);
        self.0
    }
}

#[test]
fn a_hopeless_engine_is_left_alone() {
    let shares = Arc::new(Shares::default());
    let clock = Box::new(Strides(Instant::now()));
    // A hundred looks for what takes the CPU one.
    let slow = below(&CpuDevice::new(1), "delay=100");
    let mut channel = SplitChannel::new(slow, 1 << 16, BORDER, clock, Arc::clone(&shares));
    let buffers = Buffers::new(1 << 17, 0);
    let mut at_once = [false; 30];
    for at_once in &mut at_once {
        submit(&mut channel, &buffers, Flags::empty());
        channel.issue_pending();
        channel.poll(&mut |_| *at_once = true);
        while channel.space() < channel.info().ring_size {
            channel.poll(&mut |_| ());
        }
    }
    let [share] = shares.list()[..] else { panic!() };
    assert_eq!((share.min_len, share.engine), (1 << 17, 0.0));
    assert!(share.engine_rate.unwrap() < share.cpu_rate.unwrap() / 10.0);
    // Tried out with 8 copies, left alone for 16, tried out again with 4.
    let expected: [bool; 30] = std::array::from_fn(|copy| !(copy < 8 || (24..28).contains(&copy)));
    assert_eq!(at_once, expected);
}

#[test]
fn small_and_other_operations_are_the_engines() {
    let split = Split::default();
    let mut channel = split.wrap(below(&CpuDevice::new(1), "fail@1x9:read-error"));
    let [small, large] = [MIN_LEN - 1, MIN_LEN].map(|len| Buffers::new(len, 0));
    submit(&mut *channel, &small, Flags::empty());
    let fill = Operation::Memset { pattern: 0, target: large.target.as_ptr(), len: MIN_LEN };
    // SAFETY: leaked, and used by nobody else.
    unsafe { channel.submit(&fill, Flags::empty()) }.unwrap();
    assert!(wait(&mut *channel, 2).iter().all(|end| end.status == Status::ReadError));
    assert_eq!(split.shares(), []);
}
