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
//! the kept segment is the only place where they exist.
//!
//! A receive takes bytes until it *ends*, for one of the [`WakeReason`]s. When it has ended and no
//! copy of it is in flight ([`Progress::in_flight`] is 0), its first [`Progress::taken`] bytes are
//! all there, and the call may return. It must not return before: [`Offload::withdraw`] refuses.
//! [`Offload::check`] says what a call does next: the decisions of Linux's `tcp_recvmsg`, whose
//! waiting is the caller's business.
//!
//! Receives that are posted on one socket stand in a line. Each gets bytes from one place of the
//! stream, and has a state of its own. So a program may post many buffers ahead of the data; and two
//! threads in receive calls on one socket do not meet.
//!
//! # What decides where a copy runs
//!
//! Three questions, one after the other.
//!
//! *May the engine have this receive?* [`Copybreak`] has the meaning of Linux's `tcp_dma_copybreak`: reads
//! of that length or less are copied by the CPU. It can be set at any time, for all sockets and for one
//! ([`Request::copybreak`]). With [`Copybreak::Auto`] the answer is measured: of each
//! [kind of receive](ReceiveClass) (its length, who waits for it, whether its buffer is warm) it is known
//! what a kilobyte has cost the receiving thread with the engine and without, and the cheaper of the two
//! has it. To the engine's cost belongs what the reader pays to look at bytes that are in none of its
//! caches, if it does look at them. [`Offload::policy`] shows what is known, [`Offload::last_decisions`]
//! why it was decided so.
//!
//! *How much of it?* All that nobody [waits](Waiting) for: it is copied while the next packets are
//! processed, and the CPU helps only if the engine is late. Of what a call returns with, the front is the
//! engine's and the back the CPU's, cut where both end together, within a segment if need be
//! ([`CpuCause::Shared`]): a reader that looks on while an engine copies has saved nothing. Where to cut is
//! learned from who was late.
//!
//! An engine that can choose ([`Capabilities::CACHE_HINT`](dmaengine::Capabilities::CACHE_HINT)) is asked
//! to write to a cache what finds room there, since the program reads it next.
//!
//! *Does the engine do it?* Whatever it refuses (full ring, memory that it cannot reach) or is not trusted
//! with for the moment (after a failure) is copied by the CPU too, and counted by its [cause](CpuCause).
//!
//! For both of the first, time is read from the clock that [`Offload::timed_by`] gives. Without one nothing
//! is shared, and what happens is a function of the calls alone.
//!
//! # What the original had, by its names
//!
//! | in Linux | here |
//! | --- | --- |
//! | `dma_pin_iovec_pages`, for each call | arenas that are [mapped](dmaengine::DmaDevice::map) once; other memory is lent as it is, and refused by engines that cannot reach it |
//! | `tp->ucopy`, in the socket | [`ReceiveId`]: the state of a call is the call's |
//! | `ucopy.dma_cookie`, `skb->dma_cookie`: the last of each | a [`Cookie`](dmaengine::Cookie) for each segment, with a status of its own |
//! | `tcp_dma_try_early_copy` | [`Offload::serve`]: in order, since only such segments are in the receive queue; the checksum vouched for, since others are not either; as much as fits |
//! | its wake rules | [`WakeReason::BufferFull`], [`WakeReason::Push`], [`WakeReason::HalfFull`]; and [`WakeReason::Idle`], without which a sender that stops without PSH leaves the reader asleep |
//! | `sk_async_wait_queue` | what is in flight in the [`Engine`], charged to the receive buffer; the original did not charge what it had copied early |
//! | `sk_eat_skb(.., copied_early)` | a segment belongs to its copy from [`Stack::take`](netstack::Stack::take) to [`Stack::release`](netstack::Stack::release) |
//! | `tcp_service_net_dma(.., wait)` | [`Offload::reap`], which never waits. One load of the completion word ends any number of copies |
//! | the drain when the window is 0 | whoever sleeps while copies are in flight wakes at their end ([`Offload::poll_timeout`], [`Offload::arm`]), and [`Offload::reap`] releases their segments, which opens the window |
//! | no double ACK after an early copy | acknowledgments are decided once, at the end of a turn ([`Stack::poll_transmit`](netstack::Stack::poll_transmit)); released memory is announced only if the window can be twice what it is |
//! | `dma_issue_pending_all` at the end of `net_rx_action` | one doorbell for what [`Offload::serve`] issued, and some more if that is much and a call waits for it |
//! | `net.ipv4.tcp_dma_copybreak` | [`Copybreak`] |
//! | `MSG_PEEK` does not pin | [`Offload::peek`]: never offloaded, counted as [`CpuCause::Peek`] |
//! | `MSG_TRUNC` pins and does not copy; lost data until 2012 | [`Destination::Nowhere`]: there is no buffer that anything could be copied to |
//! | `MSG_WAITALL`: the target is the length | the same: it ends for [`WakeReason`]s that leave no choice |
//! | `MSG_DONTWAIT` | [`Conditions::may_wait`]; a call that had its bytes waits for its copies all the same |
//! | `MSG_OOB`, before any of this | [`Stack::receive_urgent`](netstack::Stack::receive_urgent), likewise |
//! | a read stops at the urgent byte | [`WakeReason::UrgentMark`] |
//! | FIN, RST, timeouts, signals | [`Verdict`]: what was taken is returned first, the error is told once, then the end of the stream |
//!
//! In one thing calls differ from Linux's to the better: a call that has taken fewer bytes than
//! `SO_RCVLOWAT` wakes when it has as many as that *together* with what it took; Linux waits for as
//! many again.

#![forbid(unsafe_code)]

mod copies;
mod copybreak;
mod counters;
mod flags;
mod lessons;
mod offload;
mod policy;
mod reading;
mod receive;
mod recv;
mod share;
mod wake;
mod warmth;
mod work_clock;

pub use copies::{Engine, RxPacket, Tag};
pub use copybreak::{Copybreak, ParseCopybreakError};
pub use counters::{Counters, CpuCause};
pub use flags::RecvFlags;
pub use offload::Offload;
pub use policy::{Decision, PolicyRow, Reason, ReceiveClass};
pub use reading::ReadLines;
pub use receive::{Busy, Destination, Progress, ReceiveId};
pub use recv::{Conditions, RecvError, Request, Verdict, Waiting};
pub use wake::WakeReason;
pub use work_clock::WorkClock;
