//! Exclusive ors, P and Q, and their checks: which descriptors they become, and what becomes of checks
//! that find something, in the company of other operations.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use dmaengine::{
    Arena, Completion, DmaBuf, DmaChannel, DmaDevice, Flags, Operation, Status, SubmitError,
};
use ioat_model::{
    Config, Fault, Faults, Stepped, Version,
    registers::{ChanErr, DmaCapability},
};
use ioatdma::{Bar, Behind, IoatDevice, Options};

use crate::{
    machine::{Counted, Host},
    rig::DEADLINE,
    versions,
};

const PAGE: usize = 4096;
/// Sources of pages lie at multiples of this.
const STRIDE: usize = 4 * PAGE;
/// CHAINADDR of channel 0.
const CHAINADDR: u64 = 0x90;

/// Bits of a descriptor's control word.
const COMPL_WRITE: u32 = 1 << 3;
const FENCE: u32 = 1 << 4;
const NULL: u32 = 1 << 5;
const Q_DISABLE: u32 = 1 << 12;
const WRITE_BACK: u32 = 1 << 15;
const XOR: u32 = 0x87 << 24;
const XOR_VAL: u32 = 0x88 << 24;
const PQ: u32 = 0x89 << 24;
const PQ_VAL: u32 = 0x8a << 24;
const PQ_16: u32 = 0xa0 << 24;
/// Of so many sources.
const fn sources(count: u32, least: u32) -> u32 {
    (count - least) << 5
}

/// A channel with a ring of 32 and an XFERCAP of a page, and memory: 16 sources, P and Q.
struct Bench {
    channel: Box<dyn DmaChannel>,
    memory: DmaBuf,
    host: Arc<Host<Stepped>>,
    _device: IoatDevice,
}

const P: usize = 16;
const Q: usize = 17;

impl Bench {
    fn new(config: &Config, behind: Behind) -> Self {
        let host = Host::new(Config { xfercap: 12, ..config.clone() });
        let options = Options { ring_order: 5, behind, ..Options::default() };
        let device = host.probe(options).expect("a good device");
        let arena = Arena::new(19 * STRIDE).expect("memory");
        device.map(&arena).expect("room");
        let channel = device.request_channel(0).expect("free");
        let mut memory = arena.alloc(18 * STRIDE).expect("room");
        crate::rig::Random(1).fill(&mut memory);
        Self { channel, memory, host, _device: device }
    }

    fn at(&mut self, index: usize, offset: usize) -> *mut u8 {
        self.memory.as_mut_ptr().wrapping_add(index * STRIDE + offset)
    }

    fn sources(&mut self, count: usize) -> Vec<*const u8> {
        (0..count).map(|index| self.at(index, 0).cast_const()).collect()
    }

    fn submit(&mut self, operation: &Operation<'_>, flags: Flags) -> Result<(), SubmitError> {
        // SAFETY: all of it lies in the memory, which outlives the channel. It is looked at and
        // changed only while the device, which is moved by the same thread, stands still, and not
        // what an operation in flight writes.
        unsafe { self.channel.submit(operation, flags) }.map(drop)
    }

    fn xor(&mut self, count: usize, offset: usize, len: usize) -> Result<(), SubmitError> {
        let (sources, target) = (self.sources(count), self.at(P, offset));
        self.submit(&Operation::Xor { sources: &sources, target, len }, Flags::empty())
    }

    /// Of sources whose coefficients are 1, so that Q is P.
    fn pq(&mut self, count: usize, len: usize) -> Result<(), SubmitError> {
        let sources = self.sources(count);
        let (p, q) = (NonNull::new(self.at(P, 0)), NonNull::new(self.at(Q, 0)));
        let coefficients = &vec![1; count][..];
        let pq = Operation::Pq { sources: &sources, coefficients, p, q, len };
        self.submit(&pq, Flags::empty())
    }

    fn pq_val(&mut self, count: usize, len: usize, flags: Flags) -> Result<(), SubmitError> {
        let sources = self.sources(count);
        let (p, q) = (NonNull::new(self.at(P, 0)), NonNull::new(self.at(Q, 0)));
        let coefficients = &vec![1; count][..];
        let check = Operation::PqVal { sources: &sources, coefficients, p, q, len };
        self.submit(&check, flags)
    }

    fn xor_val(&mut self, count: usize, len: usize) -> Result<(), SubmitError> {
        let mut sources = self.sources(count);
        sources.push(self.at(P, 0));
        self.submit(&Operation::XorVal { sources: &sources, len }, Flags::empty())
    }

    /// Copies from the first source to behind Q, where nothing else is.
    fn copy(&mut self) -> Result<(), SubmitError> {
        let (source, target) = (self.at(0, 0), self.at(Q, 3 * PAGE));
        self.submit(&Operation::Memcpy { source, target, len: PAGE }, Flags::empty())
    }

    /// P and Q as they should be.
    fn make_parity(&mut self, count: usize) {
        for index in [P, Q] {
            for at in 0..3 * PAGE {
                let byte =
                    (0..count).fold(0, |sum, source| sum ^ self.memory[source * STRIDE + at]);
                self.memory[index * STRIDE + at] = byte;
            }
        }
    }

    fn slot(&self, slot: usize) -> *mut u64 {
        self.host.memory(self.host.read64(CHAINADDR)).wrapping_add(slot * 64).cast()
    }

    fn word(&self, slot: usize, word: usize) -> &AtomicU64 {
        // SAFETY: within the ring of 2^5 slots that CHAINADDR is the first of, in an arena that the
        // host keeps; accessed by atomics only.
        unsafe { AtomicU64::from_ptr(self.slot(slot).wrapping_add(word)) }
    }

    /// The control words of slots; the one at 0 started the chain.
    fn controls<const N: usize>(&self, first: usize) -> [u32; N] {
        let control = |slot| (self.word(slot, 0).load(Ordering::Relaxed) >> 32) as u32;
        std::array::from_fn(|index| control(first + index))
    }

    /// Issues, and waits until `count` operations have ended.
    fn finish(&mut self, count: usize) -> Vec<Status> {
        self.channel.issue_pending();
        let mut statuses = Vec::new();
        let start = Instant::now();
        while statuses.len() < count {
            self.channel.poll(&mut |completion: Completion| statuses.push(completion.status));
            self.host.shell.step();
            assert!(start.elapsed() < DEADLINE, "{statuses:?}");
        }
        statuses
    }
}

fn config(version: Version, capability: DmaCapability) -> Config {
    Config { version, capability: Some(capability), ..Config::default() }
}

#[test]
fn before_3_3_an_empty_descriptor_tells_of_the_end() {
    let config = config(Version::V3_0, DmaCapability::XOR | DmaCapability::PQ);
    let mut bench = Bench::new(&config, Behind::Abort);
    let before = bench.channel.space();
    bench.xor(5, 0, 64).expect("room");
    assert_eq!(bench.channel.space(), before - 2);
    // Two pieces, each with an extension.
    bench.pq(4, 2 * PAGE).expect("room");
    assert_eq!(bench.channel.space(), before - 2 - 5);
    bench.channel.issue_pending();
    let end = NULL | COMPL_WRITE;
    assert_eq!(bench.controls(1), [XOR | sources(5, 2) | FENCE, end]);
    let piece = PQ | sources(4, 2);
    let [first, _, second, _, last] = bench.controls(3);
    assert_eq!([first, second, last], [piece, piece | FENCE, end]);
    assert_eq!(bench.finish(2), [Status::Success; 2]);
    assert_eq!(bench.channel.space(), before);
}

#[test]
fn from_3_3_on_the_last_piece_tells() {
    let all = DmaCapability::all() - DmaCapability::DWBES;
    let mut bench = Bench::new(&config(Version::V3_4, all), Behind::Abort);
    let before = bench.channel.space();
    bench.xor(8, 0, PAGE).expect("room");
    bench.pq(16, 2 * PAGE).expect("room");
    assert_eq!(bench.channel.space(), before - 4);
    bench.channel.issue_pending();
    let [xor, _, first, last] = bench.controls(1);
    assert_eq!(xor, XOR | sources(8, 2) | COMPL_WRITE);
    let piece = PQ_16 | sources(16, 9);
    assert_eq!([first, last], [piece, piece | COMPL_WRITE]);
    assert_eq!(bench.finish(2), [Status::Success; 2]);
}

/// The last that is submitted has an extension; what a batch asks for, and a fence, is in the half
/// that has a control word.
#[test]
fn an_extension_is_left_alone() {
    let all = DmaCapability::all() - DmaCapability::DWBES;
    let mut bench = Bench::new(&config(Version::V3_4, all), Behind::Abort);
    bench.pq_val(8, PAGE, Flags::NO_STATUS).expect("room");
    let extension = bench.word(2, 0).load(Ordering::Relaxed);
    bench.make_parity(8);
    let (sources, target) = (bench.sources(2), bench.at(P, 3 * PAGE));
    let xor = Operation::Xor { sources: &sources, target, len: 64 };
    bench.submit(&xor, Flags::FENCE | Flags::NO_STATUS).expect("room");
    let (sources, target) = (bench.sources(8), bench.at(P, 3 * PAGE + 64));
    let xor = Operation::Xor { sources: &sources, target, len: 64 };
    bench.submit(&xor, Flags::NO_STATUS).expect("room");
    bench.channel.issue_pending();
    let [check, _, second, last, _] = bench.controls(1);
    assert_eq!(check, PQ_VAL | self::sources(8, 2) | FENCE);
    assert_eq!(second, XOR);
    assert_eq!(last, XOR | self::sources(8, 2) | COMPL_WRITE);
    assert_eq!(bench.word(2, 0).load(Ordering::Relaxed), extension);
    assert_eq!(bench.finish(3), [Status::Success; 3]);
}

#[test]
fn an_exclusive_or_that_is_not_aligned_is_p_without_q() {
    let config = config(Version::V3_4, DmaCapability::XOR | DmaCapability::PQ);
    let mut bench = Bench::new(&config, Behind::Abort);
    for (offset, len) in [(0, 64), (32, 64), (0, 63)] {
        bench.xor(2, offset, len).expect("room");
    }
    bench.channel.issue_pending();
    let p_alone = PQ | Q_DISABLE | COMPL_WRITE;
    assert_eq!(bench.controls(1), [XOR | COMPL_WRITE, p_alone, p_alone]);
    assert_eq!(bench.finish(3), [Status::Success; 3]);
}

/// Where a mismatch is masked, only P and Q's check tells of it.
#[test]
fn checks_write_their_results_where_they_can() {
    let all = DmaCapability::XOR | DmaCapability::PQ | DmaCapability::DWBES;
    for (version, expected) in [
        (Version::V3_3, [PQ_VAL | Q_DISABLE | WRITE_BACK, PQ_VAL | WRITE_BACK]),
        (Version::V3_4, [XOR_VAL, PQ_VAL]),
    ] {
        let mut bench = Bench::new(&config(version, all), Behind::Abort);
        bench.make_parity(2);
        bench.xor_val(2, 64).expect("room");
        bench.pq_val(2, 64, Flags::empty()).expect("room");
        bench.channel.issue_pending();
        assert_eq!(bench.controls(1), expected.map(|control| control | COMPL_WRITE));
        assert_eq!(bench.finish(2), [Status::Success; 2]);
    }
}

/// Those whose devices can check: by halts, and by results in descriptors.
fn checking() -> impl Iterator<Item = versions::Case> {
    let pq = |config: &Config| {
        let capability = config.capability.unwrap_or_else(|| config.version.capability());
        capability.contains(DmaCapability::PQ) && config.version != Version::V3_2
    };
    versions::all().into_iter().filter(move |(_, config)| pq(config))
}

/// A mismatch is no failure: what is behind it is done, whatever becomes of what is behind failures.
#[test]
fn a_mismatch_in_any_piece_is_found_and_aborts_nothing() {
    for (name, config) in checking() {
        for (wrong_p, wrong_q) in
            [(None, None), (Some(0), None), (None, Some(1)), (Some(2), Some(0))]
        {
            let mut bench = Bench::new(&config, Behind::Abort);
            bench.make_parity(8);
            for (index, piece) in [(P, wrong_p), (Q, wrong_q)] {
                if let Some(piece) = piece {
                    bench.memory[index * STRIDE + piece * PAGE + 17] ^= 1;
                }
            }
            let expected = match (wrong_p, wrong_q) {
                (None, None) => Status::Success,
                (Some(_), None) => Status::MismatchP,
                (None, Some(_)) => Status::MismatchQ,
                (Some(_), Some(_)) => Status::MismatchPq,
            };
            for (flags, count) in [(Flags::empty(), 1), (Flags::NO_STATUS, 2)] {
                let before = bench.channel.space();
                for _ in 0..count {
                    bench.copy().expect("room");
                    bench.pq_val(8, 3 * PAGE, flags).expect("room");
                }
                bench.copy().expect("room");
                let statuses = bench.finish(2 * count + 1);
                let expected: Vec<_> =
                    [Status::Success, expected].into_iter().cycle().take(2 * count).collect();
                assert_eq!(statuses[..2 * count], expected, "{name}");
                assert_eq!(statuses[2 * count], Status::Success, "{name}");
                assert_eq!(bench.channel.space(), before, "{name}");
            }
        }
    }
}

#[test]
fn an_exclusive_or_that_is_wrong_is_found() {
    for (name, config) in checking() {
        let mut bench = Bench::new(&config, Behind::Abort);
        bench.make_parity(3);
        bench.memory[P * STRIDE + 2 * PAGE] ^= 0x80;
        bench.xor_val(3, 2 * PAGE).expect("room");
        bench.xor_val(3, 3 * PAGE).expect("room");
        bench.xor_val(3, 2 * PAGE).expect("room");
        let expected = [Status::Success, Status::MismatchP, Status::Success];
        assert_eq!(bench.finish(3), expected, "{name}");
    }
}

/// A device may have written a result over the size of a check whose end it did not come to tell.
#[test]
fn a_check_is_tried_again_with_its_own_size() {
    let mut config = Config { version: Version::V3_3, ..Config::default() };
    let fault = Fault::Error(ChanErr::READ_DATA);
    config.faults =
        Faults::none().at(0, Counted::first(&Config { xfercap: 12, ..config.clone() }), fault);
    let mut bench = Bench::new(&config, Behind::Retry);
    bench.make_parity(2);
    bench.copy().expect("room");
    bench.pq_val(2, 2 * PAGE, Flags::empty()).expect("room");
    bench.channel.issue_pending();
    bench.host.shell.step();
    for slot in [2, 3] {
        let head = bench.word(slot, 0);
        // Valid, and P and Q are wrong.
        head.store(head.load(Ordering::Relaxed) & !0xffff_ffff | 0x8600_0000, Ordering::Relaxed);
    }
    assert_eq!(bench.finish(2), [Status::ReadError, Status::Success]);
}

#[test]
fn what_never_fits_is_told_apart_from_what_does_not_fit_now() {
    let config = config(Version::V3_0, DmaCapability::PQ);
    let mut bench = Bench::new(&config, Behind::Abort);
    let max = bench.channel.info().ring_size;
    assert_eq!(max, 29);
    // Fifteen pieces with their extensions, and the end.
    let sources = [bench.at(0, 0).cast_const(); 8];
    let coefficients = [1; 8];
    let (p, q) = (NonNull::new(bench.at(8, 0)), None);
    let pq = |len| Operation::Pq { sources: &sources, coefficients: &coefficients, p, q, len };
    let refused = bench.submit(&pq(15 * PAGE), Flags::empty());
    assert_eq!(refused, Err(SubmitError::TooManyDescriptors { descriptors: 31, max }));
    bench.submit(&pq(14 * PAGE), Flags::empty()).expect("exactly");
    assert_eq!(bench.channel.space(), 0);
    assert_eq!(bench.submit(&pq(1), Flags::empty()), Err(SubmitError::RingFull));
    assert_eq!(bench.finish(1), [Status::Success]);
}
