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
//! # Three safe ways to use it, and the one beneath them
//!
//! | way | memory | how it ends |
//! | --- | --- | --- |
//! | [`Copier`] | owned buffers go in and come out, with `.await` or blocking | each operation for itself, with a deadline |
//! | [`Queue`] | owned buffers, or tokens of a pool ([`PacketBuf`]), with a tag | [`poll`](Queue::poll) or [`wait`](Queue::wait) for many |
//! | [`scope()`] | borrowed: any `&[u8]` and `&mut [u8]` | the scope joins, on every way out of it |
//! | [`DmaChannel`] | raw pointers, `unsafe` | [`DmaChannel::poll`] |
//!
//! The first, in a program that has nothing else to do meanwhile:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use dmaengine::{Copier, Registry, ThreadsDevice};
//!
//! let registry = Registry::new();
//! registry.register(Arc::new(ThreadsDevice::new(1)));
//! let copier = Copier::new(registry.request("dma0chan0")?, Duration::from_secs(5))?;
//! let done = copier.copy(b"hello".to_vec(), vec![0; 5]).wait()?; // or: .await
//! assert_eq!(done.target, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Each of the others begins with an example of its own. A large copy can be used before it has
//! ended, from its front: [`Scope::copy_segmented`] and [`SegmentedCopy`]. Threads that have no channel of
//! their own share one: [`Registry::find_channel`].
//!
//! The kinds of memory that can be owned:
//!
//! * [`PacketBuf`]: a shared, read-only packet in an [`Arena`]; what a network link receives into;
//! * [`DmaBuf`]: a buffer that an application asks for, in an [`Arena`] too;
//! * `Vec<u8>`, for engines of process addresses, and for all if the [`Heap`] is the allocator;
//! * [`Target`]: somebody else's `&mut [u8]`, for the length of one [`lend`] call, which cannot
//!   return while any piece of it is still out; or an owned buffer in pieces, which a [`Loan`] gives
//!   back when the last of them is gone. It lets a receive call's buffer pass through many
//!   hands, where a [`scope()`] would have to be open around all of them.
//!
//! # Layers
//!
//! What engines do not do by themselves is done once, over any of them, by a [`Layer`]:
//! [`Fallback`] (the CPU does what the engine refuses, fails or does not end), [`Split`] (large copies
//! are shared by engine and CPU), [`Faults`] (faults to order). A layered channel is a channel, and
//! passes the suite that every engine passes (`conformance`, with the feature `testkit`).
//!
//! # What a call costs
//!
//! Nothing is allocated per operation, whichever way and layer. Beside that, to submit and to poll:
//!
//! | way | locks | system calls |
//! | --- | --- | --- |
//! | [`DmaChannel`], [`Queue`], [`scope()`], with any layers | none | none |
//! | [`Copier`] | one, for as long as the driver takes | to wake its own thread, where that sleeps too long for a new deadline; to ask for an event before a future sleeps |
//! | [`SharedChannel`] | two | those of a wait: each call is one |
//!
//! A lock that nobody else has costs no system call. The doorbell of [`ThreadsDevice`] makes one if it
//! meets a copy thread asleep, which a futex wakes. Waiting is another matter: it polls for a moment, and
//! then may block ([`Wait`]).
//!
//! # Addresses
//!
//! The interface speaks process addresses. An engine that takes IOVAs ([`Addressing::Iova`])
//! translates within the arenas that were [mapped](DmaDevice::map) for it, and refuses other
//! memory with [`SubmitError::Unreachable`]; the caller then copies with the CPU, or has put
//! [`Fallback`] over the device. With [`Heap`] as its global allocator a program's ordinary buffers
//! are in such an arena. What can be a target and what cannot, and why, is told by [`reach`].
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
pub mod fork;
mod iova;
mod layer;
mod memory;
mod operation;
#[cfg(test)]
mod puppet;
mod queue;
mod random;
pub mod reach;
mod registry;
mod scope;
mod segmented;
mod segments;
mod software;
mod stats;
mod status;

pub use capability::{Addressing, Capabilities, ChannelInfo, Kind, Ordering};
pub use channel::{Argument, DmaChannel, Stuck, SubmitError};
pub use cookie::Cookie;
pub use copier::{Batch, Copied, Copier, CopyError, CopyOptions, Copying};
pub use device::{DmaDevice, MapError, RequestError};
pub use engine::{CpuDevice, ThreadsDevice, ThreadsOptions};
pub use iova::{IovaMap, IovaRegion};
pub use layer::{
    Breaker, Clock, Delay, DrivenClock, Fallback, FallbackOptions, FallbackStats, Fault,
    FaultOrders, FaultPlan, FaultPlanError, Faults, Fences, Layer, Layered, Split, SplitShare,
    When,
};
pub use memory::{
    Arena, ArenaError, ArenaFull, Coherent, DmaBuf, DmaSlice, DmaSource, DmaTarget, Heap, Loan,
    PacketBuf, PacketBufMut, PacketPool, PacketSlice, Target, lend,
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
pub use status::{Completion, FallbackCause, Status, Successes};
