//! What a channel must do to be called one, as tests.
//!
//! # What is asked
//!
//! [`all`] asks a channel for everything that [`DmaChannel`] promises and
//! [`ChannelInfo`](crate::ChannelInfo) declares: every operation that it has, of every length and
//! place that may matter, and the exact refusal of each that it has not; every error of
//! [`ChannelInfo::check`](crate::ChannelInfo::check), with nothing submitted; nothing before the
//! doorbell; space that falls by what an operation takes and comes back; more operations than 16
//! bits count; cookies that go on, whatever happens; fences, flags, events, deadlines; stops of an
//! idle, a busy and an unused channel; one channel that many threads use in turn; Linux's
//! [`dmatest`](crate::dmatest). Every byte of every block of memory is watched, and guards around it.
//!
//! [`errors()`] asks for what must hold when operations fail, of engines that can be made to fail to
//! order. It is an entry of its own, so that nothing is left out in silence. [`device`] is for devices:
//! [`all`] on a channel, and several clients at once if there are several channels.
//!
//! The tests panic with what was wrong. They are methods of [`Suite`], to be run one by one when an
//! engine is being brought up.
//!
//! # How to run it on an engine
//!
//! With the feature `testkit`, in the engine's tests. The engine must be driven by something else
//! than the calls (its own thread, or the device's); a model that moves only when it is told to is
//! wrapped in a channel that tells it in `poll` and `arm`. Here is the least engine that passes:
//! copies only, in order, made when the doorbell rings.
//!
//! ```
//! use std::{collections::VecDeque, os::fd::BorrowedFd, time::Duration};
//!
//! use dmaengine::{
//!     Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, Flags, Kind, Operation,
//!     Status, Stuck, SubmitError, conformance,
//! };
//!
//! #[derive(Debug)]
//! struct Least {
//!     info: ChannelInfo,
//!     next: Cookie,
//!     /// Source, target and length of what was submitted and not issued.
//!     submitted: VecDeque<(Cookie, usize, usize, usize)>,
//!     ended: VecDeque<Completion>,
//! }
//!
//! impl Least {
//!     fn channel() -> Box<dyn DmaChannel> {
//!         let capabilities = Capabilities::MEMCPY;
//!         let info =
//!             ChannelInfo { capabilities, ring_size: 64, ..ChannelInfo::new("least", Kind::Cpu) };
//!         let (submitted, ended) = (VecDeque::new(), VecDeque::new());
//!         Box::new(Self { info, next: Cookie::FIRST, submitted, ended })
//!     }
//! }
//!
//! // SAFETY: an operation leaves `submitted` once, when it is made by the calling thread or
//! // aborted, and is reported once; it writes its target only.
//! unsafe impl DmaChannel for Least {
//!     fn info(&self) -> &ChannelInfo {
//!         &self.info
//!     }
//!     fn space(&self) -> usize {
//!         self.info.ring_size - self.submitted.len() - self.ended.len()
//!     }
//!     unsafe fn submit(
//!         &mut self,
//!         operation: &Operation<'_>,
//!         flags: Flags,
//!     ) -> Result<Cookie, SubmitError> {
//!         self.info.check(operation, flags)?;
//!         let Operation::Memcpy { source, target, len } = *operation else {
//!             unreachable!("`check` refuses what the capabilities do not name")
//!         };
//!         if self.space() == 0 {
//!             return Err(SubmitError::RingFull);
//!         }
//!         let (source, target) = (source.expose_provenance(), target.expose_provenance());
//!         let cookie = self.next;
//!         self.next = cookie.next();
//!         self.submitted.push_back((cookie, source, target, len));
//!         Ok(cookie)
//!     }
//!     fn issue_pending(&mut self) {
//!         for (cookie, source, target, len) in self.submitted.drain(..) {
//!             let source = std::ptr::with_exposed_provenance::<u8>(source);
//!             let target = std::ptr::with_exposed_provenance_mut::<u8>(target);
//!             // SAFETY: submitted and not reported: the memory is the operation's.
//!             unsafe { target.copy_from_nonoverlapping(source, len) };
//!             self.ended.push_back(Completion::success(cookie, len));
//!         }
//!     }
//!     fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
//!         self.ended.drain(..).for_each(report);
//!     }
//!     fn arm(&mut self) -> bool {
//!         false
//!     }
//!     fn event(&self) -> Option<BorrowedFd<'_>> {
//!         None
//!     }
//!     fn terminate_sync(&mut self, _timeout: Duration) -> Result<(), Stuck> {
//!         let aborted = self.submitted.drain(..);
//!         self.ended.extend(aborted.map(|(cookie, ..)| Completion::failed(cookie, Status::Aborted)));
//!         Ok(())
//!     }
//! }
//!
//! // An engine of IOVAs would map the arena first.
//! let arena = Arena::new(conformance::ARENA_LEN)?;
//! conformance::all(Least::channel, &arena);
//! # Ok::<(), dmaengine::ArenaError>(())
//! ```

mod batch;
mod client;
mod clients;
mod copies;
mod dmatest;
mod errors;
mod events;
mod fills;
mod flags;
mod memory;
mod parity;
mod refusals;
mod ring;
mod samples;
mod scatter_gather;
mod stops;

use std::time::Duration;

pub use crate::fork::child::in_child;
use crate::{Arena, DmaChannel, DmaDevice, Status};

/// The length of the arena that the tests need: 16 MiB.
pub const ARENA_LEN: usize = 16 << 20;

/// The suite, with what it needs.
#[derive(Clone, Debug)]
pub struct Suite<'a> {
    arena: &'a Arena,
    timeout: Duration,
}

/// An operation that is to fail ([`Suite::errors`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which, counted from 0 by submission since the channel was handed out.
    pub index: u64,
    /// How it is to end.
    pub status: Status,
}

/// [`Suite::all`], with the usual patience.
pub fn all(fresh: impl FnMut() -> Box<dyn DmaChannel>, arena: &Arena) {
    Suite::new(arena).all(fresh);
}

/// [`Suite::errors`], with the usual patience.
pub fn errors(
    statuses: &[Status],
    failing: impl FnMut(&[Failure]) -> Box<dyn DmaChannel>,
    arena: &Arena,
) {
    Suite::new(arena).errors(statuses, failing);
}

/// [`Suite::device`], with the usual patience.
pub fn device(device: &dyn DmaDevice, arena: &Arena) {
    Suite::new(arena).device(device);
}

impl<'a> Suite<'a> {
    /// The suite with memory out of `arena`, of [`ARENA_LEN`] bytes at least, which is mapped for the
    /// engine.
    #[must_use]
    pub const fn new(arena: &'a Arena) -> Self {
        // More than any engine needs for what is asked of it here, also on a machine that is busy.
        Self { arena, timeout: Duration::from_secs(30) }
    }

    /// Gives up on an operation, an event or a stop after `timeout`, and not after 30 s: engines that
    /// are simulated may need more.
    #[must_use]
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Everything that holds for every channel while no operation fails. Each test runs on a channel
    /// from `fresh`; one channel exists at a time.
    pub fn all(&self, mut fresh: impl FnMut() -> Box<dyn DmaChannel>) {
        self.lengths_and_alignments(fresh());
        self.address_borders(fresh());
        self.scatter_gather(fresh());
        self.fills(fresh());
        self.xor(fresh());
        self.xor_checks(fresh());
        self.pq(fresh());
        self.pq_checks(fresh());
        self.refusals(fresh());
        self.unreachable_memory(fresh());
        self.nothing_before_the_doorbell(fresh());
        self.capacity(fresh());
        self.wrap(fresh());
        self.fences(fresh());
        self.hints(fresh());
        self.events(fresh());
        self.deadlines(fresh());
        self.queue_deadlines(fresh());
        self.stop_of_an_unused_channel(fresh());
        self.stops_and_starts(fresh());
        self.terminate_in_flight(fresh());
        self.drop_in_flight(&mut fresh);
        self.restart(&mut fresh);
        self.hand_over(fresh());
        self.dmatest(&mut fresh);
    }
}

#[cfg(test)]
mod tests;
