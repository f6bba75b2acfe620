//! A million random operations through the fault injector: nothing is lost, nothing ends twice, and
//! no byte is written that is not a target's, however the engine fails.
//!
//! Each operation has a region of memory of its own, with guards. A shadow has what every byte of it
//! must be: whole regions are compared when an operation is submitted, so that a write between two
//! operations is seen, and when it ends. What succeeded must be exact; a failure may have written its
//! targets, and nothing else. Some copies are fenced and read the target of the one before them.

use std::{
    collections::VecDeque,
    ops::Range,
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Completion, Cookie, CpuDevice, DmaChannel, DmaDevice, Fallback, FallbackOptions, FaultPlan,
    Faults, Flags, Layer, Layered, Operation, OperationKind, Segment, SegmentMut, Split, Status,
    SubmitError, ThreadsDevice, When, random::SplitMix64,
};

/// Of the operations, in bytes.
const MAX_LEN: usize = 4096;
/// Before, between and after the two targets of a region.
const GUARD: usize = 64;
/// Room for a target of the greatest length at any offset in a cache line, and for gaps.
const BODY: usize = MAX_LEN + 256;
const REGION: usize = GUARD + BODY + GUARD + BODY + GUARD;
const REGIONS: usize = 192;
const SOURCES: usize = 1 << 16;

/// Without progress for so long, a completion is taken for lost. If it was late, all is well too.
const PATIENCE: Duration = Duration::from_millis(2);

/// What a client sees of an engine that fails in every way.
const PLAN: &str = "fail@1/60:write-error,fail@1/1500x16:read-error,fail@1/400:not-attempted,\
                    fail@1/900:timed-out,lose@1/9000,halt@1/3000:bad-address,vanish@1/8000:2,\
                    full@1/200x3,delay@1/20:2,delay@1/50:5ops,poison,partial,stuck=1";

/// One operation and what it is to do. Offsets of sources are in the sources, or in all regions for
/// a chained copy; those of targets are in the region.
#[derive(Debug)]
struct Op {
    kind: OperationKind,
    flags: Flags,
    len: usize,
    region: usize,
    sources: Vec<Range<usize>>,
    coefficients: Vec<u8>,
    targets: Vec<Range<usize>>,
    has_p: bool,
    pattern: u64,
    /// The region whose target it reads, behind a fence.
    chained_to: Option<usize>,
}

/// Memory that is reached through pointers, and borrowed for checks while nothing runs in it.
struct Memory(NonNull<u8>);

impl Memory {
    fn new(bytes: Vec<u8>) -> Self {
        Self(NonNull::from(Box::leak(bytes.into_boxed_slice())).cast())
    }

    fn at(&self, offset: usize) -> *mut u8 {
        self.0.as_ptr().wrapping_add(offset)
    }

    /// # Safety
    ///
    /// The range lies in the memory, and no operation that may write it is in flight.
    unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        // SAFETY: valid, since leaked, and unwritten by contract; the callers let go of it before
        // they submit again.
        unsafe { std::slice::from_raw_parts(self.at(range.start), range.len()) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Use {
    #[default]
    Free,
    InFlight,
    /// Its operation has ended; a chained copy that reads it has not.
    Ended,
}

struct Client<'a> {
    fresh: &'a mut dyn FnMut() -> Box<dyn DmaChannel>,
    channel: Box<dyn DmaChannel>,
    random: SplitMix64,
    sources: Memory,
    sources_copy: Vec<u8>,
    regions: Memory,
    shadow: Vec<u8>,
    uses: Vec<Use>,
    /// The chained copies that read each.
    readers: Vec<usize>,
    /// Submitted and not reported, in order; `None`: reported before an earlier one.
    in_flight: VecDeque<Option<Op>>,
    /// Of the first of them.
    first: Cookie,
    last: Option<Cookie>,
    /// Chained copies that were reported as done before what they read.
    unchecked: Vec<Op>,
    ends: Vec<Completion>,
    submitted: usize,
    ended: usize,
    by_status: Vec<usize>,
    progress: Instant,
    /// The last poll reported nothing of what is in flight.
    has_stalled: bool,
}

impl<'a> Client<'a> {
    fn new(fresh: &'a mut dyn FnMut() -> Box<dyn DmaChannel>, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let sources: Vec<_> = (0..SOURCES).map(|_| random.next() as u8).collect();
        let shadow: Vec<_> = (0..REGIONS * REGION).map(|_| random.next() as u8).collect();
        Self {
            channel: fresh(),
            fresh,
            random,
            sources: Memory::new(sources.clone()),
            sources_copy: sources,
            regions: Memory::new(shadow.clone()),
            shadow,
            uses: vec![Use::Free; REGIONS],
            readers: vec![0; REGIONS],
            in_flight: VecDeque::new(),
            first: Cookie::FIRST,
            last: None,
            unchecked: Vec::new(),
            ends: Vec::new(),
            submitted: 0,
            ended: 0,
            by_status: vec![0; Status::ALL.len()],
            progress: Instant::now(),
            has_stalled: false,
        }
    }

    fn run(&mut self, operations: usize) {
        while self.ended < operations {
            for _ in 0..self.random.below(24) {
                self.submit_one();
            }
            if self.random.below(8) != 0 {
                self.channel.issue_pending();
            }
            for _ in 0..=self.random.below(3) {
                self.poll();
            }
            if self.random.below(300) == 0 {
                self.terminate();
            }
            if self.random.below(2000) == 0 {
                self.replace_channel();
            }
            if self.progress.elapsed() > PATIENCE {
                self.channel.issue_pending();
                self.terminate();
            } else if self.has_stalled {
                // The engine may need this processor.
                std::thread::yield_now();
            }
        }
        self.terminate();
        assert_eq!((self.in_flight.len(), self.ended), (0, self.submitted));
        self.check_sources();
        for region in 0..REGIONS {
            self.check_region(region, &[]);
        }
    }

    fn submit_one(&mut self) {
        let Some(region) = self.uses.iter().position(|&usage| usage == Use::Free) else { return };
        // Any of the free ones.
        let start = self.random.below(REGIONS);
        let region = (start..REGIONS).find(|&at| self.uses[at] == Use::Free).unwrap_or(region);
        self.check_region(region, &[]);
        let op = self.next_op(region);
        match self.submit(&op) {
            Ok(cookie) => {
                assert!(self.last.is_none_or(|last| last.next() == cookie), "consecutive");
                self.last = Some(cookie);
                if self.in_flight.is_empty() {
                    self.first = cookie;
                }
                self.uses[region] = Use::InFlight;
                if let Some(read) = op.chained_to {
                    self.readers[read] += 1;
                }
                self.in_flight.push_back(Some(op));
                self.submitted += 1;
            }
            Err(SubmitError::RingFull) => self.check_region(region, &[]),
            Err(SubmitError::ChannelDown) => self.terminate(),
            Err(error) => panic!("{error}: {op:?}"),
        }
    }

    fn next_op(&mut self, region: usize) -> Op {
        let last = self.in_flight.back().and_then(Option::as_ref);
        if let Some(Op { region: read, targets, len, .. }) = last
            && targets.len() == 1
            && self.random.below(4) == 0
        {
            let start = read * REGION + targets[0].start;
            let (read, len) = (*read, *len);
            return Op {
                kind: OperationKind::Memcpy,
                flags: Flags::FENCE,
                len,
                region,
                sources: std::iter::once(start..start + len).collect(),
                coefficients: Vec::new(),
                targets: vec![self.target(GUARD, len)],
                has_p: false,
                pattern: 0,
                chained_to: Some(read),
            };
        }
        let kind = match self.random.below(100) {
            0..45 => OperationKind::Memcpy,
            45..60 => OperationKind::Memset,
            60..80 => OperationKind::MemcpySg,
            80..90 => OperationKind::Xor,
            90..94 => OperationKind::XorVal,
            94..97 => OperationKind::Pq,
            _ => OperationKind::PqVal,
        };
        let max = match (kind, self.random.below(2)) {
            (OperationKind::Pq | OperationKind::PqVal, _) => 300,
            (_, 0) => 256,
            _ => MAX_LEN,
        };
        let len = 1 + self.random.below(max);
        let flags = if self.random.below(16) == 0 { Flags::FENCE } else { Flags::empty() };
        let count = match kind {
            OperationKind::Memset => 0,
            OperationKind::Memcpy | OperationKind::MemcpySg => 1,
            _ => 1 + self.random.below(5),
        };
        let mut sources: Vec<_> = (0..count).map(|_| self.source(len)).collect();
        let coefficients = sources.iter().map(|_| self.random.next() as u8).collect();
        let mut has_p = false;
        let targets = match kind {
            OperationKind::XorVal => {
                if self.random.below(2) == 0 {
                    // The sum of what is there twice is zero.
                    sources.extend(sources.clone());
                }
                vec![]
            }
            OperationKind::PqVal => {
                has_p = self.random.below(2) == 0;
                vec![]
            }
            OperationKind::Pq => {
                has_p = self.random.below(2) == 0;
                let q = self.target(GUARD + BODY + GUARD, len);
                if has_p { vec![self.target(GUARD, len), q] } else { vec![q] }
            }
            OperationKind::MemcpySg => {
                sources = self.cut(&sources[0].clone(), 0);
                let gap = self.random.below(64);
                let target = self.target(GUARD, len);
                self.cut(&target, gap)
            }
            _ => vec![self.target(GUARD, len)],
        };
        let pattern = self.random.next();
        Op {
            kind,
            flags,
            len,
            region,
            sources,
            coefficients,
            targets,
            has_p,
            pattern,
            chained_to: None,
        }
    }

    fn source(&mut self, len: usize) -> Range<usize> {
        let start = self.random.below(SOURCES - len);
        start..start + len
    }

    /// A place for a target in the body that begins at `body`, with room behind it.
    fn target(&mut self, body: usize, len: usize) -> Range<usize> {
        let start = body + self.random.below(64);
        start..start + len
    }

    /// A range as up to 3 pieces with gaps.
    fn cut(&mut self, range: &Range<usize>, gap: usize) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let (mut start, mut left) = (range.start, range.len());
        while left > 0 {
            let len = if pieces.len() == 2 { left } else { 1 + self.random.below(left) };
            pieces.push(start..start + len);
            (start, left) = (start + len + gap, left - len);
        }
        pieces
    }

    fn submit(&mut self, op: &Op) -> Result<Cookie, SubmitError> {
        let base = op.region * REGION;
        let from = if op.chained_to.is_some() { &self.regions } else { &self.sources };
        let source = |range: &Range<usize>| from.at(range.start).cast_const();
        let target = |range: &Range<usize>| self.regions.at(base + range.start);
        let sources: Vec<_> = op.sources.iter().map(source).collect();
        let len = op.len;
        let (from, to): (Vec<_>, Vec<_>);
        let coefficients = &op.coefficients[..];
        let operation = match op.kind {
            OperationKind::Memcpy => {
                Operation::Memcpy { source: sources[0], target: target(&op.targets[0]), len }
            }
            OperationKind::Memset => {
                Operation::Memset { pattern: op.pattern, target: target(&op.targets[0]), len }
            }
            OperationKind::MemcpySg => {
                let piece = |range| Segment { address: source(range), len: range.len() };
                from = op.sources.iter().map(piece).collect();
                let piece = |range| SegmentMut { address: target(range), len: range.len() };
                to = op.targets.iter().map(piece).collect();
                Operation::MemcpySg { sources: &from, targets: &to }
            }
            OperationKind::Xor => {
                Operation::Xor { sources: &sources, target: target(&op.targets[0]), len }
            }
            OperationKind::XorVal => Operation::XorVal { sources: &sources, len },
            OperationKind::Pq => {
                let (p, q) = match &op.targets[..] {
                    [p, q] => (NonNull::new(target(p)), target(q)),
                    targets => (None, target(&targets[0])),
                };
                let q = NonNull::new(q);
                Operation::Pq { sources: &sources, coefficients, p, q, len }
            }
            OperationKind::PqVal => {
                // Some of the sources' own bytes, which may even be right.
                let at = |offset| NonNull::new(self.sources.at(offset));
                let p = if op.has_p { at(0) } else { None };
                Operation::PqVal { sources: &sources, coefficients, p, q: at(MAX_LEN), len }
            }
        };
        // SAFETY: the memory is leaked. The sources are not written by anybody. The region is free:
        // no other operation in flight has it, and it is not looked at until this one has ended. A
        // chained copy is fenced, and what it reads is not used again before it has ended.
        unsafe { self.channel.submit(&operation, op.flags) }
    }

    fn poll(&mut self) {
        let mut ends = std::mem::take(&mut self.ends);
        self.channel.poll(&mut |end| ends.push(end));
        self.has_stalled = ends.is_empty() && !self.in_flight.is_empty();
        if !self.has_stalled {
            self.progress = Instant::now();
        }
        for end in ends.drain(..) {
            self.end(end);
        }
        self.ends = ends;
    }

    fn end(&mut self, end: Completion) {
        let index = end.cookie.since(self.first).unwrap_or(u64::MAX) as usize;
        let op = self.in_flight.get_mut(index).and_then(Option::take);
        let op = op.unwrap_or_else(|| panic!("{end:?} was not in flight: it ended before"));
        while let Some(None) = self.in_flight.front() {
            self.in_flight.pop_front();
            self.first = self.first.next();
        }
        self.by_status[end.status as usize] += 1;
        self.end_op(op, Some(end));
        if self.ended.is_multiple_of(1 << 14) {
            self.check_sources();
        }
    }

    /// An operation has ended, or `None`, its channel was dropped.
    fn end_op(&mut self, op: Op, end: Option<Completion>) {
        self.ended += 1;
        self.uses[op.region] = Use::Ended;
        self.check_region(op.region, &op.targets);
        match end {
            Some(Completion { status, bytes, .. }) if status.is_done() => {
                assert_eq!(bytes, op.len);
                if op.chained_to.is_some() {
                    self.unchecked.push(op);
                    return self.check_chained();
                }
                self.check_result(&op, status);
            }
            Some(Completion { status, bytes, .. }) => {
                assert!(bytes < op.len);
                if bytes > 0 {
                    self.check_prefix(&op, bytes);
                }
                if status == Status::NotAttempted {
                    self.check_region(op.region, &[]);
                }
            }
            None => {}
        }
        self.release(&op);
        self.check_chained();
    }

    /// Takes over what an operation has made of its targets, and frees its region.
    fn release(&mut self, op: &Op) {
        let base = op.region * REGION;
        for target in &op.targets {
            let target = base + target.start..base + target.end;
            // SAFETY: the region's operation has ended.
            let bytes = unsafe { self.regions.bytes(target.clone()) };
            self.shadow[target].copy_from_slice(bytes);
        }
        if let Some(read) = op.chained_to {
            self.readers[read] -= 1;
            self.free(read);
        }
        self.free(op.region);
    }

    fn free(&mut self, region: usize) {
        if self.uses[region] == Use::Ended
            && self.readers[region] == 0
            && self.unchecked.iter().all(|op| op.region != region)
        {
            self.uses[region] = Use::Free;
        }
    }

    /// Checks the chained copies that are done, as soon as what they read has ended.
    fn check_chained(&mut self) {
        while let Some(index) = self.unchecked.iter().position(|op| {
            op.chained_to.is_none_or(|read| {
                self.uses[read] == Use::Ended
                    && self.unchecked.iter().all(|other| other.region != read)
            })
        }) {
            let op = self.unchecked.swap_remove(index);
            let target = op.region * REGION + op.targets[0].start;
            // SAFETY: both regions' operations have ended.
            let [read, written] = unsafe {
                [
                    self.regions.bytes(op.sources[0].clone()),
                    self.regions.bytes(target..target + op.len),
                ]
            };
            assert!(read == written, "not what was there when all before the fence had ended");
            self.release(&op);
        }
    }

    /// The region is as it must be, but for `targets`.
    fn check_region(&self, region: usize, targets: &[Range<usize>]) {
        let base = region * REGION;
        // SAFETY: the region's operation has ended, and none is in flight that has it as its target.
        let bytes = unsafe { self.regions.bytes(base..base + REGION) };
        let shadow = &self.shadow[base..base + REGION];
        let mut start = 0;
        for target in targets {
            assert!(bytes[start..target.start] == shadow[start..target.start], "{region}");
            start = target.end;
        }
        assert!(bytes[start..] == shadow[start..], "written outside, or after its end: {region}");
    }

    fn check_sources(&self) {
        // SAFETY: nobody writes them.
        assert!(unsafe { self.sources.bytes(0..SOURCES) } == self.sources_copy);
    }

    fn check_result(&self, op: &Op, status: Status) {
        let sources = || op.sources.iter().map(|range| &self.sources_copy[range.clone()]);
        match op.kind {
            OperationKind::XorVal => {
                let is_zero = xor(sources(), op.len).iter().all(|&byte| byte == 0);
                let expected = if is_zero { Status::Success } else { Status::MismatchP };
                assert_eq!(status, expected, "{op:?}");
            }
            OperationKind::PqVal => {
                let p = op.has_p && xor(sources(), op.len) != self.sources_copy[..op.len];
                let there = &self.sources_copy[MAX_LEN..MAX_LEN + op.len];
                let q = products(sources().zip(op.coefficients.iter().copied()), op.len) != there;
                let expected = match (p, q) {
                    (false, false) => Status::Success,
                    (true, false) => Status::MismatchP,
                    (false, true) => Status::MismatchQ,
                    (true, true) => Status::MismatchPq,
                };
                assert_eq!(status, expected, "{op:?}");
            }
            _ => {
                assert_eq!(status, Status::Success);
                self.check_prefix(op, usize::MAX);
            }
        }
    }

    /// The first `len` bytes of all targets together are what they are to be.
    fn check_prefix(&self, op: &Op, len: usize) {
        if op.chained_to.is_some() {
            return;
        }
        let sources = || op.sources.iter().map(|range| &self.sources_copy[range.clone()]);
        let expected = match op.kind {
            OperationKind::Memset => {
                (0..op.len).map(|index| op.pattern.to_le_bytes()[index % 8]).collect()
            }
            OperationKind::Xor => xor(sources(), op.len),
            OperationKind::Pq => {
                let mut both = if op.has_p { xor(sources(), op.len) } else { Vec::new() };
                both.extend(products(sources().zip(op.coefficients.iter().copied()), op.len));
                both
            }
            _ => sources().collect::<Vec<_>>().concat(),
        };
        let mut expected = &expected[..expected.len().min(len)];
        for target in &op.targets {
            let start = op.region * REGION + target.start;
            let part = expected.split_off(..target.len().min(expected.len())).unwrap_or_default();
            // SAFETY: the region's operation has ended.
            let bytes = unsafe { self.regions.bytes(start..start + part.len()) };
            assert!(bytes == part, "{op:?}");
        }
    }

    fn terminate(&mut self) {
        let mut refusals = 0;
        while self.channel.terminate_sync(Duration::from_secs(10)).is_err() {
            refusals += 1;
            assert!(refusals < 10, "it does not stop");
        }
        self.poll();
        assert_eq!(self.in_flight.len(), 0, "lost");
        assert_eq!(self.unchecked.len(), 0);
    }

    /// Drops the channel with all that is in flight.
    fn replace_channel(&mut self) {
        let placeholder = CpuDevice::new(1).request_channel(0).expect("a channel");
        drop(std::mem::replace(&mut self.channel, placeholder));
        for op in std::mem::take(&mut self.in_flight).into_iter().flatten() {
            self.end_op(op, None);
        }
        self.check_chained();
        assert_eq!(self.unchecked.len(), 0);
        self.channel = (self.fresh)();
        self.last = None;
    }
}

/// What the plan does not order.
const NOT_ORDERED: [Status; 2] = [Status::BadLength, Status::BadDescriptor];

fn xor<'s>(sources: impl Iterator<Item = &'s [u8]>, len: usize) -> Vec<u8> {
    let mut sum = vec![0; len];
    for source in sources {
        sum.iter_mut().zip(source).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

/// The sum of products in GF(256), by Russian peasants.
fn products<'s>(sources: impl Iterator<Item = (&'s [u8], u8)>, len: usize) -> Vec<u8> {
    let mut sum = vec![0; len];
    for (source, coefficient) in sources {
        for (sum, &byte) in sum.iter_mut().zip(source) {
            let (mut byte, mut left) = (byte, coefficient);
            while left != 0 {
                if left & 1 != 0 {
                    *sum ^= byte;
                }
                byte = byte << 1 ^ if byte & 0x80 != 0 { 0x1d } else { 0 };
                left >>= 1;
            }
        }
    }
    sum
}

/// Half of the operations in order, half out of order. They must end in every way but those of
/// `never`.
fn million(
    below: &Arc<dyn DmaDevice>,
    over: impl Fn(Box<dyn DmaChannel>) -> Box<dyn DmaChannel>,
    never: &[Status],
) {
    for (seed, order) in [(1, ""), (2, ",reorder")] {
        let plan: FaultPlan = format!("{PLAN}{order},seed={seed}").parse().unwrap();
        let device = Layered::new(Arc::clone(below), Faults::new(plan));
        let mut fresh = || over(device.request_channel(0).unwrap());
        let mut client = Client::new(&mut fresh, seed);
        client.run(500_000);
        for status in Status::ALL {
            let count = client.by_status[status as usize];
            assert_eq!(count > 0, !never.contains(&status), "{count} ended with {status}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
#[should_panic = "written outside, or after its end"]
fn an_engine_that_scribbles_is_noticed() {
    let plan: FaultPlan = PLAN.parse().unwrap();
    // SAFETY: the regions are leaked, and looked at between calls only.
    let faults = unsafe { Faults::with_scribbles(plan, When::one_in(1000)) };
    let device = Layered::new(Arc::new(CpuDevice::new(1)), faults);
    Client::new(&mut || device.request_channel(0).unwrap(), 1).run(20_000);
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn a_million_operations_with_faults_over_cpu() {
    million(&(Arc::new(CpuDevice::new(1)) as _), |channel| channel, &NOT_ORDERED);
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn a_million_operations_with_faults_over_threads() {
    million(&(Arc::new(ThreadsDevice::new(1)) as _), |channel| channel, &NOT_ORDERED);
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn a_million_operations_shared_with_a_cpu_over_faults() {
    // Parts meet in the middle of a page, so that the short copies here have two.
    let split = Split::with_border(256, 64);
    million(&(Arc::new(ThreadsDevice::new(1)) as _), |channel| split.wrap(channel), &NOT_ORDERED);
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn a_million_operations_that_a_cpu_repeats_over_faults() {
    // Below the client's patience, so that what is lost is found here.
    let timeout = PATIENCE / 4;
    let fallback = Fallback::new(FallbackOptions { timeout, ..FallbackOptions::default() });
    let fails = |status: &Status| !status.is_done() && *status != Status::Aborted;
    let never: Vec<_> = Status::ALL.into_iter().filter(fails).collect();
    for below in
        [Arc::new(CpuDevice::new(1)) as Arc<dyn DmaDevice>, Arc::new(ThreadsDevice::new(1))]
    {
        million(&below, |channel| fallback.wrap(channel), &never);
    }
}
