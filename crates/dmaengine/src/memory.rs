//! Who owns the memory that an engine reads and writes.

mod arena;
mod coherent;
mod dma_buf;
mod extents;
mod free_list;
mod heap;
mod lend;
mod loan;
#[cfg(all(test, loom))]
mod model;
mod pool;

/// What the list of free slots is built of.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

pub use arena::{Arena, ArenaError, ArenaFull};
pub use coherent::Coherent;
pub use dma_buf::{DmaBuf, DmaSlice};
pub use heap::Heap;
pub(crate) use lend::abort_for_memory;
pub use lend::{Target, lend};
pub use loan::Loan;
pub use pool::{PacketBuf, PacketBufMut, PacketPool, PacketSlice};

/// A value that owns, or shares in read-only form, memory that an engine may read.
///
/// # Safety
///
/// While the value exists, however it is moved, the slice that `as_ref` returns is the same memory,
/// stays valid for reads, and nobody writes it (also not through another handle, nor from another
/// process).
pub unsafe trait DmaSource: AsRef<[u8]> + Send + 'static {}

/// A value that owns memory that an engine may write.
///
/// # Safety
///
/// While the value exists, however it is moved, the slice that `as_mut` returns is the same memory,
/// stays valid for reads and writes, and is reachable through this value alone. Moving the value
/// does not assert anything about the memory (as moving a `Box` does): engines hold a raw pointer
/// to it meanwhile.
pub unsafe trait DmaTarget: AsMut<[u8]> + Send + 'static {}

// SAFETY: a `Vec`'s heap block stays where it is when the `Vec` is moved; the `Vec` is its only
// owner and is not shared, so nobody writes it while it serves as a source.
unsafe impl DmaSource for Vec<u8> {}

// SAFETY: as above, and a `Vec`'s pointer makes no claim of exclusiveness when the `Vec` moves.
unsafe impl DmaTarget for Vec<u8> {}
