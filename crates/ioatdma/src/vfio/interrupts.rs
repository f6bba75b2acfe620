//! Interrupts as eventfds.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::{EventfdFlags, eventfd};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};

use super::ioctl;
use crate::Interrupts;

/// The most vectors that are asked for: one for each channel that is used of a device.
pub(super) const MAX_VECTORS: usize = 4;

/// A function's interrupts, each with an eventfd that counts them.
#[derive(Debug)]
pub(super) struct Vectors {
    interrupts: Interrupts,
    eventfds: Vec<OwnedFd>,
}

impl Vectors {
    /// Enables the best kind of interrupts that the function and the system offer: MSI-X, MSI, `INTx`,
    /// in Linux's order. That there is none is no error: channels are polled then.
    pub(super) fn enable(device: impl AsFd) -> io::Result<Self> {
        let kinds = [
            (VFIO_PCI_MSIX_IRQ_INDEX, MAX_VECTORS),
            (VFIO_PCI_MSI_IRQ_INDEX, 1),
            (VFIO_PCI_INTX_IRQ_INDEX, 1),
        ];
        for (index, most) in kinds {
            let count = ioctl::irq_count(&device, index).unwrap_or(0).min(most as u32);
            if count == 0 {
                continue;
            }
            let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
            let eventfds: Vec<OwnedFd> =
                (0..count).map(|_| eventfd(0, flags)).collect::<Result<_, _>>()?;
            let vectors = Self { interrupts: interrupts(index, eventfds.len()), eventfds };
            // The kernel may have no vector left, or the line may be one that cannot be shared.
            if vectors.set(&device).is_ok() {
                return Ok(vectors);
            }
        }
        Ok(Self { interrupts: Interrupts::None, eventfds: Vec::new() })
    }

    pub(super) const fn interrupts(&self) -> Interrupts {
        self.interrupts
    }

    pub(super) fn get(&self, vector: usize) -> Option<&OwnedFd> {
        self.eventfds.get(vector)
    }

    /// Lets the line interrupt again.
    pub(super) fn unmask(&self, device: impl AsFd) {
        if self.interrupts == Interrupts::Intx {
            // It fails only if the function has left the bus. Then nothing interrupts any more.
            let _ = ioctl::unmask_irq(device, VFIO_PCI_INTX_IRQ_INDEX);
        }
    }

    /// Has the kernel write the vectors to the device again: setting the same eventfds does that
    /// (`vfio_msi_set_vector_signal` takes the message from its own copy, for just this case).
    pub(super) fn restore(&self, device: impl AsFd) {
        // As above.
        let _ = self.set(device);
    }

    fn set(&self, device: impl AsFd) -> io::Result<()> {
        let index = match self.interrupts {
            Interrupts::None => return Ok(()),
            Interrupts::MsiX { .. } => VFIO_PCI_MSIX_IRQ_INDEX,
            Interrupts::Msi => VFIO_PCI_MSI_IRQ_INDEX,
            Interrupts::Intx => VFIO_PCI_INTX_IRQ_INDEX,
        };
        let eventfds: Vec<_> = self.eventfds.iter().map(AsFd::as_fd).collect();
        ioctl::enable_irqs(device, index, &eventfds)
    }
}

/// What the driver is told of this kind.
fn interrupts(index: u32, vectors: usize) -> Interrupts {
    match index {
        VFIO_PCI_MSIX_IRQ_INDEX => Interrupts::MsiX { vectors },
        VFIO_PCI_MSI_IRQ_INDEX => Interrupts::Msi,
        _ => Interrupts::Intx,
    }
}
