//! Operations of every kind with every flag, on a device that is moved by hand and fails to order,
//! against an oracle: it knows when which operation is reported and how, how much room there is, and
//! every byte.

use std::{collections::VecDeque, sync::Arc};

use dmaengine::{
    Arena, Completion, Cookie, DmaBuf, DmaChannel, DmaDevice, Flags, Operation, Segment,
    SegmentMut, Status, SubmitError, pieces,
};
use ioat_model::{Config, Fault, Faults, Stepped, registers::ChanErr};
use ioatdma::{Completions, IoatDevice, Options};
use proptest::prelude::*;

use crate::{
    machine::Host,
    rig::{FIRST, Random},
};

/// XFERCAP.
const PAGE: usize = 4096;
/// What a target lies in, and only one in flight: there are more than the ring holds operations.
const AREA: usize = 4 * PAGE;
const AREAS: usize = 32;
/// What all operations may read, and none writes.
const SOURCE: usize = 16 * PAGE;
/// The longest operation.
const MAX_LEN: usize = 3 * PAGE;

#[derive(Clone, Debug)]
enum Action {
    Submit {
        kind: Kind,
        seed: u64,
        fence: bool,
        quiet: bool,
    },
    Issue,
    /// Lets the device look at so many descriptors.
    Step(u8),
    Poll,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Copy,
    Lists,
    Fill,
    /// A copy of what the operation before wrote: always behind a fence.
    Chain,
}

fn action() -> impl Strategy<Value = Action> {
    let kind = prop::sample::select(vec![Kind::Copy, Kind::Lists, Kind::Fill, Kind::Chain]);
    prop_oneof![
        4 => (kind, any::<u64>(), any::<bool>(), any::<bool>())
            .prop_map(|(kind, seed, fence, quiet)| Action::Submit { kind, seed, fence, quiet }),
        1 => Just(Action::Issue),
        2 => (1..8_u8).prop_map(Action::Step),
        2 => Just(Action::Poll),
    ]
}

/// Gaps between faulty descriptors, and the faults. At least one good one is between two: the one
/// that starts the chain after the halt.
fn faults() -> impl Strategy<Value = Vec<(u64, Option<ChanErr>)>> {
    let errors = [
        ChanErr::SOURCE_ADDRESS,
        ChanErr::READ_DATA,
        ChanErr::WRITE_DATA,
        ChanErr::LENGTH,
        ChanErr::DESCRIPTOR_CONTROL,
    ];
    let fault = prop::option::of(prop::sample::select(errors.to_vec()));
    prop::collection::vec((2..40_u64, fault), 0..8)
}

fn status(error: Option<ChanErr>) -> Status {
    match error {
        Some(ChanErr::SOURCE_ADDRESS) => Status::BadAddress,
        Some(ChanErr::READ_DATA) => Status::ReadError,
        Some(ChanErr::WRITE_DATA) => Status::WriteError,
        Some(ChanErr::LENGTH) => Status::BadLength,
        Some(ChanErr::DESCRIPTOR_CONTROL) => Status::BadDescriptor,
        _ => Status::Aborted,
    }
}

/// What an operation moves, as offsets in the buffer: by pieces of any length.
#[derive(Clone, Debug)]
enum Move {
    Copy { from: usize, to: usize, len: usize },
    Fill { pattern: u64, to: usize, len: usize },
}

impl Move {
    fn target(&self) -> std::ops::Range<usize> {
        let (Self::Copy { to, len, .. } | Self::Fill { to, len, .. }) = *self;
        to..to + len
    }

    /// The bytes that it writes.
    fn bytes(&self, memory: &[u8]) -> Vec<u8> {
        match *self {
            Self::Copy { from, len, .. } => memory[from..from + len].to_vec(),
            Self::Fill { pattern, len, .. } => {
                pattern.to_le_bytes().iter().copied().cycle().take(len).collect()
            }
        }
    }
}

/// An operation that was submitted and not reported.
struct Expected {
    cookie: Cookie,
    len: usize,
    /// With the fence's own, if that is one.
    descriptors: usize,
    moves: Vec<Move>,
    quiet: bool,
}

struct Oracle {
    /// What all memory should be once everything reported is done.
    memory: Vec<u8>,
    operations: VecDeque<Expected>,
    /// Descriptors of `operations`, from the oldest on: all, those issued, those that have ended,
    /// those that the completion word tells of.
    submitted: usize,
    issued: usize,
    ended: usize,
    told: usize,
    /// The doorbells: counts of `issued` at which a completion is written.
    batches: VecDeque<usize>,
    /// A fence's own descriptor is among those not issued.
    fence: bool,
    halted: Option<Status>,
    completions: Completions,
    /// The descriptor that the device looks at next.
    position: u64,
    faults: VecDeque<(u64, Option<ChanErr>)>,
}

impl Oracle {
    /// The device looks at a descriptor.
    fn step(&mut self) -> bool {
        if self.halted.is_some() || self.ended == self.issued {
            return false;
        }
        let position = self.position;
        self.position += 1;
        if let Some((_, error)) = self.faults.pop_front_if(|(at, _)| *at == position) {
            self.halted = Some(status(error));
            self.told = self.ended;
            return true;
        }
        self.ended += 1;
        let mut end = 0;
        let own = self.operations.iter().any(|operation| {
            end += operation.descriptors;
            end == self.ended && !operation.quiet
        });
        let each = self.completions == Completions::PerOperation;
        if own && each || self.batches.contains(&self.ended) {
            self.told = self.ended;
        }
        true
    }

    /// What a poll reports.
    fn poll(&mut self, memory: &[u8]) -> Vec<Completion> {
        let mut reports = Vec::new();
        while let Some(first) = self.operations.pop_front_if(|first| first.descriptors <= self.told)
        {
            self.take(first.descriptors);
            self.done(&first, memory);
            reports.push(Completion::success(first.cookie, first.len));
        }
        if let Some(status) = self.halted.take() {
            // All of it, whatever of it had ended before the halt.
            let failed = self.operations.pop_front().expect("it halted at one");
            for one in &failed.moves {
                let (range, new) = (one.target(), one.bytes(&self.memory));
                for (at, new) in range.zip(new) {
                    let byte = memory[at];
                    assert!(byte == new || byte == self.memory[at], "neither old nor new at {at}");
                    self.memory[at] = byte;
                }
            }
            reports.push(Completion::failed(failed.cookie, status));
            let rest = self.operations.drain(..);
            reports.extend(rest.map(|other| Completion::failed(other.cookie, Status::Aborted)));
            (self.submitted, self.issued, self.ended, self.told) = (0, 0, 0, 0);
            self.batches.clear();
            self.fence = false;
            // The descriptor that starts the chain.
            self.position += 1;
        }
        reports
    }

    fn take(&mut self, descriptors: usize) {
        for count in [&mut self.submitted, &mut self.issued, &mut self.ended, &mut self.told] {
            *count -= descriptors;
        }
        self.batches.iter_mut().for_each(|batch| *batch = batch.saturating_sub(descriptors));
        self.batches.retain(|batch| *batch > 0);
    }

    fn done(&mut self, operation: &Expected, memory: &[u8]) {
        for one in &operation.moves {
            let (range, new) = (one.target(), one.bytes(&self.memory));
            assert!(memory[range.clone()] == new, "wrong bytes at {range:?}: {operation:?}");
            self.memory[range].copy_from_slice(&new);
        }
    }
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expected").field(&self.cookie).field(&self.moves).finish()
    }
}

/// The driver on the device.
struct Bench {
    channel: Box<dyn DmaChannel>,
    /// First what is read only, then the areas.
    buffer: DmaBuf,
    host: Arc<Host<Stepped>>,
    _device: IoatDevice,
}

impl Bench {
    fn new(faults: &VecDeque<(u64, Option<ChanErr>)>, completions: Completions) -> Self {
        let faults = faults.iter().fold(Faults::none(), |faults, (position, error)| {
            faults.at(0, *position, error.map_or(Fault::Halt, Fault::Error))
        });
        let host = Host::<Stepped>::new(Config { xfercap: 12, faults, ..Config::default() });
        let options = Options { ring_order: 5, completions, ..Options::default() };
        let device = host.probe(options).expect("a good device");
        let arena = Arena::new(SOURCE + AREA * AREAS).expect("memory");
        device.map(&arena).expect("room");
        let channel = device.request_channel(0).expect("free");
        let mut buffer = arena.alloc(SOURCE + AREA * AREAS).expect("room");
        Random(1).fill(&mut buffer);
        Self { channel, buffer, host, _device: device }
    }

    fn segment(&self, offset: usize, len: usize) -> Segment {
        Segment { address: self.buffer.as_ptr().wrapping_add(offset), len }
    }

    fn segment_mut(&mut self, offset: usize, len: usize) -> SegmentMut {
        SegmentMut { address: self.buffer.as_mut_ptr().wrapping_add(offset), len }
    }

    /// Submits `moves` as an operation of `kind`, all of which but [`Kind::Lists`] have one; and
    /// the descriptors of it.
    fn submit(
        &mut self,
        kind: Kind,
        sources: &[Segment],
        targets: &[SegmentMut],
        pattern: u64,
        flags: Flags,
    ) -> (Result<Cookie, SubmitError>, usize) {
        let SegmentMut { address: target, len } = targets[0];
        let operation = match kind {
            Kind::Copy | Kind::Chain => {
                Operation::Memcpy { source: sources[0].address, target, len }
            }
            Kind::Lists => Operation::MemcpySg { sources, targets },
            Kind::Fill => Operation::Memset { pattern, target, len },
        };
        let descriptors = match kind {
            Kind::Lists => pieces(sources, targets, PAGE).count(),
            _ => len.div_ceil(PAGE),
        };
        // SAFETY: parts of the buffer, which outlives the channel. What is read is written by no
        // operation in flight but, with a fence between, the one before; the target is in an area
        // that no other operation in flight has. The buffer is read in between, while the device,
        // which is moved by the same thread, stands still.
        (unsafe { self.channel.submit(&operation, flags) }, descriptors)
    }
}

/// Cuts `len` into 1 to 5 lengths.
fn cut(random: &mut Random, len: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut left = len;
    while left > 0 {
        let piece = if lengths.len() == 4 { left } else { 1 + random.below(left) };
        lengths.push(piece);
        left -= piece;
    }
    lengths
}

fn run(actions: Vec<Action>, gaps: Vec<(u64, Option<ChanErr>)>, completions: Completions) {
    let mut position = FIRST;
    let faults: VecDeque<_> = gaps
        .into_iter()
        .map(|(gap, error)| {
            position += gap;
            (position, error)
        })
        .collect();
    let mut bench = Bench::new(&faults, completions);
    let mut oracle = Oracle {
        memory: bench.buffer.to_vec(),
        operations: VecDeque::new(),
        submitted: 0,
        issued: 0,
        ended: 0,
        told: 0,
        batches: VecDeque::new(),
        fence: false,
        halted: None,
        completions,
        position: FIRST,
        faults,
    };
    let ring_size = bench.channel.info().ring_size;
    let mut next = Cookie::FIRST;
    let drain = [Action::Issue, Action::Step(u8::MAX), Action::Poll];
    // Behind a halt, what was submitted is gone, so that one round is enough.
    for action in actions.into_iter().chain(drain) {
        match action {
            Action::Submit { kind, seed, fence, quiet } => {
                let mut random = Random(seed);
                let area = SOURCE + next.get() as usize % AREAS * AREA;
                let len = 1 + random.below(if seed % 4 == 0 { MAX_LEN } else { 200 });
                // Chained to the operation before, if it was not reported.
                let before = oracle.operations.back().map(|before| before.moves[0].target());
                let (kind, len, from) = match (kind, before) {
                    (Kind::Chain, Some(range)) => (kind, range.len(), range.start),
                    (Kind::Chain, None) => (Kind::Copy, len, random.below(SOURCE - len)),
                    (kind, _) => (kind, len, random.below(SOURCE - len)),
                };
                let to = area + random.below(64);
                let pattern = random.next();
                let (mut moves, mut sources, mut targets) = (Vec::new(), Vec::new(), Vec::new());
                match kind {
                    Kind::Copy | Kind::Chain => moves.push(Move::Copy { from, to, len }),
                    Kind::Fill => moves.push(Move::Fill { pattern, to, len }),
                    Kind::Lists => {}
                }
                if let Kind::Lists = kind {
                    let mut read = Vec::new();
                    for len in cut(&mut random, len) {
                        let from = random.below(SOURCE - len);
                        read.extend(from..from + len);
                        sources.push(bench.segment(from, len));
                    }
                    let (mut at, mut read) = (to, read.into_iter());
                    for len in cut(&mut random, len) {
                        targets.push(bench.segment_mut(at, len));
                        let bytes = (at..at + len).zip(&mut read);
                        moves.extend(bytes.map(|(to, from)| Move::Copy { from, to, len: 1 }));
                        at += len + random.below(64);
                    }
                } else {
                    sources.push(bench.segment(from, len));
                    targets.push(bench.segment_mut(to, len));
                }
                let fence = fence || matches!(kind, Kind::Chain);
                let mut flags = Flags::empty();
                flags.set(Flags::FENCE, fence);
                flags.set(Flags::NO_STATUS, quiet);
                let space = bench.channel.space();
                let (submitted, count) = bench.submit(kind, &sources, &targets, pattern, flags);
                if count > space {
                    assert_eq!(submitted, Err(SubmitError::RingFull));
                    continue;
                }
                assert_eq!(submitted, Ok(next));
                // Behind what was issued and not reported, a fence is a descriptor of its own.
                let own = fence && oracle.submitted > 0 && oracle.submitted == oracle.issued;
                oracle.fence |= own;
                let descriptors = count + usize::from(own);
                oracle.submitted += descriptors;
                let cookie = next;
                next = next.next();
                oracle.operations.push_back(Expected { cookie, len, descriptors, moves, quiet });
            }
            Action::Issue => {
                bench.channel.issue_pending();
                if oracle.issued < oracle.submitted {
                    oracle.issued = oracle.submitted;
                    oracle.batches.push_back(oracle.issued);
                }
                oracle.fence = false;
            }
            Action::Step(count) => {
                for _ in 0..count {
                    // A halt is a step of the oracle's and none of the device's.
                    let halted = oracle.halted.is_some();
                    let moved = oracle.step();
                    assert_eq!(bench.host.shell.step(), moved && oracle.halted.is_some() == halted);
                }
            }
            Action::Poll => {
                let mut reports = Vec::new();
                bench.channel.poll(&mut |completion| reports.push(completion));
                assert_eq!(reports, oracle.poll(&bench.buffer));
                if oracle.operations.is_empty() {
                    assert!(*bench.buffer == *oracle.memory, "bytes that nobody should write");
                }
            }
        }
        let space = (ring_size + usize::from(oracle.fence)).saturating_sub(oracle.submitted);
        assert_eq!(bench.channel.space(), space);
    }
    assert!(oracle.operations.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn end_as_the_oracle_says(
        actions in prop::collection::vec(action(), 1..120),
        faults in faults(),
        each in any::<bool>(),
    ) {
        let completions = if each { Completions::PerOperation } else { Completions::PerBatch };
        run(actions, faults, completions);
    }
}

/// Also at the empty descriptor that is the fence, and at the pieces of lists that have ended.
#[test]
fn a_halt_at_any_descriptor_ends_the_operation_that_it_belongs_to() {
    let submit = |kind, seed, fence, quiet| Action::Submit { kind, seed, fence, quiet };
    // A copy, issued; a fence and a list; a fill, whose seed makes it short; a fenced long copy.
    let actions = [
        submit(Kind::Copy, 4, false, false),
        Action::Issue,
        submit(Kind::Lists, 8, true, true),
        submit(Kind::Fill, 1, false, false),
        submit(Kind::Chain, 3, true, true),
        submit(Kind::Copy, 12, false, false),
        Action::Issue,
        Action::Step(u8::MAX),
        Action::Poll,
        submit(Kind::Lists, 2, false, false),
    ];
    for completions in [Completions::PerOperation, Completions::PerBatch] {
        for descriptor in 0..24 {
            run(actions.to_vec(), vec![(descriptor, Some(ChanErr::WRITE_DATA))], completions);
        }
    }
}
