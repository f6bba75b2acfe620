//! The DMA subsystem: memory moved by something other than the calling CPU.
//!
//! # Model
//!
//! A [`DmaDevice`] is a piece of hardware, a model of one, or a set of copy threads. It has
//! [channels](DmaChannel), each a bounded queue of operations with one owner. An operation is
//! *submitted* (it has a [`Cookie`], nothing has started), *issued* (the doorbell rang,
//! [`DmaChannel::issue_pending`]), and *ends* exactly once with a [`Status`] of its own. That is
//! the shape of Linux's `dmaengine`, DPDK's `dmadev` and SPDK's `ioat`.
//!
//! ```text
//!            submit            issue_pending            poll
//!   client ----------> ring  ----------------> engine ---------> Done { status, source, target }
//!      \__ memory goes in                          memory comes back out __/
//! ```
//!
//! # One owner for every byte under DMA
//!
//! A copy that runs behind the CPU's back is a thread that the borrow checker cannot see. So a
//! [`Queue`] takes the *values* that own the memory ([`DmaSource`], [`DmaTarget`]) and gives them
//! back when the operation has ended, not before. Between the two nobody can read, write, move or
//! free that memory in safe code. Dropping a queue first proves the channel idle; if that proof
//! fails the memory is leaked, because a leak is the lesser harm.
//!
//! Three kinds of memory can be owned in this way:
//!
//! * [`PacketBuf`]: a shared, read-only packet in an [`Arena`]; what a network link receives into;
//! * [`DmaBuf`]: a buffer that an application asks for, in an [`Arena`] too;
//! * [`Target`]: somebody else's `&mut [u8]`, for the length of one [`lend`] call, which cannot
//!   return while any piece of it is still out.
//!
//! # Addresses
//!
//! The interface speaks process addresses. An engine that takes IOVAs ([`Addressing::Iova`])
//! translates within the arenas that were [mapped](DmaDevice::map) for it, and refuses other
//! memory with [`SubmitError::Unreachable`]; the caller then copies with the CPU.
//!
//! # Ownership rules, per descriptor
//!
//! 1. `Free -> Submitted -> Ended -> Free`. Only a completion or a finished
//!    [`DmaChannel::terminate_sync`] leads out of `Submitted`. A submission that failed was never
//!    shown to the engine.
//! 2. While `Submitted`, no Rust reference to the target exists, and nobody writes the source.
//! 3. Everything the CPU wrote before `issue_pending` is visible to the engine (release), and
//!    everything the engine wrote is visible once `poll` reported the end (acquire).
//! 4. Completions of one channel of an [`Ordering::OutOfOrder`] device say nothing about each other.

mod capability;
mod channel;
#[cfg(any(test, feature = "testkit"))]
pub mod conformance;
mod cookie;
mod copier;
mod device;
pub mod dmatest;
mod engine;
mod fork;
mod iova;
mod layer;
mod memory;
mod operation;
#[cfg(test)]
mod puppet;
mod queue;
mod random;
mod registry;
mod scope;
mod segmented;
mod segments;
mod software;
mod stats;
mod status;

pub use capability::{Addressing, Capabilities, ChannelInfo, Kind, Ordering};
pub use channel::{DmaChannel, Stuck, SubmitError};
pub use cookie::Cookie;
pub use copier::{Copied, Copier, CopyError, Copying};
pub use device::{DmaDevice, MapError, RequestError};
pub use engine::{CpuDevice, ThreadsDevice, ThreadsOptions};
pub use iova::{IovaMap, IovaRegion};
pub use layer::{
    Breaker, Clock, Delay, DrivenClock, Fallback, FallbackOptions, FallbackStats, Fault, FaultPlan,
    FaultPlanError, Faults, Fences, Layer, Layered, Split, SplitShare, When,
};
pub use memory::{
    Arena, ArenaError, ArenaFull, Coherent, DmaBuf, DmaSlice, DmaSource, DmaTarget, PacketBuf,
    PacketBufMut, PacketPool, PacketSlice, Target, lend,
};
pub use operation::{Flags, Operation, OperationKind, Segment, SegmentMut, pieces};
pub use queue::{Done, Queue, Refused, Syndromes, Wait, WaitTimeout};
pub use registry::{
    Channel, ChannelListing, DeviceEvent, Holder, LookupError, NotDone, Registry, RemovalError,
    SharedChannel, SharedError,
};
pub use scope::{Prefix, PrefixError, Scope, ScopeError, scope};
pub use segmented::SegmentedCopy;
pub use software::{InternetSum, copy_and_checksum, copy_bytes};
pub use stats::{ChannelStats, DepthSnapshot, Distribution, OperationSnapshot, Snapshot};
pub use status::{Completion, FallbackCause, Status};
