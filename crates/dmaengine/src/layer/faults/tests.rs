use std::{os::fd::BorrowedFd, sync::Arc, time::Duration};

use super::*;
use crate::{
    Arena, Completion, Cookie, CpuDevice, DmaDevice, Done, Flags, Layered, Operation, Queue,
    Status, Stuck, SubmitError, ThreadsDevice, conformance, dmatest,
};

const TIMEOUT: Duration = Duration::from_secs(30);
const LEN: usize = 100;

type TestQueue = Queue<Vec<u8>, Vec<u8>, usize>;

fn plan(text: &str) -> FaultPlan {
    text.parse().unwrap()
}

fn over(below: impl DmaDevice + 'static, text: &str) -> Box<dyn DmaChannel> {
    Layered::new(Arc::new(below), Faults::new(plan(text))).request_channel(0).unwrap()
}

fn over_cpu(text: &str) -> Box<dyn DmaChannel> {
    over(CpuDevice::new(1), text)
}

fn queue(text: &str) -> TestQueue {
    Queue::new(over_cpu(text))
}

/// Submits copies numbered `tags`, without the doorbell.
fn submit(queue: &mut TestQueue, tags: std::ops::Range<usize>) {
    for tag in tags {
        queue.copy(vec![tag as u8; LEN], vec![0xee; LEN], tag).unwrap();
    }
}

/// All that one poll reports: tag and status. What succeeded has arrived.
fn polled(queue: &mut TestQueue) -> Vec<(usize, Status)> {
    let mut ends = Vec::new();
    queue.poll(|done| {
        if done.status == Status::Success {
            assert_eq!((done.bytes, &done.target), (LEN, &done.source));
        }
        assert_eq!(done.source, vec![done.tag as u8; LEN]);
        ends.push((done.tag, done.status));
    });
    ends
}

fn all(range: std::ops::Range<usize>, status: Status) -> Vec<(usize, Status)> {
    range.map(|tag| (tag, status)).collect()
}

/// Terminates, and what the next poll then reports.
fn stopped(queue: &mut TestQueue) -> Vec<(usize, Status)> {
    let mut ends = Vec::new();
    let stop = queue.terminate_sync(TIMEOUT, |done| ends.push((done.tag, done.status)));
    stop.unwrap();
    ends
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn without_faults_it_is_the_engine() {
    let arena = Arena::new(conformance::ARENA_LEN).unwrap();
    let cpu = Layered::new(Arc::new(CpuDevice::new(1)), Faults::new(FaultPlan::default()));
    assert_eq!(cpu.channels(), CpuDevice::new(1).channels());
    conformance::all(|| cpu.request_channel(0).unwrap(), &arena);
    let threads = Layered::new(Arc::new(ThreadsDevice::new(1)), Faults::new(FaultPlan::default()));
    conformance::all(|| threads.request_channel(0).unwrap(), &arena);
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn late_and_disorderly_it_is_still_an_engine() {
    let arena = Arena::new(conformance::ARENA_LEN).unwrap();
    // Neither poison, which leaves garbage where an operation was aborted, nor a delay until others
    // come, which may never be: an engine does neither.
    for text in ["reorder,delay@1/3:2,delay@1/5:1", "delay=2", "delay@1/9:50us"] {
        let threads = Layered::new(Arc::new(ThreadsDevice::new(1)), Faults::new(plan(text)));
        conformance::all(|| threads.request_channel(0).unwrap(), &arena);
        let cpu = Layered::new(Arc::new(CpuDevice::new(1)), Faults::new(plan(text)));
        conformance::all(|| cpu.request_channel(0).unwrap(), &arena);
    }
}

#[test]
fn a_failure_has_its_status_and_leaves_garbage() {
    let mut queue = queue("fail@2x16:read-error,seed=3");
    submit(&mut queue, 0..20);
    queue.issue_pending();
    let (mut untouched, mut complete) = (0, 0);
    queue.poll(|Done { status, bytes, source, target, tag, .. }| {
        if (1..17).contains(&tag) {
            assert_eq!((status, bytes), (Status::ReadError, 0));
            assert_ne!(target, source, "a client that trusts it would be right");
            assert_ne!(target, vec![0xee; LEN], "something was written");
            untouched += usize::from(target.contains(&0xee));
            complete += usize::from(target.contains(&(tag as u8)));
        } else {
            assert_eq!((status, bytes, target), (Status::Success, LEN, source));
        }
    });
    assert!(untouched > 0 && complete > 0, "both kinds: {untouched} and {complete}");
    assert!(queue.is_idle());
}

#[test]
fn a_prefix_that_is_reported_has_arrived() {
    let mut queue = queue("fail@1x50:write-error,partial");
    assert!(queue.info().partial_completion);
    submit(&mut queue, 0..50);
    queue.issue_pending();
    let mut prefixes = 0;
    queue.poll(|Done { status, bytes, source, target, .. }| {
        assert_eq!(status, Status::WriteError);
        assert!(bytes < LEN);
        assert_eq!(target[..bytes], source[..bytes]);
        assert_ne!(target, source);
        prefixes += usize::from(bytes > 0);
    });
    assert!((10..50).contains(&prefixes), "{prefixes}");
}

#[test]
fn a_lost_completion_comes_only_with_the_stop() {
    let mut in_order = queue("lose@3");
    submit(&mut in_order, 0..5);
    in_order.issue_pending();
    assert_eq!(polled(&mut in_order), all(0..2, Status::Success));
    assert_eq!(in_order.wait(Duration::from_millis(1), |_| panic!()).unwrap_err().in_flight, 3);
    let ends = stopped(&mut in_order);
    assert_eq!(ends, [(2, Status::Aborted), (3, Status::Success), (4, Status::Success)]);
    submit(&mut in_order, 5..9);
    in_order.issue_pending();
    assert_eq!(polled(&mut in_order), all(5..9, Status::Success));

    let mut out_of_order = queue("lose@3,reorder");
    submit(&mut out_of_order, 0..5);
    out_of_order.issue_pending();
    let mut ends = Vec::new();
    while ends.len() < 4 {
        ends.extend(polled(&mut out_of_order));
    }
    assert_eq!(polled(&mut out_of_order), []);
    assert_eq!(stopped(&mut out_of_order), [(2, Status::Aborted)]);
}

#[test]
fn an_event_is_lost_with_its_completion() {
    let mut queue: TestQueue = Queue::new(over(ThreadsDevice::new(1), "lose@2"));
    submit(&mut queue, 0..2);
    queue.issue_pending();
    let mut ends = Vec::new();
    while ends.is_empty() {
        ends.extend(polled(&mut queue));
    }
    assert_eq!(ends, [(0, Status::Success)]);
    // However long one waits: the engine is idle, and nothing is there to be polled for.
    while !queue.arm() || queue.info().ring_size - queue.space() != 1 {}
    let error = queue.wait(Duration::from_millis(20), |_| panic!("it was lost")).unwrap_err();
    assert_eq!(error.in_flight, 1);
    assert_eq!(stopped(&mut queue), [(1, Status::Aborted)]);
}

#[test]
fn a_halt_aborts_what_is_behind_it_and_takes_the_channel_down() {
    let mut queue = queue("halt@3:bad-address");
    submit(&mut queue, 0..4);
    queue.issue_pending();
    let mut expected = all(0..2, Status::Success);
    expected.extend([(2, Status::BadAddress), (3, Status::Aborted)]);
    assert_eq!(polled(&mut queue), expected);
    assert_eq!(queue.copy(vec![1], vec![2], 9).unwrap_err().error, SubmitError::ChannelDown);
    assert_eq!(stopped(&mut queue), []);
    submit(&mut queue, 4..6);
    queue.issue_pending();
    assert_eq!(polled(&mut queue), all(4..6, Status::Success));
}

#[test]
fn a_vanished_device_loses_all_in_flight_and_comes_back_if_it_may() {
    for (text, stops) in [("vanish@3", None), ("vanish@3:2", Some(2))] {
        let mut queue = queue(text);
        submit(&mut queue, 0..4);
        assert_eq!(polled(&mut queue), [], "not before the doorbell");
        queue.issue_pending();
        assert_eq!(polled(&mut queue), all(0..4, Status::DeviceLost));
        for stop in 1..10 {
            assert_eq!(
                queue.copy(vec![1], vec![2], 9).unwrap_err().error,
                SubmitError::ChannelDown
            );
            assert_eq!(stopped(&mut queue), []);
            if Some(stop) == stops {
                submit(&mut queue, 4..6);
                queue.issue_pending();
                assert_eq!(polled(&mut queue), all(4..6, Status::Success));
                break;
            }
            assert!(stops.is_none_or(|stops| stop < stops));
        }
    }
}

#[test]
fn every_stop_is_refused_as_often_as_asked() {
    let mut queue = queue("stuck=2");
    for round in 0..2 {
        submit(&mut queue, round..round + 1);
        for _ in 0..2 {
            assert_eq!(queue.terminate_sync(TIMEOUT, |_| panic!()), Err(Stuck));
            let refused = queue.copy(vec![1], vec![2], 9).unwrap_err();
            assert_eq!(refused.error, SubmitError::ChannelDown);
        }
        assert_eq!(stopped(&mut queue), [(round, Status::Aborted)]);
    }
}

#[test]
fn a_full_ring_is_full_once() {
    let mut queue = queue("full@2x2");
    submit(&mut queue, 0..1);
    for _ in 0..2 {
        let refused = queue.copy(vec![1], vec![2], 9).unwrap_err();
        assert_eq!((refused.error, refused.target), (SubmitError::RingFull, vec![2]));
    }
    submit(&mut queue, 1..2);
    queue.issue_pending();
    assert_eq!(polled(&mut queue), all(0..2, Status::Success));
}

#[test]
fn delays_are_as_long_as_asked() {
    let mut by_polls = queue("delay@2:3");
    submit(&mut by_polls, 0..3);
    by_polls.issue_pending();
    // The first poll finds that it has ended.
    assert_eq!(polled(&mut by_polls), [(0, Status::Success)]);
    assert_eq!((polled(&mut by_polls), polled(&mut by_polls)), (vec![], vec![]));
    assert_eq!(polled(&mut by_polls), all(1..3, Status::Success));

    let mut by_operations = queue("delay@1:2ops,reorder");
    submit(&mut by_operations, 0..2);
    by_operations.issue_pending();
    for _ in 0..50 {
        polled(&mut by_operations);
    }
    assert_eq!(by_operations.in_flight(), 1);
    submit(&mut by_operations, 2..3);
    while by_operations.in_flight() > 1 {
        polled(&mut by_operations);
    }
    by_operations.issue_pending();
    by_operations.wait(TIMEOUT, |_| ()).unwrap();

    let mut last = queue("delay@1:2ops");
    submit(&mut last, 0..1);
    last.issue_pending();
    let polls = (0..10_000).take_while(|_| polled(&mut last).is_empty()).count();
    assert!((100..1000).contains(&polls), "nothing follows, and it is not lost: {polls}");

    let mut for_ever = queue("delay=9999999ms");
    submit(&mut for_ever, 0..1);
    for_ever.issue_pending();
    assert_eq!((polled(&mut for_ever), for_ever.arm()), (vec![], false));
    assert_eq!(stopped(&mut for_ever), [(0, Status::Success)], "a stop ends a delay");
    let timed: TestQueue = Queue::new(over(ThreadsDevice::new(1), "delay=1us"));
    assert!(timed.event().is_none(), "an event would come too early");
}

#[test]
fn who_waits_ends_a_delay() {
    let mut queue: TestQueue = Queue::new(over(ThreadsDevice::new(1), "delay=1000000000"));
    submit(&mut queue, 0..4);
    queue.wait(TIMEOUT, |done| assert_eq!(done.status, Status::Success)).unwrap();
}

#[test]
fn disorder_is_told_and_happens() {
    let mut queue = queue("reorder,seed=1");
    assert_eq!(queue.info().ordering, Ordering::OutOfOrder);
    submit(&mut queue, 0..16);
    queue.issue_pending();
    let first = polled(&mut queue);
    assert!(!first.is_sorted_by_key(|&(tag, _)| tag), "{first:?}");
    assert!(first.len() < 16, "some are held back");
    queue.wait(TIMEOUT, |_| ()).unwrap();
}

#[test]
fn the_faults_are_the_same_over_every_engine() {
    let text = "fail@1/5:write-error,fail@1/9x3:not-attempted,fail@1/11:timed-out,seed=8";
    let ends = |device: Box<dyn DmaChannel>| {
        let mut queue: TestQueue = Queue::new(device);
        let mut ends = Vec::new();
        for round in 0..20 {
            submit(&mut queue, 10 * round..10 * round + 10);
            queue.wait(TIMEOUT, |done| ends.push(done.status)).unwrap();
        }
        ends
    };
    let over_cpu = ends(over_cpu(text));
    assert_eq!(over_cpu, ends(over(ThreadsDevice::new(1), text)));
    let other_seed = text.replace("seed=8", "seed=9");
    assert_ne!(over_cpu, ends(over(ThreadsDevice::new(1), &other_seed)));
    assert!(over_cpu.iter().filter(|status| status.is_done()).count() > 20);
}

#[test]
fn the_next_channel_has_other_numbers_and_the_same_count() {
    let device = Layered::new(
        Arc::new(CpuDevice::new(1)),
        Faults::new(plan("lose@2,fail@1/2:read-error,seed=1")),
    );
    let ends = || {
        let mut queue: TestQueue = Queue::new(device.request_channel(0).unwrap());
        submit(&mut queue, 0..64);
        queue.issue_pending();
        assert_eq!(polled(&mut queue).len(), 1);
        stopped(&mut queue)
    };
    let first = ends();
    assert_eq!((first.len(), first[0]), (63, (1, Status::Aborted)));
    assert_ne!(first, ends());
}

/// Memory that is written through pointers only.
struct Memory(*mut u8);

impl Memory {
    fn new(len: usize) -> Self {
        let bytes: Box<[u8]> = (0..len).map(|index| (index % 251) as u8).collect();
        Self(Box::into_raw(bytes).cast())
    }

    fn at(&self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }

    fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        // SAFETY: the callers stay within the memory, and ask while nothing runs.
        (0..len).map(|index| unsafe { self.at(offset + index).read() }).collect()
    }
}

fn copy(memory: &Memory, from: usize, to: usize) -> Operation<'static> {
    Operation::Memcpy { source: memory.at(from).cast_const(), target: memory.at(to), len: LEN }
}

fn ends(channel: &mut dyn DmaChannel, count: usize) -> Vec<(u64, Status)> {
    let mut ends = Vec::new();
    channel.issue_pending();
    while ends.len() < count {
        channel.poll(&mut |end| ends.push((end.cookie.get(), end.status)));
        std::thread::yield_now();
    }
    ends.sort_by_key(|&(cookie, _)| cookie);
    ends
}

/// A channel whose engine begins with the poll after the doorbell.
#[derive(Debug)]
struct Lazy(Box<dyn DmaChannel>);

// SAFETY: all is done by the channel within; its doorbell is rung late.
unsafe impl DmaChannel for Lazy {
    fn info(&self) -> &ChannelInfo {
        self.0.info()
    }

    fn space(&self) -> usize {
        self.0.space()
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        // SAFETY: our client's promise.
        unsafe { self.0.submit(operation, flags) }
    }

    fn issue_pending(&mut self) {}

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        self.0.issue_pending();
        self.0.poll(report);
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        self.0.terminate_sync(timeout)
    }
}

#[test]
fn a_target_is_poisoned_from_the_doorbell_to_the_copy() {
    let memory = Memory::new(1000);
    let below = Lazy(CpuDevice::new(1).request_channel(0).unwrap());
    let mut channel = Faults::new(plan("poison,full@1")).wrap(Box::new(below));
    // SAFETY: in the memory, which is leaked; nothing else uses it, and the ranges are apart.
    let refused = unsafe { channel.submit(&copy(&memory, 0, 500), Flags::empty()) };
    assert_eq!(refused, Err(SubmitError::RingFull));
    let before: Vec<_> = (500..600).map(|index| (index % 251) as u8).collect();
    assert_eq!(memory.bytes(500, LEN), before);
    // SAFETY: as above.
    unsafe { channel.submit(&copy(&memory, 0, 500), Flags::empty()) }.unwrap();
    assert_eq!(memory.bytes(500, LEN), before, "not before the doorbell");
    channel.issue_pending();
    let early = memory.bytes(500, LEN);
    assert!(early != before && early != memory.bytes(0, LEN));
    assert_eq!(memory.bytes(499, 1), [(499 % 251) as u8]);
    assert_eq!(memory.bytes(600, 1), [(600 % 251) as u8]);
    assert_eq!(ends(&mut *channel, 1), [(1, Status::Success)]);
    assert_eq!(memory.bytes(500, LEN), memory.bytes(0, LEN));
}

#[test]
fn a_fence_keeps_its_order_under_poison_and_garbage() {
    // Each copy's source is the target of the one before it.
    for device in [&CpuDevice::new(1) as &dyn DmaDevice, &ThreadsDevice::new(1)] {
        let below = device.request_channel(0).unwrap();
        let mut channel = Faults::new(plan("poison,reorder,delay@1/3:2")).wrap(below);
        for _ in 0..if cfg!(miri) { 5 } else { 200 } {
            let memory = Memory::new(10 * LEN);
            for step in 0..9 {
                let copy = copy(&memory, step * LEN, (step + 1) * LEN);
                // SAFETY: in the memory, which is leaked; a fence is between copies that share some.
                unsafe { channel.submit(&copy, Flags::FENCE) }.unwrap();
            }
            assert!(ends(&mut *channel, 9).iter().all(|&(_, status)| status == Status::Success));
            assert_eq!(memory.bytes(9 * LEN, LEN), memory.bytes(0, LEN));
        }
    }
}

#[test]
fn behind_a_failure_a_fenced_operation_is_done_or_not_attempted() {
    let mut seen = [0; 2];
    for (fences, both) in [("done", false), ("not-attempted", false), ("either", true)] {
        for seed in 0..20 {
            let memory = Memory::new(4 * LEN);
            let mut channel =
                over_cpu(&format!("fail@1:write-error,poison,fence={fences},seed={seed}"));
            let before = memory.bytes(2 * LEN, LEN);
            for (copy, flags) in [
                (copy(&memory, 0, LEN), Flags::empty()),
                (copy(&memory, 0, 2 * LEN), Flags::FENCE),
                (copy(&memory, 0, 3 * LEN), Flags::empty()),
            ] {
                // SAFETY: in the memory, which is leaked; targets are apart.
                unsafe { channel.submit(&copy, flags) }.unwrap();
            }
            let ends = ends(&mut *channel, 3);
            assert_eq!((ends[0], ends[2]), ((1, Status::WriteError), (3, Status::Success)));
            let was_done = ends[1].1 == Status::Success;
            if was_done {
                assert_eq!(memory.bytes(2 * LEN, LEN), memory.bytes(0, LEN));
            } else {
                assert_eq!(ends[1].1, Status::NotAttempted);
                assert_eq!(memory.bytes(2 * LEN, LEN), before, "not attempted");
            }
            assert!(both || was_done == (fences == "done"));
            seen[usize::from(was_done)] += usize::from(both);
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "either: {seen:?}");
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn dmatest_finds_a_scribbling_engine() {
    let arena = Arena::new(1 << 20).unwrap();
    let params = dmatest::Params { iterations: 200, threads_per_chan: 4, ..Default::default() };
    // SAFETY: the buffers are in the arena, which outlives the channels; dmatest looks at them
    // between calls only.
    let scribbling = unsafe { Faults::with_scribbles(FaultPlan::default(), When::one_in(10)) };
    for (layer, is_well) in [(Faults::new(plan("reorder,delay@1/2:3")), true), (scribbling, false)]
    {
        let device = Layered::new(Arc::new(ThreadsDevice::new(1)), layer);
        let channel = device.request_channel(0).unwrap();
        let summary = dmatest::run(channel, &arena, &params, |_| ()).unwrap();
        assert_eq!(summary.tests, 800);
        assert_eq!(summary.failures == 0, is_well, "{summary}");
    }
}
