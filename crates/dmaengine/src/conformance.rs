//! What every engine must do, as tests: each takes a fresh channel and panics if it falls short.
//!
//! An engine's own tests call [`all`], or the functions one by one, with an arena of [`ARENA_LEN`]
//! bytes that is mapped for its device. The engine must be driven by something else than the calls
//! (its own thread, or the device's); a model that only moves when told to is wrapped in a channel
//! that tells it in `poll`.
//!
//! Every test also demands that each operation that was submitted was reported, once.

use std::time::{Duration, Instant};

use crate::{
    Addressing, Arena, Capabilities, DmaBuf, DmaChannel, DmaSlice, Done, OperationKind, Queue,
    Status, SubmitError,
};

/// What the tests need: 16 MiB.
pub const ARENA_LEN: usize = 16 << 20;

/// More than any engine needs for what is asked of it here, also on a machine that is busy.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Watched before and after every target, in bytes: a page, so that a neighbouring page counts.
const GUARD: usize = 4096;

/// No length above this is tried, in bytes.
const MAX_LEN: usize = (2 << 20) + 1;

type TestQueue = Queue<DmaSlice, DmaSlice, usize>;
type TestDone = Done<DmaSlice, DmaSlice, usize>;

/// Runs all tests, each on a channel from `fresh`. One channel exists at a time.
pub fn all(mut fresh: impl FnMut() -> Box<dyn DmaChannel>, arena: &Arena) {
    lengths_and_alignments(fresh(), arena);
    address_borders(fresh(), arena);
    fills(fresh(), arena);
    refusals(fresh(), arena);
    unreachable_memory(fresh());
    nothing_before_the_doorbell(fresh(), arena);
    capacity(fresh(), arena);
    wrap(fresh(), arena);
    events(fresh(), arena);
    stop_of_an_unused_channel(fresh(), arena);
    terminate_in_flight(fresh(), arena);
    drop_in_flight(&mut fresh, arena);
    restart(&mut fresh, arena);
}

/// Copies of every length around the borders of a cache line, a page, 2 MiB and XFERCAP, aligned
/// and not, with guards around the target.
pub fn lengths_and_alignments(channel: Box<dyn DmaChannel>, arena: &Arena) {
    let mut queue = TestQueue::new(channel);
    let mut buffers = Buffers::new(arena, MAX_LEN);
    for len in lengths(&queue) {
        for (source, target) in [(0, 0), (1, 0), (0, 1), (7, 9), (63, 64), (64, 63), (4095, 4094)] {
            // Large copies are slow on a model: two of each must do.
            if len <= 3 * 4096 || (source, target) == (0, 0) || (source, target) == (7, 9) {
                buffers.copy_and_check(&mut queue, source, target, len);
            }
        }
    }
    finish(queue);
}

/// Copies that lie across the borders of pages and of 2 MiB in the address space, on either side.
pub fn address_borders(channel: Box<dyn DmaChannel>, arena: &Arena) {
    let mut queue = TestQueue::new(channel);
    // Long enough to have a 2 MiB border inside, with room on both sides.
    let mut buffers = Buffers::new(arena, (2 << 20) + 4 * GUARD);
    for border in [4096, 2 << 20] {
        let at = buffers.offsets_of(border);
        for before in [1, 8, 63, 64, 100, 4095] {
            for after in [1, 64, 1000] {
                let (source, target) = (at.0 - before, at.1 - before);
                buffers.copy_and_check(&mut queue, source, 13, before + after);
                buffers.copy_and_check(&mut queue, 13, target, before + after);
                buffers.copy_and_check(&mut queue, source, target, before + after);
            }
        }
    }
    finish(queue);
}

/// Fills of many lengths, also such that cut the pattern short, with guards.
///
/// A channel without [`Capabilities::MEMSET`] must refuse them.
pub fn fills(channel: Box<dyn DmaChannel>, arena: &Arena) {
    const PATTERN: u64 = 0x8877_6655_4433_2211;
    let mut queue = TestQueue::new(channel);
    if !queue.info().capabilities.contains(Capabilities::MEMSET) {
        let target = arena.alloc(64).expect("arena").slice(0..64);
        let refused = queue.fill(PATTERN, target, 0).expect_err("the channel cannot fill");
        assert_eq!(refused.error, SubmitError::Unsupported { operation: OperationKind::Memset });
        return finish(queue);
    }
    let mut buffers = Buffers::new(arena, 1 << 16);
    for len in [1, 7, 8, 9, 50, 64, 89, 100, 1024, 4095, 4096, 4097, 1 << 16] {
        for offset in [0, 1, 8, 60] {
            let range = GUARD + offset..GUARD + offset + len;
            buffers.target.fill(0xa5);
            let target = std::mem::take(&mut buffers.target).slice(range.clone());
            queue.fill(PATTERN, target, 0).expect("submit");
            let done = wait_for_one(&mut queue);
            assert_eq!((done.status, done.bytes), (Status::Success, len));
            buffers.target = done.target.into_inner();
            let pattern = PATTERN.to_le_bytes();
            buffers.check_target(range.clone(), |index| pattern[(index - range.start) % 8]);
        }
    }
    finish(queue);
}

/// What must not be submitted is refused, costs no space, and leaves the channel well.
pub fn refusals(channel: Box<dyn DmaChannel>, arena: &Arena) {
    let mut queue = TestQueue::new(channel);
    let space = queue.space();
    let slice = |len| arena.alloc(4096).expect("arena").slice(0..len);
    for (source_len, target_len, error) in [
        (0, 0, SubmitError::ZeroLength),
        (0, 1, SubmitError::LengthMismatch { source_len: 0, target_len: 1 }),
        (100, 99, SubmitError::LengthMismatch { source_len: 100, target_len: 99 }),
        (64, 4096, SubmitError::LengthMismatch { source_len: 64, target_len: 4096 }),
    ] {
        let refused = queue.copy(slice(source_len), slice(target_len), 7).expect_err("refusal");
        assert_eq!((refused.error, refused.tag), (error, 7));
        assert_eq!(refused.source.as_ref().len(), source_len, "the memory comes back");
    }
    let refused = queue.fill(0, slice(0), 0).expect_err("refusal");
    assert!(matches!(refused.error, SubmitError::ZeroLength | SubmitError::Unsupported { .. }));
    assert_eq!(queue.space(), space);
    assert!(queue.is_idle());
    copies_work(&mut queue, arena);
    finish(queue);
}

/// An engine of IOVAs refuses memory that was not mapped for it; one of process addresses takes it.
pub fn unreachable_memory(channel: Box<dyn DmaChannel>) {
    let mut queue: Queue<Vec<u8>, Vec<u8>, ()> = Queue::new(channel);
    let submitted = queue.copy(vec![3; 100], vec![0; 100], ());
    match queue.info().addressing {
        Addressing::Iova => {
            let error = submitted.expect_err("no arena, no copy").error;
            assert!(matches!(error, SubmitError::Unreachable { .. }), "{error}");
        }
        Addressing::Process => {
            submitted.expect("submit");
            queue.wait(TIMEOUT, |done| assert_eq!(done.target, [3; 100])).expect("wait");
        }
    }
    assert_eq!(queue.stats().submitted(), queue.stats().completed());
}

/// What is submitted and not issued does not move, and terminating aborts it.
pub fn nothing_before_the_doorbell(channel: Box<dyn DmaChannel>, arena: &Arena) {
    let mut queue = TestQueue::new(channel);
    for index in 0..4 {
        submit_small(&mut queue, arena, index);
    }
    for _ in 0..100 {
        assert_eq!(queue.poll(|_| ()), 0, "an operation ended that was not issued");
    }
    let mut ends = 0;
    queue
        .terminate_sync(TIMEOUT, |done| {
            assert_eq!((done.tag, done.status, done.bytes), (ends, Status::Aborted, 0));
            assert!(done.target.as_ref().iter().all(|&byte| byte == 0), "it moved");
            ends += 1;
        })
        .expect("terminate");
    assert_eq!(ends, 4);
    copies_work(&mut queue, arena);
    finish(queue);
}

/// Space falls by one for each descriptor, the full ring refuses, and all space comes back.
pub fn capacity(channel: Box<dyn DmaChannel>, arena: &Arena) {
    let mut queue = TestQueue::new(channel);
    let ring_size = queue.info().ring_size;
    assert_eq!(queue.space(), ring_size, "an idle channel has all of its ring");
    for _ in 0..3 {
        for index in 0..ring_size {
            submit_small(&mut queue, arena, index);
            assert_eq!(queue.space(), ring_size - index - 1);
        }
        let slice = || arena.alloc(64).expect("arena").slice(0..64);
        let refused = queue.copy(slice(), slice(), 0).expect_err("the ring is full");
        assert_eq!(refused.error, SubmitError::RingFull);
        let mut next = 0;
        let wait = queue.wait(TIMEOUT, |done| check_small(&done, &mut next));
        wait.expect("wait");
        assert_eq!((next, queue.space()), (ring_size, ring_size));
    }
    finish(queue);
}

/// More operations than 16 bits count, in bursts of changing size, all in flight at some time.
pub fn wrap(channel: Box<dyn DmaChannel>, arena: &Arena) {
    const OPERATIONS: usize = (1 << 16) + 1000;
    let mut queue = TestQueue::new(channel);
    let operations = OPERATIONS.max(3 * queue.info().ring_size);
    let mut idle: Vec<_> = (0..queue.space().min(256))
        .map(|_| [(); 2].map(|()| arena.alloc(64).expect("arena")))
        .collect();
    let (mut submitted, mut ended) = (0_usize, 0);
    let deadline = Instant::now() + 4 * TIMEOUT;
    while ended < operations {
        for _ in 0..1 + submitted % 61 {
            let Some([mut source, target]) = idle.pop() else { break };
            source.fill(submitted as u8);
            source[..8].copy_from_slice(&submitted.to_le_bytes());
            queue.copy(source.slice(0..64), target.slice(0..64), submitted).expect("submit");
            submitted += 1;
        }
        queue.issue_pending();
        let polled = queue.poll(|done| {
            assert_eq!(done.status, Status::Success);
            assert_eq!(done.source.as_ref(), done.target.as_ref());
            assert_eq!(done.target.as_ref()[..8], done.tag.to_le_bytes());
            idle.push([done.source.into_inner(), done.target.into_inner()]);
            ended += 1;
        });
        if polled == 0 {
            assert!(Instant::now() < deadline, "{ended} of {submitted} operations ended");
            std::thread::yield_now();
        }
    }
    // Those submitted beyond the number asked for.
    queue.wait(TIMEOUT, |done| assert_eq!(done.status, Status::Success)).expect("wait");
    finish(queue);
}

/// An armed event comes, after the last operation; with nothing to wait for there is none.
///
/// A channel without [`Capabilities::INTERRUPT`] must not arm.
pub fn events(channel: Box<dyn DmaChannel>, arena: &Arena) {
    let mut queue = TestQueue::new(channel);
    assert!(!queue.arm(), "nothing is in flight");
    let has_event = queue.info().capabilities.contains(Capabilities::INTERRUPT);
    assert_eq!(queue.event().is_some(), has_event);
    for round in 0..200 {
        let count = 1 + round % 4;
        for index in 0..count {
            submit_small(&mut queue, arena, index);
        }
        queue.issue_pending();
        let mut ended = 0;
        while queue.arm() {
            assert!(has_event, "armed without an event");
            assert!(wait_for_event(&queue), "the event did not come");
            queue.poll(|done| check_small(&done, &mut ended));
        }
        if !has_event {
            queue.wait(TIMEOUT, |done| check_small(&done, &mut ended)).expect("wait");
        }
        queue.poll(|done| check_small(&done, &mut ended));
        assert_eq!(ended, count, "nothing to wait for, and not all has ended");
    }
    finish(queue);
}

/// Stopping a channel that never did anything works, twice, and leaves it well.
pub fn stop_of_an_unused_channel(channel: Box<dyn DmaChannel>, arena: &Arena) {
    let mut queue = TestQueue::new(channel);
    for _ in 0..2 {
        queue.terminate_sync(TIMEOUT, |_| panic!("nothing was submitted")).expect("terminate");
    }
    copies_work(&mut queue, arena);
    finish(queue);
}

/// Terminating in the middle of work ends every operation once, and the channel works again.
pub fn terminate_in_flight(channel: Box<dyn DmaChannel>, arena: &Arena) {
    const LEN: usize = 1 << 20;
    let mut queue = TestQueue::new(channel);
    for round in 0..5 {
        let slots = 4.min(queue.info().ring_size / queue.info().descriptors(LEN));
        for index in 0..slots {
            let (mut source, mut target) =
                (arena.alloc(LEN).expect("arena"), arena.alloc(LEN).expect("arena"));
            source.fill(round as u8 + 1);
            target.fill(0);
            queue.copy(source.slice(0..LEN), target.slice(0..LEN), index).expect("submit");
        }
        queue.issue_pending();
        let mut ends = vec![0; slots];
        let mut check = |done: TestDone| {
            ends[done.tag] += 1;
            match done.status {
                Status::Success => assert_eq!(done.source.as_ref(), done.target.as_ref()),
                status => assert_eq!(status, Status::Aborted),
            }
        };
        if round % 2 == 1 {
            queue.poll(&mut check);
        }
        queue.terminate_sync(TIMEOUT, &mut check).expect("terminate");
        assert!(ends.iter().all(|&count| count == 1), "ends of each operation: {ends:?}");
        assert!(queue.is_idle());
        copies_work(&mut queue, arena);
    }
    finish(queue);
}

/// After a queue with work in flight was dropped, its memory is nobody else's.
pub fn drop_in_flight(fresh: &mut dyn FnMut() -> Box<dyn DmaChannel>, arena: &Arena) {
    const LEN: usize = 1 << 20;
    for _ in 0..3 {
        let mut queue = TestQueue::new(fresh());
        let mut source = arena.alloc(LEN).expect("arena");
        let target = arena.alloc(LEN).expect("arena");
        source.fill(1);
        let address = target.as_ptr();
        queue.copy(source.slice(0..LEN), target.slice(0..LEN), 0).expect("submit");
        queue.issue_pending();
        let stats = std::sync::Arc::clone(queue.stats());
        drop(queue);
        assert_eq!((stats.submitted(), stats.completed()), (1, 1));
        // First fit: the same memory again, for another owner.
        let mut again = [(); 2].map(|()| arena.alloc(LEN).expect("arena"));
        let target = again.iter_mut().find(|buffer| buffer.as_ptr() == address);
        let target = target.expect("the dropped queue gave its memory back");
        target.fill(0xee);
        let mut other = TestQueue::new(fresh());
        copies_work(&mut other, arena);
        assert!(target.iter().all(|&byte| byte == 0xee), "written after the drop");
        finish(other);
    }
}

/// Handing a channel out and back many times leaves it well.
pub fn restart(fresh: &mut dyn FnMut() -> Box<dyn DmaChannel>, arena: &Arena) {
    for round in 0..20 {
        let mut queue = TestQueue::new(fresh());
        if round % 3 != 0 {
            copies_work(&mut queue, arena);
        }
        if round % 2 == 0 {
            queue.terminate_sync(TIMEOUT, |_| panic!("nothing is in flight")).expect("terminate");
        }
        finish(queue);
    }
}

/// Lengths around all borders that matter to `queue`'s channel.
fn lengths(queue: &TestQueue) -> Vec<usize> {
    let borders = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 8192, 1 << 16, 2 << 20];
    let xfercap = queue.info().xfercap.get();
    let multiples = [xfercap, xfercap.saturating_mul(2), xfercap.saturating_mul(3)];
    let mut lengths: Vec<_> = borders
        .into_iter()
        .chain(multiples)
        .filter(|&border| border < MAX_LEN)
        .flat_map(|border| border.saturating_sub(1)..=border + 1)
        .filter(|&len| len > 0 && queue.info().descriptors(len) <= queue.info().ring_size)
        .collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// A source and a target with room for a copy of a given length, at any offset up to a page, and
/// guards around it.
struct Buffers {
    source: DmaBuf,
    target: DmaBuf,
}

impl Buffers {
    fn new(arena: &Arena, len: usize) -> Self {
        let mut source = arena.alloc(len + GUARD).expect("arena");
        // A period that is no power of two: a byte from another line or page is a wrong byte.
        for (index, byte) in source.iter_mut().enumerate() {
            *byte = (index % 251) as u8;
        }
        Self { source, target: arena.alloc(len + 3 * GUARD).expect("arena") }
    }

    /// The offsets, in the source and after the target's first guard, of the first address that is
    /// a multiple of `border` and has a page before it.
    fn offsets_of(&self, border: usize) -> (usize, usize) {
        let offset = |start: usize| (start + 4096).next_multiple_of(border) - start;
        (offset(self.source.as_ptr().addr()), offset(self.target.as_ptr().addr() + GUARD))
    }

    /// Copies `len` bytes, and checks source, target, and what is around the target.
    fn copy_and_check(&mut self, queue: &mut TestQueue, source: usize, target: usize, len: usize) {
        let range = GUARD + target..GUARD + target + len;
        let watched = range.start - GUARD..range.end + GUARD;
        self.target[watched].fill(0xa5);
        let from = std::mem::take(&mut self.source).slice(source..source + len);
        let to = std::mem::take(&mut self.target).slice(range.clone());
        queue.copy(from, to, 0).unwrap_or_else(|refused| panic!("{len} bytes: {}", refused.error));
        let done = wait_for_one(queue);
        assert_eq!((done.status, done.bytes), (Status::Success, len));
        assert_eq!((done.source.as_ref().len(), done.target.as_ref().len()), (len, len));
        self.source = done.source.into_inner();
        self.target = done.target.into_inner();
        self.check_target(range.clone(), |index| ((index - range.start + source) % 251) as u8);
        let intact = |(index, &byte): (usize, &u8)| byte == (index % 251) as u8;
        let mut read = self.source.iter().enumerate().skip(source).take(len);
        assert!(read.all(intact), "the source of {len} bytes at {source} was written");
    }

    /// The target's `range` must be as `expected`, and the guards around it untouched.
    fn check_target(&self, range: std::ops::Range<usize>, expected: impl Fn(usize) -> u8) {
        let len = range.len();
        for (index, &byte) in self.target[range.clone()].iter().enumerate() {
            let expected = expected(range.start + index);
            assert!(byte == expected, "byte {index} of {len}: {byte:#x}, not {expected:#x}");
        }
        let before = &self.target[range.start - GUARD..range.start];
        let after = &self.target[range.end..range.end + GUARD];
        assert!(before.iter().all(|&byte| byte == 0xa5), "written before {len} bytes");
        assert!(after.iter().all(|&byte| byte == 0xa5), "written after {len} bytes");
    }
}

fn wait_for_one(queue: &mut TestQueue) -> TestDone {
    let mut ended = None;
    let wait = queue.wait(TIMEOUT, |done| {
        assert!(ended.replace(done).is_none(), "more ended than was submitted");
    });
    wait.expect("wait");
    ended.expect("an idle queue has reported its operation")
}

fn submit_small(queue: &mut TestQueue, arena: &Arena, index: usize) {
    let [mut source, mut target] = [(); 2].map(|()| arena.alloc(64).expect("arena"));
    source.fill(stamp(index));
    target.fill(0);
    queue.copy(source.slice(0..64), target.slice(0..64), index).expect("submit");
}

/// What the operation of this index copies; never 0.
const fn stamp(index: usize) -> u8 {
    (index % 255) as u8 + 1
}

/// One of [`submit_small`]'s has ended. Counts them.
fn check_small(done: &TestDone, ended: &mut usize) {
    assert_eq!((done.status, done.bytes), (Status::Success, 64));
    assert!(done.target.as_ref().iter().all(|&byte| byte == stamp(done.tag)));
    *ended += 1;
}

fn copies_work(queue: &mut TestQueue, arena: &Arena) {
    let mut ended = 0;
    for index in 0..8 {
        submit_small(queue, arena, index);
    }
    queue.wait(TIMEOUT, |done| check_small(&done, &mut ended)).expect("wait");
    assert_eq!(ended, 8);
}

fn wait_for_event(queue: &TestQueue) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let event = queue.event().expect("an event");
    let timeout = Timespec { tv_sec: TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result == Ok(1),
        }
    }
}

/// Nothing is in flight, and each operation was reported once.
fn finish(queue: TestQueue) {
    assert!(queue.is_idle());
    assert_eq!(queue.stats().submitted(), queue.stats().completed());
    assert_eq!(queue.spurious_completions(), 0);
    assert_eq!(queue.space(), queue.info().ring_size);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CpuDevice, DmaDevice, ThreadsDevice, ThreadsOptions};

    fn check(device: &dyn DmaDevice) {
        let arena = Arena::new(ARENA_LEN).unwrap();
        device.map(&arena).unwrap();
        all(|| device.request_channel(0).unwrap(), &arena);
    }

    #[test]
    fn cpu() {
        check(&CpuDevice::new(1));
    }

    #[test]
    fn threads() {
        check(&ThreadsDevice::new(1));
    }

    #[test]
    fn threads_that_always_sleep_behind_a_tiny_ring() {
        let spin = Duration::ZERO;
        check(&ThreadsDevice::with_options(ThreadsOptions { channels: 1, ring_size: 8, spin }));
    }
}
