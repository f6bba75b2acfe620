//! What is refused, and what descriptors an operation becomes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dmaengine::{
    Arena, Argument, Completion, Cookie, DmaBuf, DmaChannel, DmaDevice, Flags, Operation, Segment,
    SegmentMut, Status, SubmitError,
};
use ioat_model::{Config, Fault, Faults, Stepped};
use ioatdma::{Bar, Completions, IoatDevice, Options};

use crate::{machine::Host, rig::FIRST};

const PAGE: usize = 4096;
/// CHAINADDR of channel 0: slot 0, until a reset.
const CHAINADDR: u64 = 0x90;

/// Bits of a descriptor's control word.
const COMPL_WRITE: u32 = 1 << 3;
const FENCE: u32 = 1 << 4;
const NULL: u32 = 1 << 5;
const FILL: u32 = 1 << 24;

/// A channel, and memory that nobody looks at while a test submits.
struct Raw {
    channel: Box<dyn DmaChannel>,
    source: DmaBuf,
    target: DmaBuf,
    host: Arc<Host<Stepped>>,
    device: IoatDevice,
    arena: Arena,
}

impl Raw {
    fn new(config: Config, options: Options) -> Self {
        let host = Host::new(config);
        let device = host.probe(options).expect("a good device");
        let arena = Arena::new(1 << 20).expect("memory");
        device.map(&arena).expect("room");
        let channel = device.request_channel(0).expect("free");
        let [source, target] = [(); 2].map(|()| arena.alloc(16 * PAGE).expect("room"));
        Self { channel, source, target, host, device, arena }
    }

    /// XFERCAP is a page.
    fn small(completions: Completions) -> Self {
        let config = Config { xfercap: 12, ..Config::default() };
        Self::new(config, Options { completions, ring_order: 5, ..Options::default() })
    }

    fn submit(&mut self, operation: &Operation<'_>, flags: Flags) -> Result<Cookie, SubmitError> {
        // SAFETY: tests name memory of the two buffers, which outlive the channel (it is the first
        // field), or memory that the driver must refuse; the references to them are not used while
        // an operation is in flight.
        unsafe { self.channel.submit(operation, flags) }
    }

    fn memcpy(&mut self, from: usize, to: usize, len: usize) -> Operation<'static> {
        let source = self.source.as_ptr().wrapping_add(from);
        Operation::Memcpy { source, target: self.target.as_mut_ptr().wrapping_add(to), len }
    }

    fn copy(&mut self, len: usize, flags: Flags) -> Result<Cookie, SubmitError> {
        let copy = self.memcpy(0, 0, len);
        self.submit(&copy, flags)
    }

    /// The control words of the ring's slots in order of positions; the one at 0 started the chain.
    fn controls<const N: usize>(&self, first: usize) -> [u32; N] {
        std::array::from_fn(|index| (self.word(first + index, 0) >> 32) as u32)
    }

    fn word(&self, slot: usize, word: usize) -> u64 {
        let ring = self.host.memory(self.host.read64(CHAINADDR));
        let word = ring.wrapping_add(slot * 64 + word * 8).cast::<u64>();
        // SAFETY: within the ring of 2^5 slots that CHAINADDR is the first of, in an arena that the
        // host keeps; accessed by atomics only.
        unsafe { AtomicU64::from_ptr(word) }.load(Ordering::Relaxed)
    }

    /// Issues, lets the device do all, and polls.
    fn finish(&mut self) -> Vec<Status> {
        self.channel.issue_pending();
        while self.host.shell.step() {}
        self.poll()
    }

    fn poll(&mut self) -> Vec<Status> {
        let mut statuses = Vec::new();
        self.channel.poll(&mut |completion: Completion| statuses.push(completion.status));
        statuses
    }
}

/// All that is refused on the way of a first copy is refused on the short way of the later ones.
#[test]
fn a_known_region_changes_no_refusal() {
    let mut raw = Raw::new(Config { xfercap: 12, ..Config::default() }, Options::default());
    let other = Arena::new(PAGE).expect("memory");
    for round in 0..3 {
        let base = raw.arena.base();
        let end = base.wrapping_add(raw.arena.len());
        let target = raw.target.as_mut_ptr();
        let copy =
            |source: *const u8, target: *mut u8, len| Operation::Memcpy { source, target, len };
        let overlap =
            SubmitError::Overlap { target: Argument::Target(0), other: Argument::Source(0) };
        let unreachable = |argument, address: *const u8| SubmitError::Unreachable {
            argument,
            address: address.addr(),
        };
        let (first_source, first_target) = (Argument::Source(0), Argument::Target(0));
        for (operation, error) in [
            (copy(base, target, 0), SubmitError::ZeroLength),
            (copy(target, target, 1), overlap),
            (copy(target, target.wrapping_add(99), 100), overlap),
            (copy(target.wrapping_add(99), target, 100), overlap),
            (copy(end.wrapping_sub(1), target, 2), unreachable(first_source, end.wrapping_sub(1))),
            (
                copy(base.wrapping_sub(1), target, 2),
                unreachable(first_source, base.wrapping_sub(1)),
            ),
            (
                copy(base, end.wrapping_sub(1).cast_mut(), 2),
                unreachable(first_target, end.wrapping_sub(1)),
            ),
            (copy(std::ptr::null(), target, 1), unreachable(first_source, std::ptr::null())),
            (copy(other.base(), target, 1), unreachable(first_source, other.base())),
            (
                copy(std::ptr::without_provenance(usize::MAX), target, 2),
                unreachable(first_source, std::ptr::without_provenance(usize::MAX)),
            ),
        ] {
            assert_eq!(raw.submit(&operation, Flags::empty()), Err(error), "round {round}");
            assert_eq!(raw.submit(&operation, Flags::NO_STATUS), Err(error), "round {round}");
        }
        let neighbours = [
            copy(target, target.wrapping_add(100), 100),
            copy(target.wrapping_add(100), target, 100),
            copy(end.wrapping_sub(1), target, 1),
            copy(base, end.wrapping_sub(PAGE).cast_mut(), PAGE),
        ];
        for operation in &neighbours {
            raw.submit(operation, Flags::empty()).expect("not refused");
        }
        assert_eq!(raw.finish(), [Status::Success; 4]);
    }
}

/// The regions of source and target are remembered one by one, and forgotten for others.
#[test]
fn arenas_take_turns() {
    let mut raw = Raw::new(Config::default(), Options::default());
    let arenas = [(); 3].map(|()| Arena::new(PAGE).expect("memory"));
    for arena in &arenas {
        raw.device.map(arena).expect("room");
    }
    let mut buffers = arenas.each_ref().map(|arena| arena.alloc(PAGE).expect("room"));
    for (from, to) in [(0, 1), (1, 2), (2, 1), (0, 2), (0, 2), (1, 0)] {
        buffers[from].fill(from as u8 + 1);
        buffers[to].fill(0);
        let (source, target) = (buffers[from].as_ptr(), buffers[to].as_mut_ptr());
        let copy = Operation::Memcpy { source, target, len: PAGE };
        raw.submit(&copy, Flags::empty()).expect("room");
        assert_eq!(raw.finish(), [Status::Success]);
        assert!(buffers[to].iter().all(|byte| *byte == from as u8 + 1), "{from} to {to}");
    }
}

#[test]
fn a_full_ring_and_a_dead_channel_are_told_apart() {
    let faults = Faults::none().at(0, FIRST, Fault::Dead);
    let mut raw = Raw::new(
        Config { faults, ..Config::default() },
        Options { ring_order: 3, ..Options::default() },
    );
    for _ in 0..5 {
        raw.copy(10, Flags::empty()).expect("room");
    }
    assert_eq!(raw.channel.space(), 0);
    assert_eq!(raw.copy(10, Flags::empty()), Err(SubmitError::RingFull));
    raw.channel.issue_pending();
    raw.host.shell.step();
    raw.channel.terminate_sync(Duration::ZERO).expect_err("dead");
    assert_eq!(raw.copy(10, Flags::empty()), Err(SubmitError::ChannelDown));
    assert_eq!(raw.channel.space(), 0);
    // Dropping it would end the process, as it must: the copies are in flight.
    std::mem::forget(raw);
}

#[test]
fn a_completion_is_written_where_it_is_asked_for_and_at_the_end_of_a_batch() {
    let quiet = Flags::NO_STATUS;
    // The descriptors' control words, and the operations that are reported when each has ended.
    for (completions, words, reports) in [
        (
            Completions::PerOperation,
            [COMPL_WRITE, 0, 0, COMPL_WRITE, 0, COMPL_WRITE],
            [1, 0, 0, 2, 0, 1],
        ),
        (Completions::PerBatch, [0, 0, 0, 0, 0, COMPL_WRITE], [0, 0, 0, 0, 0, 4]),
    ] {
        let mut raw = Raw::small(completions);
        raw.copy(10, Flags::empty()).expect("room");
        raw.copy(10, quiet).expect("room");
        raw.copy(PAGE + 1, Flags::empty()).expect("room");
        raw.copy(PAGE + 1, quiet).expect("room");
        raw.channel.issue_pending();
        assert_eq!(raw.controls(1), words, "{completions:?}");
        for expected in reports {
            assert!(raw.host.shell.step());
            assert_eq!(raw.poll().len(), expected, "{completions:?}");
        }
    }
}

/// The bit of the descriptor before, if the device cannot have looked at that; else an empty
/// descriptor; nothing where there is nothing before.
#[test]
fn a_fence_is_a_bit_or_an_empty_descriptor() {
    let mut raw = Raw::small(Completions::PerOperation);
    let size = raw.channel.info().ring_size;
    raw.copy(10, Flags::FENCE).expect("room");
    raw.copy(10, Flags::empty()).expect("room");
    raw.copy(10, Flags::FENCE).expect("room");
    raw.copy(2 * PAGE, Flags::FENCE | Flags::NO_STATUS).expect("room");
    raw.channel.issue_pending();
    let fenced = COMPL_WRITE | FENCE;
    assert_eq!(raw.controls(1), [COMPL_WRITE, fenced, fenced, 0, COMPL_WRITE]);
    // A refused operation leaves no trace.
    let heap = [1_u8; 8];
    let copy = Operation::Memcpy { source: heap.as_ptr(), target: raw.target.as_mut_ptr(), len: 8 };
    raw.submit(&copy, Flags::FENCE).expect_err("no arena");
    assert_eq!(raw.channel.space(), size - 5);
    raw.copy(10, Flags::FENCE).expect("room");
    assert_eq!(raw.channel.space(), size - 6, "a slot was kept for the fence");
    raw.copy(10, Flags::FENCE).expect("room");
    raw.channel.issue_pending();
    assert_eq!(raw.controls(6), [FENCE | NULL, fenced, COMPL_WRITE]);
    assert_eq!(raw.channel.space(), size - 8, "and another one is");
    assert_eq!(raw.finish(), [Status::Success; 6]);
    assert_eq!(raw.channel.space(), size);
    raw.copy(10, Flags::FENCE).expect("room");
    assert_eq!(raw.controls(9), [COMPL_WRITE]);
    assert_eq!(raw.finish(), [Status::Success]);
}

/// As often as fences can be, and with the slot for an event in use.
#[test]
fn a_ring_full_of_fences_gets_its_capacity_back() {
    let mut raw = Raw::new(Config::default(), Options { ring_order: 3, ..Options::default() });
    for _ in 0..20 {
        let mut submitted = 0;
        while raw.channel.space() > 0 {
            raw.copy(10, Flags::FENCE).expect("there is space");
            raw.channel.issue_pending();
            submitted += 1;
            if submitted == 1 {
                assert!(raw.channel.arm());
            }
        }
        // 8 slots: one is free, one for the event, one kept for a fence; each copy but the first has
        // a fence of its own.
        assert_eq!(submitted, 3);
        assert_eq!(raw.copy(10, Flags::FENCE), Err(SubmitError::RingFull));
        assert!(raw.channel.arm());
        assert_eq!(raw.finish(), vec![Status::Success; submitted]);
        assert_eq!(raw.channel.space(), raw.channel.info().ring_size);
    }
}

#[test]
fn lists_become_a_descriptor_a_piece() {
    let mut raw = Raw::small(Completions::PerOperation);
    raw.source.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
    raw.target.fill(0xee);
    let (from, to) = (raw.source.as_ptr(), raw.target.as_mut_ptr());
    let segment = |offset, len| Segment { address: from.wrapping_add(offset), len };
    let target = |offset, len| SegmentMut { address: to.wrapping_add(offset), len };
    let sources = [segment(0, 10), segment(100, 2 * PAGE), segment(5, 20)];
    let targets = [target(1, PAGE), target(2 * PAGE, PAGE + 30)];
    let copy = Operation::MemcpySg { sources: &sources, targets: &targets };
    let before = raw.channel.space();
    let cookie = raw.submit(&copy, Flags::empty()).expect("room");
    let pieces = [10, PAGE - 10, PAGE, 10, 20];
    assert_eq!(raw.channel.space(), before - pieces.len());
    raw.channel.issue_pending();
    assert_eq!(raw.controls(1), [0, 0, 0, 0, COMPL_WRITE]);
    let lengths = [1, 2, 3, 4, 5].map(|slot| raw.word(slot, 0) as u32 as usize);
    assert_eq!(lengths, pieces);
    let mut ended = Vec::new();
    while raw.host.shell.step() {}
    raw.channel.poll(&mut |completion| ended.push(completion));
    assert_eq!(ended, [Completion::success(cookie, 2 * PAGE + 30)]);
    let gathered: Vec<u8> =
        (0..10).chain(100..100 + 2 * PAGE).chain(5..25).map(|at| at as u8).collect();
    let (first, second) = gathered.split_at(PAGE);
    let mut expected = vec![0xee; raw.target.len()];
    expected[1..1 + PAGE].copy_from_slice(first);
    expected[2 * PAGE..3 * PAGE + 30].copy_from_slice(second);
    assert!(*raw.target == *expected);
}

#[test]
fn a_long_fill_is_split_at_the_pattern() {
    let mut raw = Raw::small(Completions::PerOperation);
    let target = raw.target.as_mut_ptr().wrapping_add(3);
    let fill = Operation::Memset { pattern: 0x0807_0605_0403_0201, target, len: PAGE + 5 };
    raw.target.fill(0);
    raw.submit(&fill, Flags::FENCE).expect("room");
    raw.channel.issue_pending();
    assert_eq!(raw.controls(1), [FILL, FILL | COMPL_WRITE]);
    assert_eq!(raw.finish(), [Status::Success]);
    let bytes = raw.target[3..PAGE + 8].iter().enumerate();
    assert!(bytes.into_iter().all(|(index, byte)| *byte == index as u8 % 8 + 1));
    assert_eq!((raw.target[2], raw.target[PAGE + 8]), (0, 0));
}
