//! Bytes read as choices. Past their end, everything is 0.

use ioat_model::{
    Config, Fault, Faults, InterruptStyle, Version, When, Which,
    registers::{ChanErr, DmaCapability, Width},
};
use std::{num::NonZeroU64, time::Duration};

use super::memory::{PAGE, PAGES};

pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn number<const BYTES: usize>(&mut self) -> u64 {
        (0..BYTES).fold(0, |value, _| value << 8 | u64::from(self.byte()))
    }

    pub(crate) fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    pub(crate) fn width(&mut self) -> Width {
        self.choose(&[Width::W8, Width::W16, Width::W32, Width::W64])
    }

    /// An address in or at the memory that begins at `base`, or anywhere.
    pub(crate) fn address(&mut self, base: u64) -> u64 {
        let size = PAGES as u64 * PAGE;
        match self.byte() {
            // A descriptor's place.
            0..128 => base.wrapping_add(self.number::<2>() % (size / 64) * 64),
            128..208 => base.wrapping_add(self.number::<2>() % size),
            208..224 => base.wrapping_sub(self.number::<1>()),
            224..240 => base.wrapping_add(size).wrapping_sub(self.number::<1>()),
            240..248 => self.number::<1>(),
            _ => self.number::<8>(),
        }
    }

    pub(crate) fn value(&mut self, base: u64) -> u64 {
        match self.byte() % 4 {
            0 => self.number::<1>(),
            1 => self.address(base),
            2 => self.number::<2>(),
            _ => self.number::<8>(),
        }
    }

    pub(crate) fn time(&mut self) -> Duration {
        match self.byte() % 4 {
            0 => Duration::from_nanos(self.number::<1>()),
            1 => Duration::from_micros(self.number::<2>()),
            2 => Duration::from_millis(self.number::<1>()),
            _ => Duration::from_nanos(self.number::<8>()),
        }
    }

    pub(crate) fn config(&mut self) -> Config {
        let capability = match self.byte() % 4 {
            0 => Some(DmaCapability::all()),
            1 => Some(DmaCapability::from_bits_truncate(self.number::<4>() as u32)),
            _ => None,
        };
        Config {
            version: self.choose(&Version::ALL),
            channels: self.byte() % 6,
            xfercap: self.byte() % 40,
            capability,
            interrupts: self.choose(&[
                InterruptStyle::Msix,
                InterruptStyle::Msi,
                InterruptStyle::Intx,
            ]),
            faults: self.faults(),
        }
    }

    fn faults(&mut self) -> Faults {
        let mut faults = Faults::none();
        for _ in 0..self.byte() % 4 {
            let fault = match self.byte() % 10 {
                0 => Fault::Error(ChanErr::from_bits_truncate(self.number::<4>() as u32)),
                1 => Fault::Halt,
                2 => Fault::Hang,
                3 => Fault::Dead,
                4 => Fault::LostCompletion,
                5 => Fault::LateCompletion(self.time()),
                6 => Fault::LostInterrupt,
                7 => Fault::Vanish,
                8 => Fault::LostDoorbell,
                _ => Fault::SlowReset(self.time()),
            };
            // Small, for a run has few descriptors and fewer resets.
            let number = self.number::<1>() % 8;
            let channel = usize::from(self.byte() % 2);
            faults = match self.byte() % 3 {
                0 => faults.at(channel, number, fault),
                1 => {
                    let which = Which::From { first: number, times: self.number::<1>() };
                    faults.with(When { channel: None, which }, fault)
                }
                _ => {
                    let which = Which::OneIn(NonZeroU64::MIN.saturating_add(number));
                    faults.with(When { channel: Some(channel), which }, fault)
                }
            };
        }
        match self.byte() % 8 {
            0 => faults.latency(self.time()),
            1 => faults.bandwidth(NonZeroU64::MIN.saturating_add(self.number::<4>())),
            2 => faults.seed(self.number::<8>()),
            _ => faults,
        }
    }
}
