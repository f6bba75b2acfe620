//! What descriptors do, and which CHANERR bit each wrong one earns.

use ioat_model::{
    Config, Fault, Faults, PAGE, State,
    descriptor::Control,
    registers::{ATTNSTATUS, ChanErr, DmaCapability, Width, channel::*},
};

use crate::rig::{BASE, COMPLETION, END, Rig};

const SOURCE: u64 = BASE + 4 * PAGE;
const TARGET: u64 = BASE + 8 * PAGE;

#[test]
fn copies_exactly_the_bytes_asked_for() {
    let rig = Rig::armed(Config::default());
    let bytes: Vec<u8> = (0..5000).map(|i| (i % 251) as u8 + 1).collect();
    rig.set_bytes(SOURCE + 3, &bytes);
    rig.copy(BASE, SOURCE + 3, TARGET + 5, 5000, Control::COMPL_WRITE);
    rig.doorbell(1);
    assert_eq!(rig.run(), 1);
    assert_eq!(rig.bytes(TARGET + 5, 5000), bytes);
    assert_eq!(rig.bytes(TARGET, 5), [0; 5]);
    assert_eq!(rig.bytes(TARGET + 5005, 5), [0; 5]);
    assert_eq!(rig.word(COMPLETION), BASE | State::Done as u64);
    assert_eq!(rig.status(), BASE | State::Done as u64);
    assert_eq!(rig.get(CDAR, Width::W64), BASE);
}

#[test]
fn fills_with_the_pattern_cut_at_the_end() {
    let rig = Rig::armed(Config::default());
    rig.fill(BASE, 0x0807_0605_0403_0201, TARGET + 1, 19, Control::COMPL_WRITE);
    rig.doorbell(1);
    rig.run();
    let expected: Vec<u8> = (0..19).map(|i| i % 8 + 1).collect();
    assert_eq!(rig.bytes(TARGET + 1, 19), expected);
    assert_eq!(rig.bytes(TARGET + 20, 4), [0; 4]);
}

#[test]
fn the_completion_word_is_written_only_where_asked_for() {
    let rig = Rig::armed(Config::default());
    rig.null(BASE, Control::empty());
    rig.null(BASE + 64, Control::COMPL_WRITE);
    rig.null(BASE + 128, Control::empty());
    rig.doorbell(3);
    rig.device.step();
    assert_eq!(rig.word(COMPLETION), 0);
    assert_eq!(rig.status(), BASE | State::Active as u64);
    rig.device.step();
    assert_eq!(rig.word(COMPLETION), (BASE + 64) | State::Active as u64);
    rig.device.step();
    assert_eq!(rig.word(COMPLETION), BASE + 64, "the third did not ask");
    assert_eq!(rig.status(), (BASE + 128) | State::Done as u64);
}

#[test]
fn one_interrupt_per_rearming() {
    let rig = Rig::armed(Config::default());
    for index in 0..4 {
        rig.null(BASE + 64 * index, Control::INT_EN);
    }
    rig.doorbell(2);
    rig.run();
    assert_eq!(rig.interrupts(), 1, "the second was not armed");
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 1);
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 0, "cleared by reading");
    assert_eq!(rig.get(CHANCTRL, Width::W16) & 1, 1, "spent");
    rig.set16(CHANCTRL, 0x1d);
    rig.doorbell(3);
    rig.run();
    assert_eq!(rig.interrupts(), 1);
    rig.set16(CHANCTRL, 0x1d);
    rig.device.write(ioat_model::registers::INTRCTRL, Width::W8, 0);
    rig.doorbell(4);
    rig.run();
    assert_eq!(rig.interrupts(), 0, "the master enable is off");
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 1);
}

#[test]
fn dmacount_wraps() {
    let rig = Rig::armed(Config::default());
    // One descriptor that is its own successor: DMACOUNT = n repeats it n times (erratum E16).
    rig.descriptor(BASE, 0, 1, Control::COMPL_WRITE, [SOURCE, TARGET, BASE]);
    rig.doorbell(3);
    assert_eq!(rig.run(), 3);
    rig.doorbell(u16::MAX);
    assert_eq!(rig.run(), usize::from(u16::MAX) - 3);
    rig.doorbell(4);
    assert_eq!(rig.run(), 5, "from 65535 over 0 to 4");
    assert_eq!(rig.state(), State::Done as u64);
}

#[test]
fn a_ring_goes_round() {
    let rig = Rig::armed(Config::default());
    let ring = 8_u64;
    for slot in 0..ring {
        let next = BASE + (slot + 1) % ring * 64;
        let addresses = [SOURCE + slot, TARGET + slot, next];
        rig.descriptor(BASE + slot * 64, 0, 1, Control::COMPL_WRITE, addresses);
    }
    rig.set_bytes(SOURCE, &[1, 2, 3, 4, 5, 6, 7, 8]);
    rig.doorbell(13);
    assert_eq!(rig.run(), 13);
    assert_eq!(rig.word(COMPLETION), (BASE + 4 * 64) | State::Done as u64);
    assert_eq!(rig.bytes(TARGET, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// Lays out a good copy and then the descriptor under test, and expects the channel to halt at the
/// second with `expected`.
fn halts_with(config: Config, expected: ChanErr, prepare: impl Fn(&Rig)) {
    let rig = Rig::armed(config);
    rig.copy(BASE, SOURCE, TARGET, 8, Control::COMPL_WRITE);
    rig.null(BASE + 128, Control::COMPL_WRITE);
    prepare(&rig);
    rig.doorbell(3);
    rig.run();
    assert_eq!(rig.errors(), expected);
    assert_eq!(rig.status(), BASE | State::Halted as u64, "the first has ended, no other");
    assert_eq!(rig.word(COMPLETION), BASE | State::Halted as u64, "ERR_COMPLETION_EN");
    assert_eq!(rig.interrupts(), 1, "ERR_INT_EN");
    rig.doorbell(4);
    assert_eq!(rig.run(), 0, "a halted channel ignores doorbells");
    assert!(rig.guards_intact());
}

#[test]
fn each_error_has_its_bit() {
    let second = BASE + 64;
    let none = Control::empty();
    let usual = Config::default;
    halts_with(usual(), ChanErr::SOURCE_ADDRESS, |rig| rig.copy(second, END, TARGET, 8, none));
    halts_with(usual(), ChanErr::SOURCE_ADDRESS, |rig| rig.copy(second, END - 4, TARGET, 8, none));
    halts_with(usual(), ChanErr::DESTINATION_ADDRESS, |rig| {
        rig.copy(second, SOURCE, BASE - 4, 8, none);
    });
    halts_with(usual(), ChanErr::DESTINATION_ADDRESS, |rig| {
        rig.copy(second, SOURCE, u64::MAX, 8, none);
    });
    halts_with(usual(), ChanErr::DESTINATION_ADDRESS, |rig| rig.fill(second, 1, END - 1, 2, none));
    halts_with(usual(), ChanErr::LENGTH, |rig| rig.copy(second, SOURCE, TARGET, 0, none));
    halts_with(usual(), ChanErr::LENGTH, |rig| {
        rig.descriptor(second, 0, 0, Control::NULL, [0, 0, second + 64]);
    });
    let small = Config { xfercap: 12, ..Config::default() };
    halts_with(small, ChanErr::LENGTH, |rig| rig.copy(second, SOURCE, TARGET, 4097, none));
    halts_with(usual(), ChanErr::DESCRIPTOR, |rig| {
        rig.descriptor(second, 0, 8, none, [SOURCE, TARGET, second + 65]);
    });
    halts_with(usual(), ChanErr::NEXT_ADDRESS, |rig| {
        rig.descriptor(BASE, 0, 8, Control::COMPL_WRITE, [SOURCE, TARGET, END]);
    });
    halts_with(usual(), ChanErr::DESCRIPTOR_CONTROL, |rig| {
        rig.descriptor(second, 0x55, 8, none, [SOURCE, TARGET, second + 64]);
    });
    halts_with(usual(), ChanErr::DESCRIPTOR_CONTROL, |rig| {
        let reserved = Control::from_bits_retain(1 << 20);
        rig.descriptor(second, 0, 8, reserved, [SOURCE, TARGET, second + 64]);
    });
    let no_fill = Config { capability: Some(DmaCapability::empty()), ..Config::default() };
    halts_with(no_fill, ChanErr::DESCRIPTOR_CONTROL, |rig| rig.fill(second, 1, TARGET, 8, none));
    let bits = ChanErr::READ_DATA | ChanErr::DMA_UNCORRECTABLE;
    let faulty = Config { faults: Faults::none().at(0, 1, Fault::Error(bits)), ..usual() };
    halts_with(faulty, bits, |rig| rig.copy(second, SOURCE, TARGET, 8, none));
    let halting = Config { faults: Faults::none().at(0, 1, Fault::Halt), ..usual() };
    halts_with(halting, ChanErr::empty(), |rig| rig.copy(second, SOURCE, TARGET, 8, none));
}

#[test]
fn a_bad_chain_address_is_told_from_a_bad_next_address() {
    for address in [END, BASE + 8, !63] {
        let rig = Rig::new(Config::default());
        rig.enable();
        rig.set64(CHAINADDR, address);
        rig.doorbell(1);
        rig.run();
        assert_eq!(rig.errors(), ChanErr::CHAIN_ADDRESS);
        assert_eq!(rig.word(COMPLETION), State::Halted as u64);
    }
}

#[test]
fn a_completion_word_that_cannot_be_written_halts() {
    for address in [END, COMPLETION + 4] {
        let rig = Rig::armed(Config::default());
        rig.set64(CHANCMP, address);
        rig.null(BASE, Control::COMPL_WRITE);
        rig.doorbell(1);
        rig.run();
        assert_eq!(rig.errors(), ChanErr::COMPLETION_ADDRESS);
        assert_eq!(rig.state(), State::Halted as u64);
        assert_eq!(rig.interrupts(), 1);
    }
}

#[test]
fn a_masked_error_is_noted_and_passed_over() {
    let rig = Rig::armed(Config::default());
    rig.set(CHANERRMASK, Width::W32, ChanErr::SOURCE_ADDRESS.bits().into());
    rig.copy(BASE, END, TARGET, 8, Control::COMPL_WRITE);
    rig.doorbell(1);
    rig.run();
    assert_eq!(rig.errors(), ChanErr::SOURCE_ADDRESS);
    assert_eq!(rig.word(COMPLETION), BASE | State::Done as u64);
}

#[test]
fn without_the_enables_a_halt_is_silent() {
    let rig = Rig::armed(Config::default());
    rig.set16(CHANCTRL, 1);
    rig.copy(BASE, END, TARGET, 8, Control::empty());
    rig.doorbell(1);
    rig.run();
    assert_eq!(rig.state(), State::Halted as u64);
    assert_eq!(rig.word(COMPLETION), 0);
    assert_eq!(rig.interrupts(), 0);
}

#[test]
fn a_lost_completion_shows_in_chansts_only() {
    let faults = Faults::none().at(0, 0, Fault::LostCompletion);
    let rig = Rig::armed(Config { faults, ..Config::default() });
    rig.null(BASE, Control::COMPL_WRITE);
    rig.doorbell(1);
    rig.run();
    assert_eq!(rig.word(COMPLETION), 0);
    assert_eq!(rig.status(), BASE | State::Done as u64);
}
