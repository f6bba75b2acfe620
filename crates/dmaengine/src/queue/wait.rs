//! Waiting for a channel, never without a deadline.

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};

use super::{Done, Queue};
use crate::{Channel, Cookie, DmaChannel};

/// The longest single block on an event. An event that got lost costs no more than this.
pub(super) const MAX_BLOCK: Duration = Duration::from_millis(100);

/// What a thread does between two polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Polls again at once: the fastest answer, for a whole processor.
    Spin,
    /// Polls again at once for a time, then yields the processor between two polls.
    Yield {
        /// How long to spin first.
        spin: Duration,
    },
    /// Polls again at once for a time, then blocks on the channel's event: no processor, for a
    /// wake-up. On a channel without events, as [`Yield`](Self::Yield).
    Block {
        /// How long to spin first.
        spin: Duration,
    },
}

impl Wait {
    /// About what blocking and waking cost: who spins this long first never pays more than twice
    /// what the better choice would have cost.
    pub const SPIN: Duration = Duration::from_micros(10);
}

impl Default for Wait {
    /// [`Block`](Self::Block) after [`SPIN`](Self::SPIN).
    fn default() -> Self {
        Self::Block { spin: Self::SPIN }
    }
}

/// Operations were still in flight at the deadline of [`Queue::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{in_flight} operations did not end in time: wait again, or terminate the channel")]
pub struct WaitTimeout {
    /// How many.
    pub in_flight: usize,
}

/// One wait that has begun.
#[derive(Debug)]
pub(crate) struct Waiting {
    wait: Wait,
    start: Instant,
    timeout: Duration,
}

impl Waiting {
    pub(crate) fn new(wait: Wait, timeout: Duration) -> Self {
        Self { wait, start: Instant::now(), timeout }
    }

    /// Waits a little, until the next poll; `false`, at once, if the timeout has passed, or in a
    /// forked child, where nothing ends.
    #[must_use]
    pub(crate) fn pause(&self, channel: &mut Channel) -> bool {
        let waited = self.start.elapsed();
        let Some(left) = self.timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return false;
        };
        if channel.is_forked() {
            return false;
        }
        match self.wait {
            Wait::Yield { spin } if waited >= spin => std::thread::yield_now(),
            Wait::Block { spin } if waited >= spin => {
                if !(channel.arm() && channel.event().is_some_and(|event| block(event, left))) {
                    std::thread::yield_now();
                }
            }
            Wait::Spin | Wait::Yield { .. } | Wait::Block { .. } => std::hint::spin_loop(),
        }
        true
    }
}

/// Blocks until the armed event fires, but no longer than `timeout`. `false` if it cannot.
pub(crate) fn block(event: BorrowedFd<'_>, timeout: Duration) -> bool {
    if cfg!(miri) {
        // It has no `ppoll`.
        return false;
    }
    // It always fits: see `MAX_BLOCK`.
    let timeout = Timespec::try_from(timeout.min(MAX_BLOCK)).unwrap_or_default();
    match rustix::event::poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => true,
        // Out of kernel memory: polling goes on.
        Err(_) => false,
    }
}

impl<S, D, T> Queue<S, D, T> {
    /// Issues what was submitted, and waits until nothing is in flight. Each operation that ends is
    /// given to `each`.
    ///
    /// Polls for a moment, then blocks on the channel's event; if it has none, yields the processor
    /// between polls. [`wait_with`](Self::wait_with) does it in another way.
    ///
    /// # Errors
    ///
    /// [`WaitTimeout`] if operations are still in flight after `timeout`. They stay there.
    pub fn wait(
        &mut self,
        timeout: Duration,
        each: impl FnMut(Done<S, D, T>),
    ) -> Result<(), WaitTimeout> {
        self.wait_with(Wait::default(), timeout, each)
    }

    /// As [`wait`](Self::wait), in the way that `wait` says.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    pub fn wait_with(
        &mut self,
        wait: Wait,
        timeout: Duration,
        each: impl FnMut(Done<S, D, T>),
    ) -> Result<(), WaitTimeout> {
        self.wait_until(wait, timeout, each, Self::is_idle)
    }

    /// As [`wait_with`](Self::wait_with), but only until the operation `cookie` is no longer in
    /// flight: at once if it was never submitted, or was reported before. Other operations that end
    /// meanwhile are given to `each` too.
    ///
    /// An event comes when all has ended that was issued: with operations behind the one waited for,
    /// do not [`Block`](Wait::Block).
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    pub fn wait_for(
        &mut self,
        cookie: Cookie,
        wait: Wait,
        timeout: Duration,
        each: impl FnMut(Done<S, D, T>),
    ) -> Result<(), WaitTimeout> {
        self.wait_until(wait, timeout, each, |queue| !queue.in_flight.contains(cookie))
    }

    fn wait_until(
        &mut self,
        wait: Wait,
        timeout: Duration,
        mut each: impl FnMut(Done<S, D, T>),
        is_over: impl Fn(&Self) -> bool,
    ) -> Result<(), WaitTimeout> {
        self.issue_pending();
        let waiting = Waiting::new(wait, timeout);
        loop {
            self.poll(&mut each);
            if is_over(self) {
                return Ok(());
            }
            if !waiting.pause(&mut self.channel) {
                return Err(WaitTimeout { in_flight: self.in_flight() });
            }
        }
    }
}
