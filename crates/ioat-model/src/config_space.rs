//! PCI configuration space: who the device is, where it is, how it interrupts.
//!
//! ```text
//!   000 header: ids, command, status, BAR 0 (64 bits, 16 KiB), capability list, INTA
//!   048 DMACTRL (version 1.2)
//!   060 MSI: one vector, 64-bit address
//!   080 MSI-X: a vector for each channel; table at BAR0+0x1000, pending bits at BAR0+0x1800
//!   090 PCI Express 2: root complex integrated endpoint, function level reset
//!   0e0 power management 3
//!   148 DMAUNCERRSTS   180 CHANERR_INT   184 CHANERRMASK_INT
//! ```
//!
//! There are no extended capabilities: drivers know the registers from 0x148 on by their offsets.
//! Any offset and length may be read and written; what is not there reads as 0 and ignores writes.
//!
//! After power-up and after a function level reset the command register is 0: the device then
//! answers, but sends nothing to memory before [`BUS_MASTER`] is set. The kernel does that for its
//! own drivers; who opens a device through VFIO must do it.

use crate::{
    registers::{ChanErr, MAX_CHANNELS, MSIX_PBA, MSIX_TABLE},
    version::Version,
};

/// Size of PCI Express configuration space in bytes.
pub const CONFIG_SIZE: u64 = 0x1000;

/// PCI vendor id: Intel.
pub const VENDOR_ID: u16 = 0x8086;

/// Command. 16 bits: [`MEMORY_SPACE`], [`BUS_MASTER`], [`INTX_DISABLE`].
pub const COMMAND: u64 = 0x04;
/// [`COMMAND`]: the device answers in its BAR. (Whoever routes accesses to the BAR looks at it.)
pub const MEMORY_SPACE: u16 = 1 << 1;
/// [`COMMAND`]: the device may read and write memory, and send MSIs.
pub const BUS_MASTER: u16 = 1 << 2;
/// [`COMMAND`]: INTA stays low.
pub const INTX_DISABLE: u16 = 1 << 10;
/// BAR 0: address and kind, followed by the upper half of the address. Two times 32 bits.
pub const BAR0: u64 = 0x10;
/// Version 1.2's control: [`DMACTRL_DMA_EN`], [`DMACTRL_MSI_EN`]. 32 bits.
pub const DMACTRL: u64 = 0x48;
/// [`DMACTRL`]: the device may read and write memory. Set after power-up: no driver does it.
pub const DMACTRL_DMA_EN: u32 = 1 << 0;
/// [`DMACTRL`]: version 1.2 sends no MSI without it.
pub const DMACTRL_MSI_EN: u32 = 1 << 1;
/// MSI control: [`MSI_ENABLE`]. 16 bits.
pub const MSI_CONTROL: u64 = MSI + 2;
/// [`MSI_CONTROL`]: interrupts are MSIs.
pub const MSI_ENABLE: u16 = 1 << 0;
/// MSI-X control: [`MSIX_ENABLE`]. 16 bits.
pub const MSIX_CONTROL: u64 = MSIX + 2;
/// [`MSIX_CONTROL`]: interrupts are MSI-X vectors.
pub const MSIX_ENABLE: u16 = 1 << 15;
/// PCI Express device control: [`RELAXED_ORDERING`], [`INITIATE_FLR`]. 16 bits.
pub const DEVICE_CONTROL: u64 = EXPRESS + 8;
/// [`DEVICE_CONTROL`]: writes may pass writes. On after power-up; drivers turn it off, for a
/// completion word must not pass the bytes that it is about. The model never lets it.
pub const RELAXED_ORDERING: u16 = 1 << 4;
/// [`DEVICE_CONTROL`]: write 1: function level reset.
pub const INITIATE_FLR: u16 = 1 << 15;
/// Errors of the engine that belong to no channel. 32 bits, write 1 to clear.
pub const DMAUNCERRSTS: u64 = 0x148;
/// [`DMAUNCERRSTS`]: a parity error in a configuration register. Version 3.0 reports one, which did
/// not happen, after every channel reset.
pub const CFG_REG_PARITY: u32 = 1 << 4;
/// What channels have had in CHANERR. 32 bits, write 1 to clear.
pub const CHANERR_INT: u64 = 0x180;
/// Which bits of [`CHANERR_INT`] are signalled. Kept, without effect. 32 bits.
pub const CHANERRMASK_INT: u64 = 0x184;

const MSI: u64 = 0x60;
const MSIX: u64 = 0x80;
const EXPRESS: u64 = 0x90;
const POWER: u64 = 0xe0;
const STATUS: u64 = 0x06;
/// Status: INTA is requested, whether or not [`INTX_DISABLE`] keeps it low.
const INTERRUPT_STATUS: u8 = 1 << 3;
/// PCI Express device status.
pub(crate) const DEVICE_STATUS: u64 = EXPRESS + 0xa;
/// [`DEVICE_STATUS`]: descriptors are still being worked on.
pub(crate) const TRANSACTIONS_PENDING: u8 = 1 << 5;
const POWER_CONTROL: u64 = POWER + 4;
/// Power control: D0 to D3hot.
const POWER_STATE: u16 = 3;

/// The part of configuration space that has registers.
const USED: usize = 0x188;

/// Where the byte `index` behind `offset` is kept; `None`: nowhere.
fn place(offset: u64, index: usize) -> Option<usize> {
    let at = usize::try_from(offset).ok()?.checked_add(index)?;
    (at < USED).then_some(at)
}

/// How a device interrupts. The least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterruptStyle {
    /// INTA: a level.
    Intx,
    /// MSI: one vector.
    Msi,
    /// MSI-X: a vector for each channel (if INTRCTRL asks for it; else all use vector 0).
    #[default]
    Msix,
}

/// Configuration space of one device.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    version: Version,
    bytes: [u8; USED],
    /// What the bytes are after power-up.
    initial: [u8; USED],
    /// Bits that take a written value.
    writable: [u8; USED],
    /// Bits that a written 1 clears.
    write_one_clears: [u8; USED],
}

impl ConfigSpace {
    /// Configuration space after power-up. It has capabilities for the `best` style of interrupts
    /// and the lesser ones.
    #[must_use]
    pub fn new(version: Version, channels: u8, best: InterruptStyle) -> Self {
        let zero = [0; USED];
        let mut space =
            Self { version, bytes: zero, initial: zero, writable: zero, write_one_clears: zero };
        let id = version.device_id();
        space.register(0x00, 2, VENDOR_ID.into(), 0);
        space.register(0x02, 2, id.into(), 0);
        let command = MEMORY_SPACE | BUS_MASTER | INTX_DISABLE;
        // Besides what has an effect: parity error response and SERR.
        space.register(COMMAND, 2, 0, u64::from(command) | 0x0140);
        // There is a capability list.
        space.register(STATUS, 2, 0x0010, 0);
        // Revision 4; class 0x0880: another system peripheral.
        space.register(0x08, 4, 0x0880_0004, 0);
        // Cache line size.
        space.register(0x0c, 1, 0, 0xff);
        // 64 bits, not prefetchable, 16 KiB.
        space.register(BAR0, 8, 0x4, !(crate::registers::BAR_SIZE - 1));
        space.register(0x2c, 4, u64::from(VENDOR_ID) | u64::from(id) << 16, 0);
        // Interrupt line, and INTA.
        space.register(0x3c, 2, 0x0100, 0xff);
        if version == Version::V1_2 {
            let all = DMACTRL_DMA_EN | DMACTRL_MSI_EN;
            space.register(DMACTRL, 4, DMACTRL_DMA_EN.into(), all.into());
        }
        space.capabilities(channels, best);
        space.clearable(DMAUNCERRSTS, 4, 0xffff_ffff);
        space.clearable(CHANERR_INT, 4, 0xffff_ffff);
        space.register(CHANERRMASK_INT, 4, 0, 0xffff_ffff);
        space.bytes = space.initial;
        space
    }

    fn capabilities(&mut self, channels: u8, best: InterruptStyle) {
        let mut link = 0x34;
        let mut capability = |space: &mut Self, id: u8, at: u64| {
            space.register(link, 1, at, 0);
            space.register(at, 1, id.into(), 0);
            link = at + 1;
        };
        if best >= InterruptStyle::Msi {
            capability(self, 0x05, MSI);
            // 64-bit address, one vector.
            self.register(MSI_CONTROL, 2, 0x0080, u64::from(MSI_ENABLE) | 0x70);
            self.register(MSI + 4, 8, 0, !3);
            self.register(MSI + 12, 2, 0, 0xffff);
        }
        if best >= InterruptStyle::Msix {
            capability(self, 0x11, MSIX);
            let last = channels.clamp(1, MAX_CHANNELS) - 1;
            // The mask of the whole function is kept, without effect, as those of the vectors are.
            self.register(MSIX_CONTROL, 2, last.into(), u64::from(MSIX_ENABLE) | 1 << 14);
            self.register(MSIX + 4, 4, MSIX_TABLE, 0);
            self.register(MSIX + 8, 4, MSIX_PBA, 0);
        }
        capability(self, 0x10, EXPRESS);
        // Version 2, root complex integrated endpoint.
        self.register(EXPRESS + 2, 2, 0x0092, 0);
        // Function level reset, role-based error reporting, extended tags.
        self.register(EXPRESS + 4, 4, 0x1000_8020, 0);
        // Relaxed ordering, extended tags, no snoop, 512 bytes a read request.
        self.register(DEVICE_CONTROL, 2, 0x2910, 0x7fff);
        self.clearable(DEVICE_STATUS, 2, 0x000f);
        capability(self, 0x01, POWER);
        self.register(POWER + 2, 2, 0x0003, 0);
        // D3hot keeps the registers.
        self.register(POWER_CONTROL, 2, 0x0008, POWER_STATE.into());
    }

    /// Reads the bytes from `offset` on.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = place(offset, index).map_or(0, |at| self.bytes[at]);
        }
    }

    /// Writes bytes from `offset` on. `true` if that asked for a function level reset, which is then
    /// the caller's to do.
    #[must_use]
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        for (index, written) in bytes.iter().enumerate() {
            let Some(at) = place(offset, index) else { break };
            let (writable, clears) = (self.writable[at], self.write_one_clears[at]);
            let kept = self.bytes[at] & !writable & !(clears & written);
            self.bytes[at] = kept | written & writable;
        }
        let flr = DEVICE_CONTROL + 1;
        let written = flr.checked_sub(offset).and_then(|at| bytes.get(usize::try_from(at).ok()?));
        written.is_some_and(|byte| u16::from(*byte) << 8 & INITIATE_FLR != 0)
    }

    /// Back to the values after power-up.
    pub(crate) const fn reset(&mut self) {
        self.bytes = self.initial;
    }

    /// Whether the device may read and write memory: it is allowed to, and has power.
    #[must_use]
    pub fn is_bus_master(&self) -> bool {
        self.get16(COMMAND) & BUS_MASTER != 0
            && self.get16(POWER_CONTROL) & POWER_STATE == 0
            && self.is_set_in_v1(DMACTRL_DMA_EN)
    }

    /// Whether MSIs and MSI-X vectors may be sent.
    pub(crate) fn sends_messages(&self) -> bool {
        let other = self.interrupt_style() != InterruptStyle::Msi;
        self.is_bus_master() && (other || self.is_set_in_v1(DMACTRL_MSI_EN))
    }

    /// Whether DMACTRL, if there is one, has the bit.
    fn is_set_in_v1(&self, bit: u32) -> bool {
        self.version != Version::V1_2 || u32::from(self.get16(DMACTRL)) & bit != 0
    }

    /// Whether INTA is kept low.
    #[must_use]
    pub fn is_intx_disabled(&self) -> bool {
        self.get16(COMMAND) & INTX_DISABLE != 0
    }

    /// How the device interrupts as things are: MSI-X or MSI where it is enabled, else INTA.
    #[must_use]
    pub fn interrupt_style(&self) -> InterruptStyle {
        if self.get16(MSIX_CONTROL) & MSIX_ENABLE != 0 {
            InterruptStyle::Msix
        } else if self.get16(MSI_CONTROL) & MSI_ENABLE != 0 {
            InterruptStyle::Msi
        } else {
            InterruptStyle::Intx
        }
    }

    /// Notes errors in `CHANERR_INT`.
    pub(crate) fn latch_errors(&mut self, errors: ChanErr) {
        self.set_bits(CHANERR_INT, &errors.bits().to_le_bytes());
    }

    /// Notes a parity error in `DMAUNCERRSTS`.
    pub(crate) fn latch_parity_error(&mut self) {
        self.set_bits(DMAUNCERRSTS, &CFG_REG_PARITY.to_le_bytes());
    }

    /// Shows whether INTA is requested.
    pub(crate) fn show_interrupt(&mut self, requested: bool) {
        let byte = &mut self.bytes[STATUS as usize];
        *byte = *byte & !INTERRUPT_STATUS | if requested { INTERRUPT_STATUS } else { 0 };
    }

    fn set_bits(&mut self, offset: u64, bits: &[u8]) {
        for (byte, bits) in self.bytes[offset as usize..].iter_mut().zip(bits) {
            *byte |= bits;
        }
    }

    fn get16(&self, offset: u64) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Lays a register of `len` bytes out.
    fn register(&mut self, offset: u64, len: usize, initial: u64, writable: u64) {
        let at = offset as usize;
        self.initial[at..at + len].copy_from_slice(&initial.to_le_bytes()[..len]);
        self.writable[at..at + len].copy_from_slice(&writable.to_le_bytes()[..len]);
    }

    /// Lays a register of `len` bytes out that has bits which a written 1 clears.
    fn clearable(&mut self, offset: u64, len: usize, bits: u64) {
        let at = offset as usize;
        self.write_one_clears[at..at + len].copy_from_slice(&bits.to_le_bytes()[..len]);
    }
}
