//! All interleavings of the driver and a device, as loom makes them, weak memory included:
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p ioatdma --release --lib model`
//!
//! The driver is the real one, from submission to report; only the words that it shares with the
//! device are loom's. The device is the least that hardware guarantees: what it reads after it has
//! seen DMACOUNT, or a command, is as new as that; what it reads of a descriptor is as new as the
//! address by which it found it; and the completion word comes behind all it wrote.

use std::{
    cell::RefCell,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use dmaengine::{
    Arena, Completion, DmaChannel, DmaDevice, Flags, Kind, MapError, Operation, Status,
};
use loom::{cell::UnsafeCell, sync::atomic::AtomicU16, thread};

use crate::{
    Bar, Completions, Interrupts, IoatDevice, Options, Platform, Resources,
    lines::{AtomicU64, Line, Ordering, SIZE},
    pci,
    registers::{CBVER, CHANCMP, CHANCNT, CHANNEL_BLOCK, DMACOUNT, Layout, XFERCAP},
};

thread_local! {
    /// The lines of this run's driver by bus address. All of loom's threads are in one.
    static LINES: RefCell<Vec<(u64, Arc<[Line]>)>> = const { RefCell::new(Vec::new()) };
}

/// Makes lines that the device can find.
pub(crate) fn words(iova: u64, count: usize) -> Arc<[Line]> {
    let line = || std::array::from_fn(|_| AtomicU64::new(0));
    let words: Arc<[Line]> = (0..count).map(|_| line()).collect();
    LINES.with_borrow_mut(|lines| lines.push((iova, Arc::clone(&words))));
    words
}

/// The line at a bus address: that of the last driver that had one there.
fn line(address: u64) -> (Arc<[Line]>, usize) {
    LINES.with_borrow(|lines| {
        let found = lines.iter().rev().find_map(|(iova, words)| {
            let index = (address.checked_sub(*iova)? / SIZE as u64) as usize;
            (index < words.len()).then(|| (Arc::clone(words), index))
        });
        found.expect("an address that the driver has told")
    })
}

/// A word of a buffer. Loom sees to it that nobody writes it while another accesses it.
struct Word(UnsafeCell<u64>);

// SAFETY: loom checks the accesses; that is the test.
unsafe impl Sync for Word {}
// SAFETY: as above.
unsafe impl Send for Word {}

impl Word {
    fn get(&self) -> u64 {
        // SAFETY: loom checks that nobody writes it meanwhile.
        self.0.with(|word| unsafe { *word })
    }

    fn set(&self, value: u64) {
        // SAFETY: loom checks that nobody accesses it meanwhile.
        self.0.with_mut(|word| unsafe { *word = value });
    }
}

/// The device: one channel.
struct Silicon {
    layout: Layout,
    /// DMACOUNT; in version 1 the number of START and APPEND commands.
    count: AtomicU16,
    /// Registers that are used while only one thread is there.
    registers: Mutex<Registers>,
    /// Buffers of 8 bytes, by bus address: others are ordinary memory.
    buffers: Mutex<Vec<(u64, Arc<Word>)>>,
}

#[derive(Clone, Copy, Default)]
struct Registers {
    next: u64,
    completion: u64,
    status: u64,
    /// Descriptors processed; in version 1 the commands that were followed.
    processed: u16,
    /// Version 1: CHAINADDR.
    chain: u64,
    /// Version 1: the last descriptor, whose end is looked at again.
    last: u64,
    /// Version 1: the command that was START.
    started: u16,
}

const COMPL_WRITE: u64 = 1 << 35;
const NULL: u64 = 1 << 37;
const ACTIVE: u64 = 0;
const HALTED: u64 = 3;
const ARMED: u64 = 4;

impl Silicon {
    fn registers(&self) -> Registers {
        *self.registers.lock().expect("no panic")
    }

    fn update(&self, update: impl FnOnce(&mut Registers)) {
        update(&mut self.registers.lock().expect("no panic"));
    }

    fn chains(&self) -> bool {
        self.layout == Layout::CHAIN
    }

    /// The descriptor whose turn it is, if the doorbell has rung for one.
    fn next(&self) -> Option<u64> {
        let Registers { next, processed, last, started, .. } = self.registers();
        // Acquire: reads that the device makes because of the doorbell come after it.
        let count = self.count.load(Ordering::Acquire);
        if !self.chains() {
            return (count != processed).then_some(next);
        }
        // The registers are not loom's: START is seen when the command is.
        if count < started {
            return None;
        }
        if next != 0 {
            return Some(next);
        }
        if count == processed {
            return None;
        }
        self.update(|registers| registers.processed = count);
        let (lines, index) = line(last);
        // Acquire: what is read there is read after its address.
        let next = lines[index][3].load(Ordering::Acquire);
        (next != 0).then_some(next)
    }

    /// Processes a descriptor, if there is one.
    fn step(&self) -> bool {
        let Some(at) = self.next() else { return false };
        let completion = self.registers().completion;
        let (lines, index) = line(at);
        // Relaxed: a device's reads are no more than that.
        let [head, source, target] =
            [0, 1, 2].map(|word| lines[index][word].load(Ordering::Relaxed));
        // Acquire: as above.
        let next = lines[index][3].load(Ordering::Acquire);
        if head & NULL == 0 {
            self.copy(source, target, head as u32 as usize);
        }
        if head & COMPL_WRITE != 0 {
            let (lines, index) = line(completion);
            // Release: posted writes stay in order.
            lines[index][0].store(at | ACTIVE, Ordering::Release);
        }
        let chains = self.chains();
        self.update(|registers| {
            registers.next = next;
            registers.last = at;
            registers.status = at | ACTIVE;
            if !chains {
                registers.processed = registers.processed.wrapping_add(1);
            }
        });
        true
    }

    fn command(&self, command: u8) {
        match command {
            0x20 => {
                self.update(|registers| *registers = Registers { status: HALTED, ..*registers });
                self.update(|registers| (registers.next, registers.started) = (0, 0));
                self.update(|registers| registers.processed = 0);
                self.count.store(0, Ordering::Relaxed);
            }
            // START and APPEND.
            1 | 2 => {
                // Nobody else writes it.
                let count = self.count.load(Ordering::Relaxed) + 1;
                if command == 1 {
                    self.update(|registers| {
                        (registers.next, registers.started) = (registers.chain, count);
                        registers.status = ACTIVE;
                    });
                }
                // Relaxed: the driver's fence is what orders it.
                self.count.store(count, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn copy(&self, source: u64, target: u64, len: usize) {
        let word = |address: u64| {
            let buffers = self.buffers.lock().expect("no panic");
            buffers.iter().find(|(at, _)| *at == address).map(|(_, word)| Arc::clone(word))
        };
        if let (Some(source), Some(target)) = (word(source), word(target)) {
            assert_eq!(len, 8);
            target.set(source.get());
            return;
        }
        let place = |address: u64| std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
        // SAFETY: the self test's buffers: bus addresses are process addresses here, and the driver
        // waits for the copy in the thread that makes it.
        unsafe { place(source).copy_to(place(target), len) };
    }
}

const CHANNEL: u64 = CHANNEL_BLOCK;

impl Bar for Silicon {
    fn size(&self) -> u64 {
        2 * CHANNEL_BLOCK
    }
    fn read8(&self, offset: u64) -> u8 {
        match offset {
            CHANCNT => 1,
            XFERCAP => 20,
            CBVER if self.chains() => 0x12,
            CBVER => 0x32,
            // CHANCMD: a RESET has ended.
            _ => 0,
        }
    }
    fn read16(&self, _: u64) -> u16 {
        0
    }
    fn read32(&self, offset: u64) -> u32 {
        match offset.wrapping_sub(CHANNEL + Layout::CHAIN.status) {
            0 if self.chains() => self.registers().status as u32,
            4 if self.chains() => (self.registers().status >> 32) as u32,
            _ => 0,
        }
    }
    fn read64(&self, offset: u64) -> u64 {
        assert_eq!(offset, CHANNEL + Layout::RING.status);
        self.registers().status
    }
    fn write8(&self, offset: u64, value: u8) {
        if offset == CHANNEL + self.layout.command {
            self.command(value);
        }
    }
    fn write16(&self, offset: u64, value: u16) {
        if !self.chains() && offset == CHANNEL + DMACOUNT {
            // Relaxed: the driver's fence is what orders it.
            self.count.store(value, Ordering::Relaxed);
        }
    }
    fn write32(&self, offset: u64, value: u32) {
        let low = u64::from(value);
        let high = low << 32;
        let chain_address = self.layout.chain_address;
        let chains = self.chains();
        self.update(|registers| match offset.wrapping_sub(CHANNEL) {
            offset if offset == chain_address => registers.chain = low,
            offset if offset == chain_address + 4 => {
                registers.chain |= high;
                // With its high half it takes effect, or with START.
                if !chains {
                    registers.next = registers.chain;
                    registers.processed = 0;
                    registers.status = ARMED;
                }
            }
            CHANCMP => registers.completion = low,
            offset if offset == CHANCMP + 4 => registers.completion |= high,
            _ => {}
        });
    }
    fn write64(&self, _: u64, _: u64) {}
    fn delay(&self, _: Duration) {
        self.step();
    }
}

struct Identity;

// SAFETY: bus addresses are process addresses, and arenas live as long as the test's run.
unsafe impl Platform for Identity {
    fn map(&self, arena: &Arena) -> Result<u64, MapError> {
        Ok(arena.base().expose_provenance() as u64)
    }
    fn interrupts(&self) -> Interrupts {
        Interrupts::None
    }
    fn vector(&self, _: usize) -> Option<BorrowedFd<'_>> {
        None
    }
    fn config_read32(&self, _: u16) -> u32 {
        0
    }
    fn config_write32(&self, _: u16, _: u32) {}
}

/// What a driver is asked to do, again and again.
#[derive(Clone, Copy)]
struct Work {
    layout: Layout,
    ring_order: u8,
    completions: Completions,
    /// Copies before the device has a thread of its own: so far is the ring used.
    before: u64,
    /// Copies that are submitted before each doorbell. Those of all doorbells are in flight together.
    doorbells: &'static [usize],
    rounds: u64,
}

/// In a ring of 4 slots, of which operations get one at a time.
const ONE_AT_A_TIME: Work = Work {
    layout: Layout::RING,
    ring_order: 2,
    completions: Completions::PerOperation,
    before: 0,
    doorbells: &[1],
    rounds: 5,
};

fn channel(silicon: &Arc<Silicon>, work: &Work) -> (IoatDevice, Box<dyn DmaChannel>) {
    let resources = Resources {
        engine: "loom".into(),
        kind: Kind::Model,
        id: pci::Id::intel(if silicon.chains() { 0x1a38 } else { 0x2f20 }),
        numa_node: None,
        bar: Arc::clone(silicon) as _,
        platform: Arc::new(Identity),
    };
    let Work { ring_order, completions, .. } = *work;
    let options = Options { ring_order, completions, ..Options::default() };
    let device = IoatDevice::probe(resources, options).expect("a good device");
    let channel = device.request_channel(0).expect("free");
    (device, channel)
}

/// Copies through two words until each slot was used twice. The source is written anew right after
/// each report, and the target read.
#[test]
fn model_of_descriptors_and_completion_word() {
    check(ONE_AT_A_TIME);
}

/// Version 1: the device looks at the end of the chain while the driver links more behind it.
#[test]
fn model_of_a_chain_that_grows() {
    check(Work { layout: Layout::CHAIN, ..ONE_AT_A_TIME });
}

/// In a ring of 8 slots, which wraps: the device is at one batch while the driver links the next, and
/// tells of the end of each, not of the copies in it.
#[test]
fn model_of_batches_in_flight() {
    check(Work {
        ring_order: 3,
        completions: Completions::PerBatch,
        before: 4,
        doorbells: &[2, 1],
        rounds: 2,
        ..ONE_AT_A_TIME
    });
}

fn check(work: Work) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 100_000;
    builder.check(move || run(&work));
}

fn run(work: &Work) {
    LINES.with_borrow_mut(Vec::clear);
    let arena = Arena::new(4096).expect("memory");
    let in_flight: usize = work.doorbells.iter().sum();
    let copies = in_flight as u64 * work.rounds;
    // Source and target of each copy in flight.
    let buffers: Vec<_> = (0..in_flight).map(|_| arena.alloc(16).expect("room")).collect();
    let places = buffers.iter().map(|buffer| {
        let from = buffer.as_ptr();
        (from, from.wrapping_add(8).cast_mut())
    });
    let places: Vec<_> = places.collect();
    let words: Vec<_> = (0..2 * in_flight).map(|_| Arc::new(Word(UnsafeCell::new(0)))).collect();
    let addresses = places.iter().flat_map(|(from, to)| [from.addr(), to.addr()]);
    let silicon = Arc::new(Silicon {
        layout: work.layout,
        count: AtomicU16::new(0),
        registers: Mutex::default(),
        buffers: Mutex::new(
            addresses.map(|address| address as u64).zip(words.iter().cloned()).collect(),
        ),
    });
    let (device, mut channel) = channel(&silicon, work);
    device.map(&arena).expect("room");
    let submit = |channel: &mut dyn DmaChannel, place: usize, number: u64| {
        words[2 * place].set(number);
        let (source, target) = places[place];
        let copy = Operation::Memcpy { source, target, len: 8 };
        // SAFETY: the device accesses loom's words in place of the buffers, which outlive the channel;
        // nobody accesses the buffers themselves.
        unsafe { channel.submit(&copy, Flags::empty()) }.expect("room");
    };
    // Reports the next copies as they end: that in the first place has the number after `first`.
    let poll = |channel: &mut dyn DmaChannel, first: u64, ended: &mut u64| {
        channel.poll(&mut |completion: Completion| {
            let target = &words[2 * (*ended - first) as usize + 1];
            *ended += 1;
            assert_eq!((completion.status, target.get()), (Status::Success, *ended));
        });
    };
    for first in 0..work.before {
        submit(&mut *channel, 0, first + 1);
        channel.issue_pending();
        assert!(silicon.step());
        let mut ended = first;
        poll(&mut *channel, first, &mut ended);
        assert_eq!(ended, first + 1);
    }
    let engine = Arc::clone(&silicon);
    let engine = thread::spawn(move || {
        for _ in 0..copies {
            while !engine.step() {
                thread::yield_now();
            }
        }
    });
    let mut number = work.before;
    for _ in 0..work.rounds {
        let first = number;
        for &count in work.doorbells {
            for _ in 0..count {
                number += 1;
                submit(&mut *channel, (number - first) as usize - 1, number);
            }
            channel.issue_pending();
        }
        let mut ended = first;
        while ended < number {
            poll(&mut *channel, first, &mut ended);
            thread::yield_now();
        }
    }
    engine.join().expect("no panic");
    drop(channel);
}
