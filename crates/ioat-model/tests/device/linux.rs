//! What the stock Linux driver does, access by access: at probe, in its self tests, and when a
//! channel has failed. The device must take all of it.

use ioat_model::{
    Config, PAGE, State, Version,
    config_space::{CHANERR_INT, DMAUNCERRSTS},
    descriptor::{Control, OP_PQ_VAL, OP_XOR, OP_XOR_VAL},
    registers::{
        ATTNSTATUS, CBVER, CHANCNT, ChanErr, DMACAPABILITY, DmaCapability, INTRCTRL,
        PREFETCH_LIMIT, Width, XFERCAP, channel::*,
    },
};

use crate::rig::{BASE, COMPLETION, Rig};

const RUN: u16 = 0x1d;
const RESET: u8 = 0x20;
const SUSPEND: u8 = 0x04;
/// Null, interrupt, completion.
const NULL: u32 = 0x29;
const SOURCE: u64 = BASE + 4 * PAGE;
const TARGET: u64 = BASE + 8 * PAGE;

struct Linux {
    rig: Rig,
    version: u8,
    /// Descriptors that were counted, and the ring's next place.
    count: u16,
    head: u64,
}

impl Linux {
    /// `ioat_pci_probe` until the channel is there.
    fn probe(config: Config) -> Self {
        let version = config.version;
        let rig = Rig::new(config);
        let mut read = rig.device.read(CBVER, Width::W8) as u8;
        assert!(read >= 0x30);
        if version == Version::V3_2 {
            read = 0x32;
        }
        assert_ne!(rig.device.read(CHANCNT, Width::W8) & 0x1f, 0);
        assert_ne!(rig.device.read(XFERCAP, Width::W8) & 0x1f, 0);
        let linux = Self { rig, version: read, count: 0, head: 0 };
        linux.reset();
        linux.rig.device.write(INTRCTRL, Width::W8, 0x9);
        linux
    }

    fn capability(&self) -> DmaCapability {
        DmaCapability::from_bits_retain(self.rig.device.read(DMACAPABILITY, Width::W32) as u32)
    }

    fn config(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.rig.device.config_read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn set_config(&self, offset: u64, value: u32) {
        self.rig.device.config_write(offset, &value.to_le_bytes());
    }

    /// `ioat_quiesce`, then `ioat_reset_hw`.
    fn reset(&self) {
        self.quiesce();
        let errors = self.rig.get(CHANERR, Width::W32);
        self.rig.set(CHANERR, Width::W32, errors);
        if self.version < 0x33 {
            let errors = self.config(CHANERR_INT);
            self.set_config(CHANERR_INT, errors);
            if self.config(0) >> 16 == 0x3430 {
                self.set_config(DMAUNCERRSTS, 0x10);
            }
        }
        self.rig.command(RESET);
        assert_eq!(self.rig.get(CHANCMD, Width::W8), 0);
    }

    fn quiesce(&self) {
        if self.rig.state() <= State::Done as u64 {
            self.rig.command(SUSPEND);
        }
        assert!(self.rig.state() > State::Done as u64);
    }

    /// `ioat_alloc_chan_resources`.
    fn allocate(&mut self) {
        self.rig.set16(CHANCTRL, RUN);
        self.rig.set64(CHANCMP, COMPLETION);
        for slot in 0..32 {
            self.rig.store(BASE + slot * 64 + 24, &[BASE + (slot + 1) % 32 * 64]);
        }
        self.head = 0;
        self.start_null();
        assert_eq!(self.rig.run(), 1);
        assert!(self.rig.state() <= State::Done as u64);
        self.interrupt();
    }

    /// `__ioat_start_null_desc`.
    fn start_null(&mut self) {
        self.count = 0;
        let at = self.slot(self.head);
        self.put(Rig::head(0, 1, NULL), &[]);
        self.rig.set64(CHAINADDR, at);
        self.issue();
    }

    const fn slot(&self, index: u64) -> u64 {
        BASE + index % 32 * 64
    }

    /// Writes some words of the next descriptor of the ring; its `next` stays.
    fn put(&mut self, head: u64, words: &[(u64, u64)]) {
        let at = self.slot(self.head);
        self.rig.store(at, &[head]);
        for (word, value) in words {
            self.rig.store(at + word * 8, &[*value]);
        }
        self.head += 1;
        self.count += 1;
    }

    fn issue(&self) {
        self.rig.doorbell(self.count);
    }

    /// The tasklet after an MSI-X interrupt: cleans up, then arms again.
    fn interrupt(&self) {
        assert_eq!(self.rig.interrupts(), 1);
        self.rig.set16(CHANCTRL, RUN);
    }

    /// Exclusive or of six pages or its check: two descriptors, and a null one for the completion.
    fn xor(&mut self, op: u8) -> u64 {
        let first = self.slot(self.head);
        let page = |index: u64| SOURCE + index % 4 * PAGE;
        let words =
            [(1, page(0)), (2, TARGET), (4, page(1)), (5, page(2)), (6, page(3)), (7, page(0))];
        self.put(Rig::head(op, PAGE as u32, 4 << 5), &words);
        self.put(page(1), &[(1, 0), (2, 0)]);
        self.put(Rig::head(0, 1, NULL), &[]);
        self.issue();
        self.rig.run();
        first
    }
}

#[test]
fn probe_self_test_and_release() {
    for version in [Version::V3_0, Version::V3_2, Version::V3_3, Version::V3_4] {
        let mut linux = Linux::probe(Config { version, ..Config::default() });
        linux.allocate();
        let bytes: Vec<u8> = (0..2000).map(|i| i as u8).collect();
        linux.rig.set_bytes(SOURCE, &bytes);
        linux.put(Rig::head(0, 2000, 0x09), &[(1, SOURCE), (2, TARGET)]);
        linux.issue();
        linux.rig.run();
        linux.interrupt();
        assert_eq!(linux.rig.word(COMPLETION), (BASE + 64) | State::Done as u64);
        assert_eq!(linux.rig.bytes(TARGET, 2000), bytes);
        linux.reset();
        linux.rig.set(DCACTRL, Width::W32, 0xffff_ffff);
        if version == Version::V3_4 {
            linux.rig.device.write(PREFETCH_LIMIT, Width::W8, 5);
            assert_eq!(linux.rig.device.read(PREFETCH_LIMIT, Width::W8), 5);
            // Latency tolerance and ring size, where Linux writes them.
            linux.rig.set(0xb6, Width::W16, 0x109);
            linux.rig.set(0xbc, Width::W32, 1);
        }
        linux.allocate();
        assert_eq!(linux.rig.errors(), ChanErr::empty(), "{version}");
    }
}

/// The shared handler of MSI and INTA.
#[test]
fn the_shared_interrupt_handler() {
    let mut linux = Linux::probe(Config::default());
    linux.rig.device.write(INTRCTRL, Width::W8, 0x1);
    linux.allocate();
    for _ in 0..3 {
        let control = linux.rig.device.read(INTRCTRL, Width::W8);
        assert_eq!(control & 0x3, 0x3);
        assert_eq!(linux.rig.device.read(ATTNSTATUS, Width::W32), 1);
        linux.rig.device.write(INTRCTRL, Width::W8, control);
        linux.put(Rig::head(0, 1, NULL), &[]);
        linux.issue();
        linux.rig.run();
        linux.interrupt();
    }
}

/// `ioat_xor_val_self_test` and `ioat_eh`, on a device whose XOR it would use.
#[test]
fn a_failed_check_is_handled_without_a_reset() {
    let mut linux = Linux::probe(Config::default());
    assert!(linux.capability().contains(DmaCapability::XOR));
    linux.allocate();
    for page in 0..4 {
        linux.rig.set_bytes(SOURCE + page * PAGE, &[1 << page; PAGE as usize]);
    }
    let rig_errors = |linux: &Linux| linux.rig.errors();
    linux.xor(OP_XOR);
    linux.interrupt();
    assert_eq!(linux.rig.bytes(TARGET, PAGE as usize), vec![0b1100; PAGE as usize]);
    linux.xor(OP_XOR_VAL);
    linux.interrupt();
    assert_eq!(rig_errors(&linux), ChanErr::empty());

    linux.rig.set_bytes(TARGET, &[0; PAGE as usize]);
    let before = linux.rig.word(COMPLETION) & !0x3f;
    let failing = linux.xor(OP_XOR_VAL);
    linux.interrupt();
    assert_eq!(linux.rig.word(COMPLETION), before | State::Halted as u64);
    assert_eq!(rig_errors(&linux), ChanErr::XOR_P_OR_CRC);
    // `ioat_eh`: clears the errors in both places, and restarts behind the failed descriptor.
    let latched = linux.config(CHANERR_INT);
    linux.rig.set(CHANERR, Width::W32, ChanErr::XOR_P_OR_CRC.bits().into());
    linux.set_config(CHANERR_INT, latched);
    assert_eq!(linux.config(CHANERR_INT), 0);
    linux.rig.set64(CHANCMP, COMPLETION);
    linux.quiesce();
    linux.rig.set64(CHAINADDR, failing + 128);
    linux.rig.doorbell(1);
    assert_eq!(linux.rig.run(), 1);
    linux.interrupt();
    assert_eq!(linux.rig.word(COMPLETION), (failing + 128) | State::Done as u64);
}

/// Version 3.3: the errors of checks are masked once, at probe, and the result is found in the
/// descriptor, whatever resets came between.
#[test]
fn the_error_mask_outlives_the_self_test() {
    let mut linux = Linux::probe(Config { version: Version::V3_3, ..Config::default() });
    let mask = linux.rig.get(CHANERRMASK, Width::W32);
    linux.rig.set(CHANERRMASK, Width::W32, mask | 3 << 16);
    linux.allocate();
    linux.reset();
    linux.allocate();
    linux.rig.set_bytes(SOURCE, &[1; 64]);
    // As `ioat_prep_pqxor_val`: P+Q without Q in place of an exclusive or, which 3.3 lacks.
    let control = Control::WB_EN | Control::Q_DISABLE | Control::INT_EN | Control::COMPL_WRITE;
    let words = [(1, SOURCE), (2, TARGET), (4, TARGET), (5, 0), (6, 0), (7, TARGET)];
    let at = linux.slot(linux.head);
    linux.put(Rig::head(OP_PQ_VAL, 64, control.bits()), &words);
    linux.issue();
    linux.rig.run();
    linux.interrupt();
    assert_eq!(linux.rig.word(COMPLETION), at | State::Done as u64);
    assert_eq!(linux.rig.word(at) as u32, 1 << 31 | 1 << 25, "P is wrong");
}

/// The watchdog: reset, CHANCMP, a null descriptor, and no CHANCTRL, which the tasklet writes after
/// the interrupt.
#[test]
fn the_watchdog_restarts_a_channel() {
    use ioat_model::{Fault, Faults};
    for fault in [Fault::Hang, Fault::Halt, Fault::Error(ChanErr::CHIPSET_UNCORRECTABLE)] {
        let faults = Faults::none().at(0, 1, fault);
        let mut linux = Linux::probe(Config { faults, ..Config::default() });
        linux.allocate();
        linux.put(Rig::head(0, 1, NULL), &[]);
        linux.issue();
        linux.rig.run();
        let _halted = linux.rig.interrupts();
        if fault == Fault::Hang {
            // It does not suspend: `ioat_quiesce` gives up after 100 ms.
            linux.rig.command(SUSPEND);
            assert_eq!(linux.rig.state(), State::Active as u64);
            linux.rig.command(RESET);
            assert_eq!(linux.rig.get(CHANCMD, Width::W8), 0);
        } else {
            linux.reset();
        }
        linux.rig.set64(CHANCMP, COMPLETION);
        linux.quiesce();
        linux.start_null();
        linux.rig.run();
        linux.interrupt();
        assert_eq!(linux.rig.word(COMPLETION) & 7, State::Done as u64);
    }
}
