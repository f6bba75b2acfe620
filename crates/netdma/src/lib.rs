//! The receive copy offload: received payload is moved to the program's buffer by a DMA engine.
//!
//! It is what `NET_DMA` was in Linux 2.6.18 to 3.17 (`net/core/user_dma.c`, `drivers/dma/iovlock.c`
//! and the parts of `net/ipv4/tcp*.c` around them), rebuilt so that it cannot lose data.
//!
//! # Model
//!
//! A receive call *posts* its buffer ([`Offload::post`]) and waits. After every batch of packets,
//! and before any program wakes, whoever drives the stack *serves* the posted receives
//! ([`Offload::serve`]): segments are taken off the socket's receive queue, which moves
//! `copied_seq`, and their copies are issued to their place in the posted buffer, by the engine or
//! by the CPU. This is the *early copy*: it runs while the next packets are processed. A segment
//! that an engine reads is on the *async wait queue* (`sk_async_wait_queue`): it is kept, and stays
//! charged to the socket's receive buffer, until its copy has ended.
//!
//! ```text
//!   receive queue --take--> async wait queue --ended--> released: the window may open
//!                     \         |  error, timeout
//!                      \        v
//!                       `---> copied by the CPU from the segment that was kept
//! ```
//!
//! [`Offload::reap`] collects ended copies. A copy that the engine failed, or did not end, has been
//! done again by the CPU below it ([`dmaengine::Fallback`]): TCP has acknowledged those bytes, and
//! the kept segment is the only place where they exist. When a receive has no copy in flight
//! ([`Progress::in_flight`] is 0), the first [`Progress::taken`] bytes of its buffer are all there,
//! and the call may return. It must not return before: [`Offload::withdraw`] refuses.
//!
//! # What decides where a copy runs
//!
//! One place, [`Copybreak`], with the meaning of Linux's `tcp_dma_copybreak`: reads of that length
//! or less are copied by the CPU. Whatever the engine refuses (full ring, memory that it cannot
//! reach) or is not trusted with for the moment (after a failure) is copied by the CPU too, and
//! counted by its [cause](CpuCause).

#![forbid(unsafe_code)]

mod copybreak;
mod counters;
mod flags;
mod offload;
mod receive;
mod recv;
mod wake;

pub use copybreak::{Copybreak, ParseCopybreakError};
pub use counters::{Counters, CpuCause};
pub use flags::RecvFlags;
pub use offload::{Engine, Offload, RxPacket, Tag};
pub use receive::{Busy, Destination, Progress, ReceiveId};
pub use recv::{Conditions, RecvError, Request, Verdict};
pub use wake::WakeReason;
