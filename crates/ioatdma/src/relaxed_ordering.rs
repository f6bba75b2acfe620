//! Turning PCI Express's relaxed ordering off.

use crate::Platform;

/// PCI configuration: where the list of capabilities begins, in bits 7:0.
const CAPABILITIES: u16 = 0x34;
/// The id of the PCI Express capability, in bits 7:0 of its first word.
const PCI_EXPRESS: u32 = 0x10;
/// Device Control, from the capability's start on. Bits 31:16 are Device Status, whose bits are
/// cleared by writing 1.
const DEVICE_CONTROL: u16 = 0x08;
/// Device Control: writes may pass others.
const RELAXED_ORDERING: u32 = 1 << 4;
/// As many capabilities as fit configuration space: a list in a circle ends too.
const MAX_CAPABILITIES: usize = 48;

/// Sees to it that the device's writes stay in order: the completion word must not pass the data that
/// it tells of. A function without the PCI Express capability has no such bit.
pub(crate) fn turn_off(platform: &dyn Platform) {
    let mut at = platform.config_read32(CAPABILITIES);
    for _ in 0..MAX_CAPABILITIES {
        // Pointers are multiples of 4, behind the header; 0 ends the list.
        let offset = (at & 0xfc) as u16;
        if offset < 0x40 {
            return;
        }
        let head = platform.config_read32(offset);
        if head & 0xff == PCI_EXPRESS {
            let register = offset + DEVICE_CONTROL;
            let control = platform.config_read32(register) & 0xffff;
            if control & RELAXED_ORDERING != 0 {
                platform.config_write32(register, control & !RELAXED_ORDERING);
            }
            return;
        }
        at = head >> 8;
    }
}
