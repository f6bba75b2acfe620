//! Devices that say that all went well where it did not: the self test finds out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use dmaengine::{Capabilities, DmaDevice, OperationKind, Status};
use ioat_model::{Config, Stepped};
use ioatdma::{Bar, IoatDevice, Options, ProbeError};

use crate::{machine::Host, versions};

/// CDAR and CHANERRMASK of channel 0.
const CDAR: u64 = 0xa0;
const CHANERRMASK: u64 = 0xac;
/// [`CHANERRMASK`]: the results of checks.
const RESULTS: u32 = 0x3_0000;

/// Operation codes, bits 31:24 of a descriptor's control word, and a bit of it.
const COPY: u32 = 0;
const CHECKS: [u32; 3] = [0x88, 0x8a, 0xa1];
const NULL: u32 = 1 << 5;
/// The first word of a check that has found something.
const RESULT_VALID: u64 = 1 << 31;
/// Words of a descriptor that say where it writes: target or P, and Q.
const P: usize = 2;
const Q: usize = 7;

/// What does not go well.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// A byte that the operation with this number has written changes afterwards.
    Byte { operation: u64, word: usize, at: usize },
    /// From the check with this number on, none finds anything.
    Blind { check: u64 },
}

/// The model, which does harm in the time that passes.
struct Harmful {
    host: Arc<Host<Stepped>>,
    harm: Harm,
    /// Operations that have written something.
    operations: AtomicU64,
    /// Checks.
    checks: AtomicU64,
    done: AtomicBool,
}

impl Harmful {
    /// Before a descriptor is looked at.
    fn before(&self) {
        if let Harm::Blind { check } = self.harm
            && self.checks.load(Ordering::Relaxed) >= check
        {
            self.host.write32(CHANERRMASK, RESULTS);
        }
    }

    /// After a descriptor.
    fn after(&self) {
        let half = |offset| u64::from(self.host.read32(CDAR + offset));
        let descriptor = half(4) << 32 | half(0);
        let word = |index: usize| {
            let place = self.host.memory(descriptor + 8 * index as u64);
            // SAFETY: a word of a descriptor of the driver's, in an arena that the host keeps; accessed
            // by atomics only.
            unsafe { AtomicU64::from_ptr(place.cast()) }
        };
        let control = (word(0).load(Ordering::Relaxed) >> 32) as u32;
        let code = control >> 24;
        // With sources to count, the bit is part of their number.
        if code == COPY && control & NULL != 0 {
            return;
        }
        if CHECKS.contains(&code) {
            let number = self.checks.fetch_add(1, Ordering::Relaxed);
            if let Harm::Blind { check } = self.harm
                && number >= check
            {
                word(0).fetch_and(!RESULT_VALID, Ordering::Relaxed);
                self.done.store(true, Ordering::Relaxed);
            }
            return;
        }
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        if let Harm::Byte { operation, word: index, at } = self.harm
            && number == operation
        {
            let target = word(index).load(Ordering::Relaxed);
            let place = self.host.memory(target + at as u64);
            // SAFETY: a byte of the target, in an arena that the host keeps. The driver looks at it when
            // the operation has been reported, and this is the same thread.
            unsafe { AtomicU8::from_ptr(place) }.fetch_xor(0x10, Ordering::Relaxed);
            self.done.store(true, Ordering::Relaxed);
        }
    }
}

impl Bar for Harmful {
    fn size(&self) -> u64 {
        self.host.size()
    }
    fn read8(&self, offset: u64) -> u8 {
        self.host.read8(offset)
    }
    fn read16(&self, offset: u64) -> u16 {
        self.host.read16(offset)
    }
    fn read32(&self, offset: u64) -> u32 {
        self.host.read32(offset)
    }
    fn read64(&self, offset: u64) -> u64 {
        self.host.read64(offset)
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
        self.before();
        while self.host.shell.step() {
            self.after();
            self.before();
        }
        self.host.shell.pass(duration);
    }
    fn now(&self) -> Duration {
        self.host.now()
    }
}

/// Probes a device with `harm`; also whether there was an occasion for it.
fn probe(config: &Config, harm: Harm) -> (Result<IoatDevice, ProbeError>, bool) {
    let host = Host::<Stepped>::new(config.clone());
    let mut resources = host.resources();
    let (operations, checks) = (AtomicU64::new(0), AtomicU64::new(0));
    let bar = Arc::new(Harmful { host, harm, operations, checks, done: AtomicBool::new(false) });
    resources.bar = Arc::clone(&bar) as _;
    let result = IoatDevice::probe(resources, Options::default());
    (result, bar.done.load(Ordering::Relaxed))
}

/// Whether a device can make exclusive ors, and P and Q; and of how many sources the latter.
fn can(config: &Config) -> (bool, bool, usize) {
    let device = Host::<Stepped>::new(config.clone()).probe(Options::default()).expect("good");
    let info = &device.channels()[0];
    let has = |capability| info.capabilities.contains(capability);
    (has(Capabilities::XOR), has(Capabilities::PQ), info.max_pq)
}

#[test]
fn a_byte_that_is_wrong_is_found_in_every_target() {
    for (name, config) in versions::all() {
        let (xor, pq, max_pq) = can(&config);
        let mut operations = vec![(OperationKind::Memcpy, 2000, &[P][..])];
        if xor {
            operations.push((OperationKind::Xor, 4096, &[P]));
        }
        if pq {
            operations.push((OperationKind::Pq, 4096, &[P, Q]));
            operations.push((OperationKind::Pq, 6 * 4096 / max_pq, &[P, Q]));
        }
        for (operation, (kind, len, words)) in operations.iter().enumerate() {
            for (word, at) in
                words.iter().flat_map(|word| [0, 1, len / 2, len - 1].map(|at| (*word, at)))
            {
                let harm = Harm::Byte { operation: operation as u64, word, at };
                let (result, done) = probe(&config, harm);
                assert!(done, "{name}: {harm:?}");
                let Err(ProbeError::SelfTestData { operation, offset }) = result else {
                    panic!("{name}, {harm:?}: {result:?}");
                };
                assert_eq!((operation, offset), (*kind, at), "{name}: {harm:?}");
            }
        }
        let harm = Harm::Byte { operation: operations.len() as u64, word: P, at: 0 };
        let (result, done) = probe(&config, harm);
        assert!(result.is_ok() && !done, "{name}: these are all, {result:?}");
    }
}

#[test]
fn a_check_that_finds_nothing_is_found() {
    for (name, config) in versions::all() {
        let (xor, pq, _) = can(&config);
        let mut checks = Vec::new();
        if xor {
            checks.push((OperationKind::XorVal, Status::MismatchP));
        }
        if pq {
            checks.extend([(OperationKind::PqVal, Status::MismatchQ); 2]);
        }
        for (index, (kind, status)) in checks.iter().enumerate() {
            // Each comes twice, and is to find something the second time.
            for check in [2 * index, 2 * index + 1] {
                let (result, done) = probe(&config, Harm::Blind { check: check as u64 });
                assert!(done, "{name}: {check}");
                let Err(ProbeError::SelfTestStatus { operation, status: found, expected }) = result
                else {
                    panic!("{name}, {check}: {result:?}");
                };
                let is = (operation, found, expected);
                assert_eq!(is, (*kind, Status::Success, *status), "{name}: {check}");
            }
        }
        let (result, done) = probe(&config, Harm::Blind { check: 2 * checks.len() as u64 });
        assert!(result.is_ok() && !done, "{name}: these are all, {result:?}");
    }
}
