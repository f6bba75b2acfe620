//! PCI configuration space, and how interrupts leave.

use ioat_model::{
    Config, ConfigSpace, InterruptStyle, State, Version,
    config_space::*,
    descriptor::Control,
    registers::{
        ATTNSTATUS, BAR_SIZE, CHANNEL_BLOCK, ChanErr, INTRCTRL, MSIX_PBA, MSIX_TABLE, Width,
        channel::*,
    },
};
use proptest::prelude::*;

use crate::rig::{BASE, END, Rig};

const STYLES: [InterruptStyle; 3] =
    [InterruptStyle::Intx, InterruptStyle::Msi, InterruptStyle::Msix];

fn get(rig: &Rig, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    rig.device.config_read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn set(rig: &Rig, offset: u64, value: u32) {
    rig.device.config_write(offset, &value.to_le_bytes());
}

/// The capabilities by walking the list: id and place.
fn capabilities(space: &ConfigSpace) -> Vec<(u8, u64)> {
    let mut found = Vec::new();
    let mut link = [0; 1];
    space.read(0x34, &mut link);
    while link[0] != 0 {
        let at = u64::from(link[0]);
        assert!(at >= 0x40 && at.is_multiple_of(4), "{at:#x}");
        let mut header = [0; 2];
        space.read(at, &mut header);
        found.push((header[0], at));
        link[0] = header[1];
        assert!(found.len() < 10, "the list has an end");
    }
    found
}

#[test]
fn the_header_says_who_it_is() {
    for version in Version::ALL {
        let space = ConfigSpace::new(version, 1, InterruptStyle::Msix);
        let mut header = [0; 64];
        space.read(0, &mut header);
        assert_eq!(header[..2], [0x86, 0x80]);
        assert_eq!(header[2..4], version.device_id().to_le_bytes());
        assert_eq!(header[4..6], [0, 0], "nothing enabled");
        assert_eq!(header[6] & 0x10, 0x10, "capabilities");
        assert_eq!(header[9..12], [0x00, 0x80, 0x08], "system peripheral");
        assert_eq!(header[14], 0, "one function");
        assert_eq!(header[0x3d], 1, "INTA");
    }
}

#[test]
fn the_size_of_the_bar_is_found_as_firmware_does() {
    let mut space = ConfigSpace::new(Version::V3_2, 1, InterruptStyle::Msix);
    let mut bar = [0; 8];
    assert!(!space.write(BAR0, &[0xff; 8]));
    space.read(BAR0, &mut bar);
    let mask = u64::from_le_bytes(bar);
    assert_eq!(mask & 0xf, 4, "64 bits, not prefetchable");
    assert_eq!(!(mask & !0xf) + 1, BAR_SIZE);
    assert!(!space.write(BAR0 + 8, &[0xff; 16]));
    let mut others = [0xff; 16];
    space.read(BAR0 + 8, &mut others);
    assert_eq!(others, [0; 16], "no other BAR");
}

#[test]
fn the_list_has_what_is_offered() {
    for (style, ids) in
        STYLES.into_iter().zip([&[0x10, 1][..], &[5, 0x10, 1][..], &[5, 0x11, 0x10, 1][..]])
    {
        for channels in 1..=4 {
            let space = ConfigSpace::new(Version::V3_3, channels, style);
            let found = capabilities(&space);
            let expected: Vec<_> = found.iter().map(|(id, _)| *id).collect();
            assert_eq!(expected, ids);
            let Some((_, msix)) = found.iter().find(|(id, _)| *id == 0x11) else { continue };
            let mut fields = [0; 12];
            space.read(*msix, &mut fields);
            assert_eq!(fields[2], channels - 1, "vectors less one");
            assert_eq!(fields[4..8], [0x00, 0x10, 0, 0], "the table, in BAR 0");
            assert_eq!(fields[8..12], [0x00, 0x18, 0, 0], "the pending bits");
        }
    }
}

#[test]
fn nothing_is_fetched_before_bus_mastering() {
    let rig = Rig::armed(Config::default());
    set(&rig, COMMAND, MEMORY_SPACE.into());
    rig.null(BASE, Control::COMPL_WRITE);
    rig.doorbell(1);
    assert_eq!(rig.run(), 0);
    assert_eq!(rig.state(), State::Active as u64);
    set(&rig, COMMAND, (MEMORY_SPACE | BUS_MASTER).into());
    assert_eq!(rig.run(), 1);
    // Neither in D3hot.
    let space = ConfigSpace::new(Version::V3_2, 1, InterruptStyle::Msix);
    let (_, power) = capabilities(&space).into_iter().find(|(id, _)| *id == 1).expect("there");
    set(&rig, power + 4, 3);
    rig.null(BASE + 64, Control::COMPL_WRITE);
    rig.doorbell(2);
    assert_eq!(rig.run(), 0);
    set(&rig, power + 4, 0);
    assert_eq!(rig.run(), 1);
}

#[test]
fn relaxed_ordering_can_be_turned_off_as_linux_does() {
    let rig = Rig::new(Config::default());
    let control = get(&rig, DEVICE_CONTROL) as u16;
    assert_ne!(control & RELAXED_ORDERING, 0, "on after power-up");
    rig.device.config_write(DEVICE_CONTROL, &(control & !RELAXED_ORDERING).to_le_bytes());
    assert_eq!(get(&rig, DEVICE_CONTROL) as u16, control & !RELAXED_ORDERING);
}

#[test]
fn a_function_level_reset_is_a_power_up() {
    let rig = Rig::armed(Config::default());
    rig.copy(BASE, END, BASE, 8, Control::empty());
    rig.doorbell(1);
    rig.run();
    assert_eq!(rig.errors(), ChanErr::SOURCE_ADDRESS);
    assert_eq!(get(&rig, CHANERR_INT), ChanErr::SOURCE_ADDRESS.bits());
    rig.device.config_write(DEVICE_CONTROL, &INITIATE_FLR.to_le_bytes());
    assert_eq!(rig.errors(), ChanErr::empty());
    assert_eq!(get(&rig, CHANERR_INT), 0);
    assert_eq!(get(&rig, DEVICE_CONTROL) as u16 & INITIATE_FLR, 0, "reads as 0");
    assert_eq!(get(&rig, COMMAND) as u16, 0);
    assert_eq!(rig.get(CHANCMP, Width::W64), 0);
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 0);
}

#[test]
fn extended_registers_are_write_one_to_clear() {
    let rig = Rig::armed(Config { version: Version::V3_0, ..Config::default() });
    rig.command(0x81);
    assert_eq!(get(&rig, CHANERR_INT), ChanErr::CHANCMD.bits());
    set(&rig, CHANERR_INT, !ChanErr::CHANCMD.bits());
    assert_eq!(get(&rig, CHANERR_INT), ChanErr::CHANCMD.bits(), "0 keeps a bit");
    set(&rig, CHANERR_INT, ChanErr::CHANCMD.bits());
    assert_eq!(get(&rig, CHANERR_INT), 0);
    assert_eq!(get(&rig, DMAUNCERRSTS), 0);
    rig.command(0x20);
    assert_eq!(get(&rig, DMAUNCERRSTS), CFG_REG_PARITY, "erratum of 3.0");
    set(&rig, DMAUNCERRSTS, CFG_REG_PARITY);
    assert_eq!(get(&rig, DMAUNCERRSTS), 0);
    set(&rig, CHANERRMASK_INT, 0x1234);
    assert_eq!(get(&rig, CHANERRMASK_INT), 0x1234);
}

#[test]
fn a_channel_reset_takes_the_msix_table_of_3_3() {
    for version in Version::ALL {
        let rig = Rig::new(Config { version, ..Config::default() });
        assert_eq!(rig.device.read(MSIX_TABLE + 12, Width::W32), 1, "masked");
        rig.device.write(MSIX_TABLE, Width::W64, 0x1111_2222_fee0_0000);
        rig.device.write(MSIX_TABLE + 8, Width::W64, 0x41);
        assert_eq!(rig.device.read(MSIX_TABLE, Width::W32), 0xfee0_0000);
        assert_eq!(rig.device.read(MSIX_TABLE + 4, Width::W32), 0x1111_2222);
        rig.command(0x20);
        let lost = version == Version::V3_3;
        let expected = if lost { 0 } else { 0x1111_2222_fee0_0000 };
        assert_eq!(rig.device.read(MSIX_TABLE, Width::W64), expected, "{version}");
        assert_eq!(rig.device.read(MSIX_PBA, Width::W64), 0);
    }
    let rig = Rig::new(Config { channels: 2, ..Config::default() });
    for offset in [32, 30, MSIX_PBA - MSIX_TABLE] {
        rig.device.write(MSIX_TABLE + offset, Width::W32, 5);
        assert_eq!(rig.device.read(MSIX_TABLE + offset, Width::W32), 0, "two entries");
    }
}

/// A rig with two channels, each with null descriptors that interrupt.
fn interrupting(interrupts: InterruptStyle) -> Rig {
    let rig = Rig::new(Config { channels: 2, interrupts, ..Config::default() });
    rig.enable();
    for slot in 0..8 {
        rig.null(BASE + slot * 64, Control::INT_EN);
    }
    for channel in 0..2 {
        let block = CHANNEL_BLOCK * (channel + 1);
        rig.device.write(block + CHANCTRL, Width::W16, 1);
        rig.device.write(block + CHAINADDR, Width::W64, BASE);
    }
    rig
}

/// Lets a channel process up to its `count`-th descriptor, with its interrupt armed.
fn ring(rig: &Rig, channel: u64, count: u64) {
    let block = CHANNEL_BLOCK * (channel + 1);
    rig.device.write(block + CHANCTRL, Width::W16, 1);
    rig.device.write(block + DMACOUNT, Width::W16, count);
    assert_eq!(rig.run(), 1);
}

#[test]
fn msix_has_a_vector_for_each_channel_if_asked() {
    let rig = interrupting(InterruptStyle::Msix);
    ring(&rig, 1, 1);
    assert_eq!([rig.sent(0), rig.sent(1)], [1, 0], "vector 0 for all");
    rig.device.write(INTRCTRL, Width::W8, 0x9);
    ring(&rig, 1, 2);
    assert_eq!([rig.sent(0), rig.sent(1)], [0, 1]);
    ring(&rig, 0, 1);
    ring(&rig, 1, 3);
    assert_eq!([rig.sent(0), rig.sent(1)], [1, 1], "though ATTNSTATUS was not read");
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 3);
}

/// What Linux's handler does: INTRCTRL, ATTNSTATUS, INTRCTRL back.
#[test]
fn msi_and_linux_handler_lose_nothing() {
    let rig = interrupting(InterruptStyle::Msi);
    ring(&rig, 0, 1);
    assert_eq!(rig.sent(0), 1);
    let control = rig.device.read(INTRCTRL, Width::W8);
    assert_eq!(control, 0x7, "enabled, status, interrupt");
    assert_eq!(rig.device.read(INTRCTRL, Width::W8), 0x2, "the read has disabled it");
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 1);
    ring(&rig, 1, 1);
    assert_eq!(rig.sent(0), 0, "while the handler runs");
    rig.device.write(INTRCTRL, Width::W8, control);
    assert_eq!(rig.sent(0), 1, "when it has written back");
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 2);
    rig.device.write(INTRCTRL, Width::W8, control);
    assert_eq!(rig.sent(0), 0);
    assert!(!rig.device.intx());
}

#[test]
fn inta_is_a_level() {
    let rig = interrupting(InterruptStyle::Intx);
    assert!(!rig.device.intx());
    ring(&rig, 0, 1);
    assert!(rig.device.intx());
    ring(&rig, 1, 1);
    assert_eq!([rig.sent(0), rig.sent(1)], [1, 0], "it has risen once");
    assert_eq!(get(&rig, COMMAND) >> 16 & 8, 8, "interrupt status");
    let control = rig.device.read(INTRCTRL, Width::W8);
    assert!(!rig.device.intx(), "disabled by the read");
    rig.device.write(INTRCTRL, Width::W8, control);
    assert!(rig.device.intx(), "nobody has read ATTNSTATUS");
    assert_eq!(rig.sent(0), 1);
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 3);
    assert!(!rig.device.intx());
    assert_eq!(get(&rig, COMMAND) >> 16 & 8, 0);
    set(&rig, COMMAND, (MEMORY_SPACE | BUS_MASTER | INTX_DISABLE).into());
    ring(&rig, 0, 2);
    assert!(!rig.device.intx(), "kept low");
    assert_eq!(get(&rig, COMMAND) >> 16 & 8, 8, "but requested");
    set(&rig, COMMAND, (MEMORY_SPACE | BUS_MASTER).into());
    assert!(rig.device.intx());
}

#[test]
fn a_message_needs_bus_mastering() {
    let rig = interrupting(InterruptStyle::Msix);
    set(&rig, COMMAND, MEMORY_SPACE.into());
    // An error of the register interface interrupts without any descriptor.
    rig.set16(CHANCTRL, 0x11);
    rig.command(0x81);
    assert_eq!(rig.sent(0), 0);
    set(&rig, COMMAND, (MEMORY_SPACE | BUS_MASTER).into());
    assert_eq!(rig.sent(0), 1);
}

proptest! {
    /// Whatever is written, wherever: the ids stay, and what is read twice is the same.
    #[test]
    fn any_access_is_answered(
        accesses in prop::collection::vec(
            (prop_oneof![0..0x1100_u64, any::<u64>()], prop::collection::vec(any::<u8>(), 0..20)),
            0..40,
        ),
    ) {
        let mut space = ConfigSpace::new(Version::V3_4, 4, InterruptStyle::Msix);
        let before = capabilities(&space);
        for (offset, bytes) in accesses {
            let _reset = space.write(offset, &bytes);
            let mut read = vec![0xaa; bytes.len()];
            space.read(offset, &mut read);
            for (index, byte) in read.iter().enumerate() {
                let mut single = [0];
                space.read(offset.wrapping_add(index as u64), &mut single);
                if offset.checked_add(index as u64).is_some() {
                    prop_assert_eq!(single[0], *byte);
                }
            }
        }
        let mut ids = [0; 4];
        space.read(0, &mut ids);
        prop_assert_eq!(ids, [0x86, 0x80, 0x00, 0x0b]);
        prop_assert_eq!(capabilities(&space), before);
    }
}
