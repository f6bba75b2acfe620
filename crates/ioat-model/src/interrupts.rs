//! From a channel's interrupt to a vector or to INTA.
//!
//! ```text
//!   channel i raises --> ATTNSTATUS bit i --(MASTER_INT_EN)--> MSI-X: vector i, or 0
//!                                                              MSI:   vector 0
//!                                                              INTA:  high while any bit is set
//! ```
//!
//! Reading ATTNSTATUS clears it. Reading INTRCTRL clears `MASTER_INT_EN`: that is why Linux's
//! handler, and illumos's, write back what they have read, whatever it was. What is raised meanwhile
//! is sent with that write. (The sources at hand do not say it in words; a driver that writes back
//! works either way.)
//!
//! The mask bits of the MSI-X table are kept, without effect: in each of the shells somebody else
//! delivers vectors and has the table that counts (QEMU, or the kernel's VFIO).

use crate::{
    config_space::{ConfigSpace, InterruptStyle},
    registers::{IntrCtrl, MAX_CHANNELS, Width},
};

/// INTRCTRL, ATTNSTATUS, and what has left the device.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    control: IntrCtrl,
    attention: u32,
    /// Raised while nothing was sent, a bit a channel.
    held: u32,
    /// Sent, and not yet taken by the shell.
    vectors: u32,
    /// INTA as it was last.
    intx: bool,
}

impl Interrupts {
    /// After a function level reset: what has left the device stays out.
    pub(crate) fn reset(&mut self, config: &mut ConfigSpace) {
        *self = Self { vectors: self.vectors, intx: self.intx, ..Self::default() };
        self.settle(config);
    }

    /// The device is gone, and INTA with it.
    pub(crate) fn vanish(&mut self) {
        *self = Self { vectors: self.vectors, ..Self::default() };
    }

    /// A channel raises its interrupt.
    pub(crate) fn raise(&mut self, channel: usize, config: &mut ConfigSpace) {
        self.attention |= 1 << channel;
        self.held |= 1 << channel;
        self.send(config);
    }

    /// INTRCTRL, with its side effect.
    pub(crate) fn read_control(&mut self, config: &mut ConfigSpace) -> u8 {
        let mut value = self.control;
        let status = self.attention != 0;
        value.set(IntrCtrl::INT_STATUS, status);
        value.set(IntrCtrl::INT, status && value.contains(IntrCtrl::MASTER_INT_EN));
        self.control -= IntrCtrl::MASTER_INT_EN;
        self.settle(config);
        value.bits()
    }

    pub(crate) fn write_control(&mut self, value: u8, config: &mut ConfigSpace) {
        let writable = IntrCtrl::MASTER_INT_EN | IntrCtrl::MSIX_VECTOR_CONTROL;
        self.control = IntrCtrl::from_bits_truncate(value) & writable;
        self.send(config);
    }

    /// ATTNSTATUS, with its side effect.
    pub(crate) fn read_attention(&mut self, config: &mut ConfigSpace) -> u32 {
        let value = std::mem::take(&mut self.attention);
        self.held = 0;
        self.settle(config);
        value
    }

    /// Sends what is held, if that is possible now. Also to be called when configuration space has
    /// changed.
    pub(crate) fn send(&mut self, config: &mut ConfigSpace) {
        let style = config.interrupt_style();
        let message = style != InterruptStyle::Intx && config.sends_messages();
        if self.held != 0 && message && self.control.contains(IntrCtrl::MASTER_INT_EN) {
            let each = style == InterruptStyle::Msix
                && self.control.contains(IntrCtrl::MSIX_VECTOR_CONTROL);
            self.vectors |= if each { self.held } else { 1 };
            self.held = 0;
        }
        self.settle(config);
    }

    /// Brings INTA to the level that it should have.
    fn settle(&mut self, config: &mut ConfigSpace) {
        let requested = self.attention != 0
            && self.control.contains(IntrCtrl::MASTER_INT_EN)
            && config.interrupt_style() == InterruptStyle::Intx;
        config.show_interrupt(requested);
        let level = requested && !config.is_intx_disabled();
        if level && !self.intx {
            self.vectors |= 1;
        }
        self.intx = level;
    }

    /// The level of INTA.
    pub(crate) const fn intx(&self) -> bool {
        self.intx
    }

    /// Vectors sent since the last call, a bit each; INTA's rise is bit 0.
    pub(crate) const fn take(&mut self) -> u32 {
        std::mem::replace(&mut self.vectors, 0)
    }
}

/// The MSI-X table: registers that are kept.
#[derive(Debug)]
pub(crate) struct MsixTable {
    /// Address, upper half of the address, data, control.
    entries: [[u32; 4]; MAX_CHANNELS as usize],
    count: usize,
}

/// Vector control: masked, as after power-up.
const MASKED: [u32; 4] = [0, 0, 0, 1];

impl MsixTable {
    pub(crate) const fn new(count: usize) -> Self {
        Self { entries: [MASKED; MAX_CHANNELS as usize], count }
    }

    /// A word of the table; `offset` counts from its start.
    fn word(&mut self, offset: u64) -> Option<&mut u32> {
        let index = usize::try_from(offset / 4).ok().filter(|_| offset.is_multiple_of(4))?;
        self.entries[..self.count].as_flattened_mut().get_mut(index)
    }

    pub(crate) fn read(&mut self, offset: u64, width: Width) -> u64 {
        let mut word = |offset| self.word(offset).map_or(0, |word| u64::from(*word));
        match width {
            Width::W32 => word(offset),
            Width::W64 => word(offset) | word(offset.wrapping_add(4)) << 32,
            Width::W8 | Width::W16 => 0,
        }
    }

    pub(crate) fn write(&mut self, offset: u64, width: Width, value: u64) {
        let halves = match width {
            Width::W32 => 1,
            Width::W64 => 2,
            Width::W8 | Width::W16 => 0,
        };
        for half in 0..halves {
            if let Some(word) = self.word(offset.wrapping_add(4 * half)) {
                *word = (value >> (32 * half)) as u32;
            }
        }
    }
}
