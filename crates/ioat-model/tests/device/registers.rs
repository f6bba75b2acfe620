//! Reset values, widths, and side effects of register accesses.

use ioat_model::{
    Config, State,
    registers::{
        ATTNSTATUS, BAR_SIZE, CBVER, CHANCNT, CHANNEL_BLOCK, DMACAPABILITY, DmaCapability,
        INTRCTRL, Width, XFERCAP, channel::*,
    },
};

use crate::rig::{BASE, Rig};

const WIDTHS: [Width; 4] = [Width::W8, Width::W16, Width::W32, Width::W64];

#[test]
fn values_after_power_up() {
    let rig = Rig::new(Config { channels: 2, xfercap: 15, ..Config::default() });
    assert_eq!(rig.device.read(CHANCNT, Width::W8), 2);
    assert_eq!(rig.device.read(XFERCAP, Width::W8), 15);
    assert_eq!(rig.device.read(CBVER, Width::W8), 0x33, "Skylake");
    let capability = rig.device.read(DMACAPABILITY, Width::W32);
    assert_eq!(capability, 0x341, "page break, block fill, XOR, PQ");
    assert_eq!(rig.device.read(INTRCTRL, Width::W8), 0);
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 0);
    assert_eq!(rig.status(), State::Halted as u64);
    for register in [CHAINADDR, CHANCMP, CDAR] {
        assert_eq!(rig.get(register, Width::W64), 0);
    }
    for register in [CHANERR, CHANERRMASK, DCACTRL] {
        assert_eq!(rig.get(register, Width::W32), 0);
    }
    assert_eq!(rig.get(DMA_COMP, Width::W16), 2, "the version 2 programming model");
    assert_eq!(rig.get(DMACOUNT, Width::W16), 0);
    assert_eq!(rig.get(CHANCMD, Width::W8), 0);
}

#[test]
fn configurations_outside_the_range_are_brought_into_it() {
    let rig = Rig::new(Config {
        channels: 0,
        xfercap: 0,
        capability: Some(DmaCapability::empty()),
        ..Config::default()
    });
    assert_eq!(rig.device.read(CHANCNT, Width::W8), 1);
    assert_eq!(rig.device.read(XFERCAP, Width::W8), 12);
    assert_eq!(rig.device.read(DMACAPABILITY, Width::W32), 0);
    let rig = Rig::new(Config { channels: 255, xfercap: 255, ..Config::default() });
    assert_eq!(rig.device.read(CHANCNT, Width::W8), 4);
    assert_eq!(rig.device.read(XFERCAP, Width::W8), 31);
}

#[test]
fn registers_answer_to_their_own_width_only() {
    let rig = Rig::new(Config::default());
    rig.set64(CHANCMP, 0x1122_3344_5566_7788);
    for (register, right) in [(CHANCNT, Width::W8), (CBVER, Width::W8), (DMACAPABILITY, Width::W32)]
    {
        for width in WIDTHS {
            let value = rig.device.read(register, width);
            assert_eq!(value != 0, width == right, "{register:#x} {width:?}");
        }
    }
    assert_eq!(rig.get(CHANCMP, Width::W64), 0x1122_3344_5566_7788);
    assert_eq!(rig.get(CHANCMP, Width::W32), 0x5566_7788);
    assert_eq!(rig.get(CHANCMP + 4, Width::W32), 0x1122_3344);
    assert_eq!(rig.get(CHANCMP, Width::W16), 0);
    rig.set(CHANCMP, Width::W16, 0xffff);
    assert_eq!(rig.get(CHANCMP, Width::W64), 0x1122_3344_5566_7788);
    rig.set(DCACTRL, Width::W32, u64::MAX);
    assert_eq!(rig.get(DCACTRL, Width::W32), 0xffff_ffff);
}

#[test]
fn unknown_places_read_as_zero_and_ignore_writes() {
    let rig = Rig::new(Config::default());
    let beyond_channels = 2 * CHANNEL_BLOCK + CHANSTS;
    for offset in [0x09, 0x7f, CHANNEL_BLOCK + 0x7f, beyond_channels, BAR_SIZE, u64::MAX] {
        for width in WIDTHS {
            rig.device.write(offset, width, u64::MAX);
            assert_eq!(rig.device.read(offset, width), 0, "{offset:#x} {width:?}");
        }
    }
}

#[test]
fn reading_chanctrl_takes_the_channel_and_writing_zero_releases_it() {
    let rig = Rig::new(Config::default());
    assert_eq!(rig.get(CHANCTRL, Width::W16), 0, "free");
    assert_eq!(rig.get(CHANCTRL, Width::W16), 0x100, "taken by the first read");
    rig.set16(CHANCTRL, 0);
    assert_eq!(rig.get(CHANCTRL, Width::W16), 0, "free again");
    rig.command(0x20);
    assert_eq!(rig.get(CHANCTRL, Width::W16), 0x100, "a reset does not change the owner");
}

#[test]
fn a_reset_clears_what_a_driver_must_write_again() {
    let rig = Rig::armed(Config::default());
    rig.set(CHANERRMASK, Width::W32, 3);
    rig.command(0x20);
    assert_eq!(rig.get(CHANCMD, Width::W8), 0, "self-clearing");
    assert_eq!(rig.status(), State::Halted as u64);
    assert_eq!(rig.get(CHANCMP, Width::W64), 0);
    assert_eq!(rig.get(CHAINADDR, Width::W64), 0);
    assert_eq!(rig.get(CHANERRMASK, Width::W32), 3, "Linux writes it once, before all resets");
    assert_eq!(rig.get(CHANCTRL, Width::W16) & 0x3c, 0, "the error bits are gone");
}

#[test]
fn chanerr_is_write_one_to_clear_and_survives_reset() {
    let rig = Rig::new(Config::default());
    rig.command(0x01);
    assert_eq!(rig.get(CHANERR, Width::W32), 1 << 5, "START is no command of version 2");
    rig.command(0x20);
    assert_eq!(rig.get(CHANERR, Width::W32), 1 << 5);
    rig.set(CHANERR, Width::W32, !(1 << 5) & 0xffff_ffff);
    assert_eq!(rig.get(CHANERR, Width::W32), 1 << 5, "writing 0 keeps a bit");
    rig.set64(CHAINADDR, BASE);
    assert_eq!(rig.state(), State::Halted as u64, "nothing starts before errors are cleared");
    rig.set(CHANERR, Width::W32, 1 << 5);
    assert_eq!(rig.get(CHANERR, Width::W32), 0);
    rig.set64(CHAINADDR, BASE);
    assert_eq!(rig.state(), State::Armed as u64);
}

#[test]
fn chainaddr_takes_effect_with_its_high_half() {
    let rig = Rig::new(Config::default());
    rig.set(CHAINADDR, Width::W32, BASE);
    assert_eq!(rig.state(), State::Halted as u64);
    rig.set(CHAINADDR + 4, Width::W32, 0);
    assert_eq!(rig.state(), State::Armed as u64);
    let rig = Rig::new(Config::default());
    rig.set(CHAINADDR, Width::W64, BASE);
    assert_eq!(rig.state(), State::Armed as u64);
}
