//! What the CPU does with an operation: for the software engines, and for the layers that fall back
//! to it.

use crate::Capabilities;

mod checksum;
mod copy;
mod descriptor;
mod execute;
pub(crate) mod gf256;
mod parity;

pub use checksum::{InternetSum, copy_and_checksum};
pub(crate) use copy::TOO_LONG_TO_CACHE;
pub use copy::copy_bytes;
pub(crate) use descriptor::{Descriptor, MAX_SEGMENTS, MAX_SOURCES};
pub(crate) use execute::execute;

/// All that [`execute()`] does. Who executes one operation after the other keeps every fence.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::MEMCPY
    .union(Capabilities::MEMCPY_SG)
    .union(Capabilities::MEMSET)
    .union(Capabilities::XOR)
    .union(Capabilities::XOR_VAL)
    .union(Capabilities::PQ)
    .union(Capabilities::PQ_VAL)
    .union(Capabilities::FENCE)
    .union(Capabilities::CACHE_HINT);
