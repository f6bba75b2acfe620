//! Commands and the states they lead to.

use ioat_model::{
    Config, Fault, Faults, State,
    descriptor::Control,
    registers::{ChanErr, Width, channel::*},
};

use crate::rig::{BASE, COMPLETION, Rig};

const SUSPEND: u8 = 0x04;
const ABORT: u8 = 0x08;
const RESUME: u8 = 0x10;
const RESET: u8 = 0x20;

fn ring_of_nulls(config: Config) -> Rig {
    let rig = Rig::armed(config);
    for slot in 0..8 {
        let next = BASE + (slot + 1) % 8 * 64;
        let control = Control::NULL | Control::COMPL_WRITE;
        rig.descriptor(BASE + slot * 64, 0, 1, control, [0, 0, next]);
    }
    rig
}

#[test]
fn the_way_through_the_states() {
    let rig = ring_of_nulls(Config::default());
    assert_eq!(rig.state(), State::Armed as u64);
    rig.doorbell(4);
    assert_eq!(rig.state(), State::Active as u64);
    rig.device.step();
    rig.command(SUSPEND);
    assert_eq!(rig.status(), BASE | State::Suspended as u64);
    assert_eq!(rig.run(), 0);
    rig.doorbell(5);
    assert_eq!(rig.run(), 0, "counted, not started");
    rig.command(RESUME);
    assert_eq!(rig.run(), 4);
    assert_eq!(rig.status(), (BASE + 4 * 64) | State::Done as u64);
    rig.command(SUSPEND);
    assert_eq!(rig.state(), State::Suspended as u64, "also when idle");
    rig.command(RESUME);
    assert_eq!(rig.state(), State::Done as u64);
    rig.command(ABORT);
    assert_eq!(rig.state(), State::Halted as u64);
    assert_eq!(rig.errors(), ChanErr::empty());
}

#[test]
fn a_channel_that_never_ran_does_not_suspend() {
    let rig = Rig::new(Config::default());
    rig.command(SUSPEND);
    assert_eq!(rig.state(), State::Halted as u64);
    rig.set64(CHAINADDR, BASE);
    rig.command(SUSPEND);
    assert_eq!(rig.state(), State::Armed as u64);
    rig.command(RESUME);
    assert_eq!(rig.state(), State::Armed as u64);
}

#[test]
fn a_new_chain_after_suspend_counts_from_zero() {
    let rig = ring_of_nulls(Config::default());
    rig.doorbell(3);
    rig.run();
    rig.set64(CHAINADDR, BASE + 5 * 64);
    assert_eq!(rig.state(), State::Done as u64, "ignored while the chain runs");
    rig.command(SUSPEND);
    rig.set64(CHAINADDR, BASE + 5 * 64);
    assert_eq!(rig.status(), State::Armed as u64, "address 0: nothing completed yet");
    rig.doorbell(1);
    assert_eq!(rig.run(), 1);
    assert_eq!(rig.status(), (BASE + 5 * 64) | State::Done as u64);
}

#[test]
fn commands_that_do_not_exist_halt() {
    for command in [0x01, 0x02, SUSPEND | RESUME, 0x80] {
        let rig = ring_of_nulls(Config::default());
        rig.doorbell(1);
        rig.command(command);
        assert_eq!(rig.errors(), ChanErr::CHANCMD);
        assert_eq!(rig.state(), State::Halted as u64);
    }
    let rig = ring_of_nulls(Config::default());
    rig.command(0);
    assert_eq!(rig.errors(), ChanErr::empty());
}

#[test]
fn after_a_halt_clear_reset_and_a_new_chain_lead_back() {
    let faults = Faults::none().at(0, 1, Fault::Error(ChanErr::READ_DATA));
    let rig = ring_of_nulls(Config { faults, ..Config::default() });
    rig.doorbell(3);
    rig.run();
    assert_eq!(rig.status(), BASE | State::Halted as u64);
    assert_eq!(rig.get(CDAR, Width::W64), BASE + 64, "the failing descriptor");
    rig.set(CHANERR, Width::W32, 0xffff_ffff);
    rig.set64(CHAINADDR, BASE + 2 * 64);
    assert_eq!(rig.state(), State::Halted as u64, "not without a reset");
    rig.command(RESET);
    rig.enable();
    rig.set64(CHAINADDR, BASE + 2 * 64);
    rig.doorbell(2);
    assert_eq!(rig.run(), 2);
    assert_eq!(rig.word(COMPLETION), (BASE + 3 * 64) | State::Done as u64);
}

#[test]
fn a_hang_ends_with_reset_only() {
    let faults = Faults::none().at(0, 1, Fault::Hang);
    let rig = ring_of_nulls(Config { faults, ..Config::default() });
    rig.doorbell(3);
    rig.run();
    assert_eq!(rig.status(), BASE | State::Active as u64);
    rig.command(SUSPEND);
    assert_eq!(rig.state(), State::Active as u64);
    rig.command(RESET);
    assert_eq!(rig.get(CHANCMD, Width::W8), 0);
    assert_eq!(rig.state(), State::Halted as u64);
    rig.enable();
    rig.set64(CHAINADDR, BASE);
    rig.doorbell(3);
    assert_eq!(rig.run(), 3);
}

#[test]
fn a_dead_channel_does_not_even_reset() {
    let faults = Faults::none().at(0, 0, Fault::Dead);
    let rig = ring_of_nulls(Config { faults, ..Config::default() });
    rig.doorbell(1);
    rig.run();
    rig.command(RESET);
    assert_eq!(rig.get(CHANCMD, Width::W8), RESET.into());
    assert_eq!(rig.state(), State::Active as u64);
}

/// Commands that arrive between `fetch` and `retire`, as they do when bytes move without the lock.
mod in_flight {
    use ioat_model::{
        Memory, MemoryError, Mismatch, Model, MoveError,
        registers::{CHANNEL_BLOCK, Width, channel::*},
    };

    use super::*;

    /// Every descriptor is a null descriptor followed by the one at 64; writes are remembered.
    struct Nulls(Option<u64>);

    impl Memory for Nulls {
        fn read(&mut self, _: u64, words: &mut [u64]) -> Result<(), MemoryError> {
            let control = Control::NULL | Control::COMPL_WRITE;
            let descriptor = [1 | u64::from(control.bits()) << 32, 0, 0, 64, 0, 0, 0, 0];
            words.copy_from_slice(&descriptor);
            Ok(())
        }

        fn write(&mut self, _: u64, word: u64) -> Result<(), MemoryError> {
            self.0 = Some(word);
            Ok(())
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

    fn command_in_flight(command: u8) -> (Model, Nulls) {
        let mut model = Model::new(Config::default());
        model.enable();
        let mut memory = Nulls(None);
        model.mmio_write(CHANNEL_BLOCK + CHAINADDR, Width::W64, 64);
        model.mmio_write(CHANNEL_BLOCK + DMACOUNT, Width::W16, 2);
        assert!(model.fetch(&mut memory).is_some());
        assert!(model.fetch(&mut memory).is_none(), "one at a time");
        model.mmio_write(CHANNEL_BLOCK + CHANCMD, Width::W8, command.into());
        assert_eq!(model.mmio_read(CHANNEL_BLOCK + CHANSTS, Width::W64), State::Active as u64);
        let resetting = model.mmio_read(CHANNEL_BLOCK + CHANCMD, Width::W8);
        assert_eq!(resetting, (command & RESET).into(), "RESET shows until bytes have stopped");
        model.retire(0, Ok(Mismatch::empty()), &mut memory);
        assert_eq!(model.mmio_read(CHANNEL_BLOCK + CHANCMD, Width::W8), 0);
        (model, memory)
    }

    #[test]
    fn suspend_and_abort_wait_for_it() {
        for (command, state) in [(SUSPEND, State::Suspended), (ABORT, State::Halted)] {
            let (mut model, memory) = command_in_flight(command);
            let status = model.mmio_read(CHANNEL_BLOCK + CHANSTS, Width::W64);
            assert_eq!(status, 64 | state as u64);
            assert_eq!(memory.0, Some(status));
        }
    }

    #[test]
    fn reset_waits_for_it_and_forgets_it() {
        let (mut model, memory) = command_in_flight(RESET);
        assert_eq!(
            model.mmio_read(CHANNEL_BLOCK + CHANSTS, Width::W64),
            State::Halted as u64,
            "nothing completed"
        );
        assert_eq!(memory.0, None, "no completion after a reset");
    }

    #[test]
    fn retiring_what_was_not_fetched_is_ignored() {
        let mut model = Model::new(Config::default());
        model.enable();
        let mut memory = Nulls(None);
        model.retire(0, Ok(Mismatch::empty()), &mut memory);
        model.retire(99, Ok(Mismatch::empty()), &mut memory);
        assert_eq!(model.mmio_read(CHANNEL_BLOCK + CHANSTS, Width::W64), State::Halted as u64);
    }
}
