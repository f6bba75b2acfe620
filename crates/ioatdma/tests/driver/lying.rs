//! A device that lies: in its completion word and in its registers. Whatever it says, the driver stays
//! in its ring, reports each operation once at most, and comes back from each call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dmaengine::{
    Arena, Completion, Cookie, DmaBuf, DmaChannel, DmaDevice, Flags, Operation, Status,
};
use ioat_model::{Config, Stepped};
use ioatdma::{Bar, Behind, IoatDevice, Options};

use crate::{
    machine::Host,
    rig::{Random, Rig, check},
    versions,
};

/// CHAINADDR and CHANCMP of channel 0.
const CHAINADDR: u64 = 0x90;
const CHANCMP: u64 = 0x98;

fn completion_word(host: &Host<Stepped>) -> &AtomicU64 {
    let half = |offset| u64::from(host.read32(CHANCMP + offset));
    let word = host.memory(half(4) << 32 | half(0));
    // SAFETY: CHANCMP is the address of a word of the driver's, in an arena that the host keeps;
    // accessed by atomics only.
    unsafe { AtomicU64::from_ptr(word.cast()) }
}

/// Words that name no descriptor in flight: nothing ends by them.
#[test]
fn a_word_that_names_nothing_in_flight_ends_nothing() {
    let options = Options { ring_order: 4, ..Options::default() };
    let mut rig = Rig::<Stepped>::new(Config::default(), options);
    for number in 0..3 {
        rig.submit(number, 10);
    }
    rig.queue.issue_pending();
    rig.submit(3, 10);
    let ring = rig.host.read64(CHAINADDR);
    let words = [
        // Outside the ring, on both sides, and nowhere at all.
        ring - 64,
        ring + 16 * 64,
        0,
        u64::MAX - 63,
        u64::MAX,
        // The start, which has been reported; not issued; never used.
        ring,
        ring + 4 * 64,
        ring + 9 * 64,
        // Not aligned: bits 5:3 are no part of an address, so that this is the start again.
        ring + 0x38,
        // States that are none, and a halt of which CHANSTS knows nothing.
        ring | 5,
        ring | 7,
        ring | 3,
        (ring + 4 * 64) | 3,
    ];
    for _ in 0..3 {
        for word in words {
            completion_word(&rig.host).store(word, Ordering::Release);
            assert_eq!(rig.queue.poll(|_| ()), 0, "{word:#x}");
        }
    }
    while rig.host.shell.step() {}
    rig.queue.issue_pending();
    rig.wait_for(4).iter().for_each(|done| check(done, Status::Success));
}

/// It never stands still, and never says anything: that is no progress.
#[test]
fn a_word_that_changes_all_the_time_does_not_keep_the_watchdog_away() {
    let options = Options { watchdog: Duration::from_millis(5), ..Options::default() };
    let faults = ioat_model::Faults::none().at(0, crate::rig::FIRST, ioat_model::Fault::Hang);
    let mut rig = Rig::<Stepped>::new(Config { faults, ..Config::default() }, options);
    rig.submit(0, 10);
    rig.queue.issue_pending();
    let mut ended = Vec::new();
    let start = rig.host.now();
    let mut random = Random(1);
    while ended.is_empty() {
        completion_word(&rig.host).store(random.next() << 6, Ordering::Release);
        rig.queue.poll(|done| ended.push(done));
        rig.host.delay(Duration::from_micros(1));
        assert!(rig.host.now() - start < Duration::from_secs(1));
    }
    check(&ended[0], Status::TimedOut);
}

/// The model, but reads of its registers may give anything.
struct Liar {
    host: Arc<Host<Stepped>>,
    lies: AtomicBool,
    random: AtomicU64,
    /// Accesses since the last call of the driver's began.
    accesses: AtomicU64,
}

impl Liar {
    /// A number that looks random, and is the same in every run.
    fn random(&self) -> u64 {
        Random(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)).next()
    }

    /// What a read gives in place of the truth: a lie, in one of three cases, which is likely to make
    /// sense.
    fn tell(&self, truth: u64) -> u64 {
        let accesses = self.accesses.fetch_add(1, Ordering::Relaxed);
        assert!(accesses < 100_000, "the driver goes round in circles");
        if !self.lies.load(Ordering::Relaxed) {
            return truth;
        }
        let random = self.random();
        match random % 12 {
            0 => truth ^ (1 << ((random >> 8) % 8)),
            // Another descriptor, or none.
            1 => truth.wrapping_add(64 * ((random >> 8) % 64)).wrapping_sub(64 * 32),
            2 => random,
            3 => (random >> 8) % 8,
            4 if random >> 8 & 0x3f == 0 => u64::MAX,
            _ => truth,
        }
    }
}

impl Bar for Liar {
    fn size(&self) -> u64 {
        self.host.size()
    }
    fn read8(&self, offset: u64) -> u8 {
        self.tell(self.host.read8(offset).into()) as u8
    }
    fn read16(&self, offset: u64) -> u16 {
        self.tell(self.host.read16(offset).into()) as u16
    }
    fn read32(&self, offset: u64) -> u32 {
        self.tell(self.host.read32(offset).into()) as u32
    }
    fn read64(&self, offset: u64) -> u64 {
        self.tell(self.host.read64(offset))
    }
    fn write8(&self, offset: u64, value: u8) {
        self.host.write8(offset, value);
    }
    fn write16(&self, offset: u64, value: u16) {
        self.host.write16(offset, value);
    }
    fn write32(&self, offset: u64, value: u32) {
        self.host.write32(offset, value);
    }
    fn write64(&self, offset: u64, value: u64) {
        self.host.write64(offset, value);
    }
    fn delay(&self, duration: Duration) {
        self.host.delay(duration);
    }
    fn now(&self) -> Duration {
        self.host.now()
    }
}

const LEN: usize = 100;
const SLOTS: usize = 64;

struct Bench {
    // First, so that it is dropped first.
    channel: Box<dyn DmaChannel>,
    memory: DmaBuf,
    next: Cookie,
    /// The cookies that were not reported.
    in_flight: Vec<Cookie>,
}

impl Bench {
    fn submit(&mut self, slot: usize) {
        let source = self.memory.as_ptr();
        let target = self.memory.as_mut_ptr().wrapping_add((slot + 1) * LEN);
        let copy = Operation::Memcpy { source, target, len: LEN };
        // SAFETY: parts of the memory, which outlives the channel and is not looked at while it
        // lives. That copies to one place may be in flight at once is of no matter: the bytes are
        // the same.
        if let Ok(cookie) = unsafe { self.channel.submit(&copy, Flags::empty()) } {
            assert_eq!(cookie, self.next, "cookies are consecutive");
            self.in_flight.push(cookie);
            self.next = cookie.next();
        }
    }

    fn poll(&mut self) {
        let Self { channel, in_flight, .. } = self;
        channel.poll(&mut |completion: Completion| {
            let at = in_flight.iter().position(|cookie| *cookie == completion.cookie);
            assert_eq!(at, Some(0), "in order, and once: {completion:?}");
            in_flight.remove(0);
        });
    }
}

/// All that a client can do, on a device that lies at random about all that can be read.
#[test]
fn whatever_the_device_says_each_operation_ends_once_at_most() {
    for (number, (name, config)) in versions::all().into_iter().enumerate() {
        for behind in [Behind::Abort, Behind::Retry] {
            println!("{name}, {behind:?}");
            lie(&config, behind, number as u64);
        }
    }
}

fn lie(config: &Config, behind: Behind, seed: u64) {
    let host = Host::<Stepped>::new(config.clone());
    let liar = Arc::new(Liar {
        host: Arc::clone(&host),
        lies: AtomicBool::new(false),
        random: AtomicU64::new(seed),
        accesses: AtomicU64::new(0),
    });
    let mut resources = host.resources();
    resources.bar = Arc::clone(&liar) as _;
    let watchdog = Duration::from_millis(1);
    let options = Options { ring_order: 5, behind, watchdog, ..Options::default() };
    let device = IoatDevice::probe(resources, options).expect("it is honest so far");
    let arena = Arena::new((SLOTS + 1) * LEN).expect("memory");
    device.map(&arena).expect("room");
    let mut random = Random(seed);
    for _ in 0..100 {
        liar.accesses.store(0, Ordering::Relaxed);
        let Ok(channel) = device.request_channel(0) else { break };
        let memory = arena.alloc((SLOTS + 1) * LEN).expect("room");
        let mut bench = Bench { channel, memory, next: Cookie::FIRST, in_flight: vec![] };
        liar.lies.store(true, Ordering::Relaxed);
        for _ in 0..400 {
            liar.accesses.store(0, Ordering::Relaxed);
            match random.below(12) {
                0..4 => bench.submit(random.below(SLOTS)),
                4 | 5 => bench.channel.issue_pending(),
                6 => {
                    host.shell.step();
                }
                7 => {
                    let word = completion_word(&host);
                    word.store(liar.tell(word.load(Ordering::Relaxed)), Ordering::Release);
                }
                8 => {
                    bench.channel.arm();
                }
                9 if random.below(20) == 0 => {
                    let _ = bench.channel.terminate_sync(Duration::from_millis(1));
                }
                9 => host.delay(Duration::from_micros(300)),
                _ => bench.poll(),
            }
        }
        // A channel that cannot be proven idle would end the process, as it must.
        liar.lies.store(false, Ordering::Relaxed);
        liar.accesses.store(0, Ordering::Relaxed);
        let _ = bench.channel.terminate_sync(Duration::from_secs(1));
        bench.poll();
    }
}
