//! Version 1.2: chains that end with a next address of 0 and grow with APPEND; its register layout.

use ioat_model::{
    Config, Fault, Faults, PAGE, State, Version,
    descriptor::Control,
    registers::{CHANNEL_BLOCK, ChanErr, DMACAPABILITY, Width, channel, channel_v1::*},
};

use crate::rig::{BASE, COMPLETION, END, Rig};

const START: u8 = 0x01;
const APPEND: u8 = 0x02;
const SUSPEND: u8 = 0x04;
const ABORT: u8 = 0x08;
const RESUME: u8 = 0x10;
const RESET: u8 = 0x20;

fn config() -> Config {
    Config { version: Version::V1_2, ..Config::default() }
}

struct Chain(Rig);

impl Chain {
    /// As Linux sets a channel of that version up: CHANCTRL, CHANCMP, and CHAINADDR in halves.
    fn new(config: Config) -> Self {
        let rig = Rig::new(config);
        rig.enable();
        let chain = Self(rig);
        chain.address(BASE);
        chain
    }

    fn address(&self, address: u64) {
        self.0.chain(address);
    }

    fn command(&self, command: u8) {
        self.0.command(command);
    }

    fn status(&self) -> u64 {
        self.0.status()
    }

    /// A null descriptor in a slot, the chain's end.
    fn last(&self, slot: u64) {
        let control = Control::NULL | Control::COMPL_WRITE;
        self.0.descriptor(BASE + slot * 64, 0, 1, control, [0, 0, 0]);
    }

    /// Links a slot's descriptor to the next slot's.
    fn link(&self, slot: u64) {
        self.0.store(BASE + slot * 64 + 24, &[BASE + (slot + 1) * 64]);
    }
}

#[test]
fn start_runs_to_the_end_and_append_goes_on() {
    let chain = Chain::new(config());
    for slot in 0..5 {
        chain.last(slot);
    }
    chain.link(0);
    assert_eq!(chain.status(), State::Halted as u64, "CHAINADDR alone does nothing");
    chain.command(START);
    assert_eq!(chain.status(), State::Active as u64);
    assert_eq!(chain.0.run(), 2);
    assert_eq!(chain.status(), (BASE + 64) | State::Done as u64);
    assert_eq!(chain.0.word(COMPLETION), (BASE + 64) | State::Done as u64);
    chain.link(1);
    chain.link(2);
    assert_eq!(chain.0.run(), 0, "nobody has said so");
    chain.command(APPEND);
    assert_eq!(chain.0.run(), 2);
    assert_eq!(chain.status(), (BASE + 3 * 64) | State::Done as u64);
    chain.command(APPEND);
    assert_eq!(chain.0.run(), 0, "nothing was appended");
    assert_eq!(chain.status(), (BASE + 3 * 64) | State::Done as u64);
    chain.link(3);
    chain.command(APPEND);
    assert_eq!(chain.0.run(), 1);
}

/// The driver links and appends while the last descriptor, already read, is being worked on.
#[test]
fn an_append_in_flight_is_not_lost() {
    use ioat_model::{Memory, MemoryError, Mismatch, Model, MoveError, registers::CHANNEL_BLOCK};

    /// Two null descriptors at 64 and 128; the first's `next` changes.
    struct Two(u64);

    impl Memory for Two {
        fn read(&mut self, address: u64, words: &mut [u64]) -> Result<(), MemoryError> {
            let next = if address < 128 { self.0 } else { 0 };
            let descriptor = [1 | u64::from(Control::NULL.bits()) << 32, 0, 0, next, 0, 0, 0, 0];
            let from = (address % 64 / 8) as usize;
            words.copy_from_slice(&descriptor[from..from + words.len()]);
            Ok(())
        }

        fn write(&mut self, _: u64, _: u64) -> Result<(), MemoryError> {
            Err(MemoryError::Address)
        }

        fn read_bytes(&mut self, _: u64, _: &mut [u8]) -> Result<(), MemoryError> {
            Err(MemoryError::Address)
        }

        fn write_bytes(&mut self, _: u64, _: &[u8]) -> Result<(), MemoryError> {
            Err(MemoryError::Address)
        }

        fn copy(&mut self, _: u64, _: u64, _: u32) -> Result<(), MoveError> {
            Err(MoveError::Source(MemoryError::Address))
        }

        fn fill(&mut self, _: u64, _: u64, _: u32) -> Result<(), MemoryError> {
            Err(MemoryError::Address)
        }
    }

    let mut model = Model::new(config());
    model.enable();
    let mut memory = Two(0);
    model.mmio_write(CHANNEL_BLOCK + CHAINADDR, Width::W32, 64);
    model.mmio_write(CHANNEL_BLOCK + CHANCMD, Width::W8, START.into());
    assert!(model.fetch(&mut memory).is_some());
    memory.0 = 128;
    model.mmio_write(CHANNEL_BLOCK + CHANCMD, Width::W8, APPEND.into());
    model.retire(0, Ok(Mismatch::empty()), &mut memory);
    assert!(model.fetch(&mut memory).is_some(), "the second");
    model.retire(0, Ok(Mismatch::empty()), &mut memory);
    assert!(model.fetch(&mut memory).is_none());
    let status = model.mmio_read(CHANNEL_BLOCK + CHANSTS, Width::W64);
    assert_eq!(status, 128 | State::Done as u64);
}

#[test]
fn suspend_resume_abort_and_reset() {
    let chain = Chain::new(config());
    for slot in 0..4 {
        chain.last(slot);
        if slot < 3 {
            chain.link(slot);
        }
    }
    chain.command(START);
    chain.command(SUSPEND);
    assert_eq!(chain.status(), State::Suspended as u64);
    chain.command(RESUME);
    assert_eq!(chain.status(), State::Active as u64, "before its first descriptor");
    chain.0.device.step();
    chain.command(SUSPEND);
    assert_eq!(chain.0.run(), 0);
    chain.command(RESUME);
    assert_eq!(chain.0.run(), 3);
    chain.last(4);
    chain.link(3);
    chain.command(SUSPEND);
    chain.command(APPEND);
    assert_eq!(chain.0.run(), 0);
    chain.command(RESUME);
    assert_eq!(chain.0.run(), 1, "what was appended meanwhile");
    chain.command(ABORT);
    assert_eq!(chain.status() & 7, State::Halted as u64);
    chain.command(START);
    assert_eq!(chain.status() & 7, State::Halted as u64, "not without a reset");
    chain.command(RESET);
    chain.0.enable();
    chain.address(BASE);
    chain.command(START);
    assert_eq!(chain.0.run(), 5);
}

#[test]
fn errors_of_a_chain() {
    let second = BASE + 64;
    let halts = |prepare: &dyn Fn(&Chain), expected| {
        let chain = Chain::new(config());
        chain.last(0);
        chain.last(1);
        prepare(&chain);
        chain.command(START);
        chain.0.run();
        chain.command(APPEND);
        chain.0.run();
        assert_eq!(chain.0.errors(), expected);
        assert_eq!(chain.status() & 7, State::Halted as u64);
    };
    halts(&|chain| chain.0.store(BASE + 24, &[END]), ChanErr::NEXT_ADDRESS);
    halts(&|chain| chain.0.store(BASE + 24, &[second + 8]), ChanErr::DESCRIPTOR);
    halts(&|chain| chain.address(0), ChanErr::CHAIN_ADDRESS);
    halts(&|chain| chain.address(END), ChanErr::CHAIN_ADDRESS);
    // What is appended is looked at as what is linked at once.
    let chain = Chain::new(config());
    chain.last(0);
    chain.command(START);
    chain.0.run();
    chain.0.store(BASE + 24, &[second + 8]);
    chain.command(APPEND);
    chain.0.run();
    assert_eq!(chain.0.errors(), ChanErr::DESCRIPTOR);
    // A fill needs a capability that the version does not have.
    let chain = Chain::new(config());
    chain.0.fill(BASE, 1, BASE + PAGE, 8, Control::empty());
    chain.command(START);
    chain.0.run();
    assert_eq!(chain.0.errors(), ChanErr::DESCRIPTOR_CONTROL);
}

#[test]
fn doorbells_are_appends() {
    let faults = Faults::none().at(0, 0, Fault::LostDoorbell);
    let chain = Chain::new(Config { faults, ..config() });
    chain.last(0);
    chain.last(1);
    chain.command(START);
    chain.0.run();
    chain.link(0);
    chain.command(APPEND);
    assert_eq!(chain.0.run(), 0, "lost");
    chain.command(APPEND);
    assert_eq!(chain.0.run(), 1);
}

#[test]
fn registers_are_where_that_version_has_them() {
    let chain = Chain::new(config());
    let rig = &chain.0;
    assert_eq!(rig.get(channel::DMA_COMP, Width::W16), 1);
    assert_eq!(rig.get(CHAINADDR, Width::W64), BASE);
    assert_eq!(rig.device.read(DMACAPABILITY, Width::W32), 0);
    chain.command(0x80);
    assert_eq!(rig.errors(), ChanErr::CHANCMD);
    rig.set(channel::CHANERR, Width::W32, 0xffff_ffff);
    // Where later versions have CHANCMD and DMACOUNT, there is CHANSTS.
    rig.set(channel::CHANCMD, Width::W8, 0x80);
    rig.set(channel::DMACOUNT, Width::W16, 1);
    assert_eq!(rig.errors(), ChanErr::empty());
    assert_eq!(rig.get(channel::DMACOUNT, Width::W16), 0);
}

/// Linux: "doing 2 32bit writes to mmio since 1 64b write doesn't work".
#[test]
fn before_3_0_addresses_are_written_in_halves() {
    for version in Version::ALL {
        let rig = Rig::new(Config { version, ..Config::default() });
        let chain = if version == Version::V1_2 { CHAINADDR } else { channel::CHAINADDR };
        for register in [chain, channel::CHANCMP] {
            rig.device.write(CHANNEL_BLOCK + register, Width::W64, BASE | 5 << 32);
            let whole = if version < Version::V3_0 { 0 } else { BASE | 5 << 32 };
            assert_eq!(rig.get(register, Width::W64), whole, "{version}");
            rig.set64(register, BASE | 7 << 32);
            assert_eq!(rig.get(register, Width::W64), BASE | 7 << 32, "{version}");
        }
    }
}
