//! A fence between two threads of which one passes it with every doorbell and the other seldom.
//!
//! Each side stores, passes its fence and looks at what the other has stored; of the two, at least
//! one must see the other's store. That takes a full fence on both sides, which on x86 holds up the
//! thread until its store buffer is empty: more than the rest of a doorbell. Linux's `membarrier`
//! makes every processor that runs a thread of this process pass one. So the side that passes seldom
//! pays for both (an interrupt on the other processor), and the frequent side must only keep the
//! compiler from moving the look before the store. What the processor moves does not matter: either
//! the interrupt comes after the store, which it makes visible, or before the look.
//!
//! The language's memory model does not know `membarrier`; that a compiler's fence is enough is what
//! `membarrier(2)` promises for it. Loom checks the ring with two full fences in their places.

use super::sync::{Ordering, compiler_fence, fence};

/// How the two sides of a ring make their fence. Both must use the same one.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsymmetricFence {
    /// Whether `membarrier` is there. Without it both sides have a full fence.
    membarrier: bool,
}

impl AsymmetricFence {
    /// Asks the kernel; containers and sandboxes may refuse it.
    pub(super) fn new() -> Self {
        Self { membarrier: membarrier::register() }
    }

    /// The side that passes often.
    #[inline]
    pub(super) fn frequent(self) {
        if self.membarrier {
            // SeqCst: the only one that keeps a load behind a store.
            compiler_fence(Ordering::SeqCst);
        } else {
            // SeqCst: as above, in the processor too.
            fence(Ordering::SeqCst);
        }
    }

    /// The side that passes seldom. `false` if the kernel, which had agreed, now refuses: there was
    /// no fence.
    #[must_use = "without the fence a store of the other side may be overlooked"]
    pub(super) fn seldom(self) -> bool {
        if self.membarrier {
            membarrier::membarrier()
        } else {
            // SeqCst: see `frequent`.
            fence(Ordering::SeqCst);
            true
        }
    }
}

#[cfg(not(any(miri, all(test, loom))))]
mod membarrier {
    use rustix::thread::{MembarrierCommand, membarrier as call};

    /// Makes [`membarrier`] usable in this process; whether it is. More than once does no harm.
    pub(super) fn register() -> bool {
        call(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    /// A full fence in every running thread of this process, the calling one included.
    pub(super) fn membarrier() -> bool {
        call(MembarrierCommand::PrivateExpedited).is_ok()
    }
}

/// Loom and Miri have no kernel.
#[cfg(any(miri, all(test, loom)))]
mod membarrier {
    pub(super) const fn register() -> bool {
        false
    }

    pub(super) const fn membarrier() -> bool {
        false
    }
}
