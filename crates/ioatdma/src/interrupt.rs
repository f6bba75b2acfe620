//! From the device's interrupts to the events that clients wait for.
//!
//! With MSI-X and a vector for each channel, an interrupt of a channel makes its vector's eventfd
//! readable. Otherwise all channels share a vector, and whoever is about to wait first sorts what has
//! come on it: INTRCTRL says whether the device asks for an interrupt, ATTNSTATUS for which channels.
//! INTRCTRL is then written back, as Linux's shared handler does: the device may have stopped to
//! interrupt when it was read.
//!
//! ```text
//!   vector --------------------------> \
//!   (shared) -> sorted -> own eventfd -> epoll: what a client waits for
//!   timer of the watchdog ------------> /
//! ```
//!
//! A client waits for the shared vector itself, beside what is sorted out for it. So nobody has to
//! serve the others: an interrupt wakes all who wait, the first to look sorts, and those who find
//! nothing wait again. The timer wakes a client whose interrupt was lost, or whose channel hangs.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{
        EventfdFlags,
        epoll::{self, CreateFlags, EventData, EventFlags},
        eventfd,
    },
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use crate::{
    Bar, Interrupts, Platform,
    registers::{
        ATTNSTATUS, INTRCTRL, INTRCTRL_INT_STATUS, INTRCTRL_MASTER_INT_EN,
        INTRCTRL_MSIX_VECTOR_CONTROL,
    },
};

/// Which vector is whose.
#[derive(Debug)]
pub(crate) enum Vectors {
    /// There are none.
    None,
    /// Channel `n` has vector `n`.
    PerChannel,
    /// All channels have vector 0. An eventfd for each, for what is sorted out for it.
    Shared(Vec<OwnedFd>),
}

impl Vectors {
    /// The best that `platform` offers for so many channels.
    pub(crate) fn new(platform: &dyn Platform, channels: usize) -> Result<Self, Errno> {
        match platform.interrupts() {
            Interrupts::None => Ok(Self::None),
            Interrupts::MsiX { vectors: 0 } => Ok(Self::None),
            Interrupts::MsiX { vectors } if vectors >= channels => Ok(Self::PerChannel),
            Interrupts::MsiX { .. } | Interrupts::Msi | Interrupts::Intx => {
                let own = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
                Ok(Self::Shared((0..channels).map(|_| own()).collect::<Result<_, _>>()?))
            }
        }
    }

    /// What INTRCTRL has to be.
    pub(crate) const fn control(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::PerChannel => INTRCTRL_MASTER_INT_EN | INTRCTRL_MSIX_VECTOR_CONTROL,
            Self::Shared(_) => INTRCTRL_MASTER_INT_EN,
        }
    }

    /// Forgets the interrupts of a channel that have come; and sorts those that all share.
    pub(crate) fn clear(&self, bar: &dyn Bar, platform: &dyn Platform, channel: usize) {
        match self {
            Self::None => {}
            Self::PerChannel => {
                if let Some(vector) = platform.vector(channel) {
                    reset(vector);
                }
            }
            Self::Shared(events) => {
                // Before looking what has come: what comes after the look sets it again.
                let came = platform.vector(0).is_some_and(reset);
                // A device that is gone says that all have interrupted, which is as good as none:
                // who looks finds out.
                if bar.read8(INTRCTRL) & INTRCTRL_INT_STATUS != 0 {
                    let attention = bar.read32(ATTNSTATUS);
                    for (index, event) in events.iter().enumerate() {
                        if attention & 1 << index != 0 {
                            set(event.as_fd());
                        }
                    }
                }
                // Whether or not there was something: the read has turned interrupts off.
                bar.write8(INTRCTRL, self.control());
                if came {
                    platform.unmask();
                }
                if let Some(event) = events.get(channel) {
                    reset(event.as_fd());
                }
            }
        }
    }

    /// The event of a channel; `None` if there are no interrupts.
    pub(crate) fn event(
        &self,
        platform: &dyn Platform,
        channel: usize,
    ) -> Result<Option<Event>, Errno> {
        let (vector, own) = match self {
            Self::None => return Ok(None),
            Self::PerChannel => (platform.vector(channel), None),
            Self::Shared(events) => (platform.vector(0), events.get(channel).map(AsFd::as_fd)),
        };
        let Some(vector) = vector else { return Ok(None) };
        Event::new([Some(vector), own]).map(Some)
    }
}

/// Empties a non-blocking eventfd; whether it was set.
fn reset(event: BorrowedFd<'_>) -> bool {
    rustix::io::read(event, &mut [0; 8]).is_ok()
}

/// Makes an eventfd readable. It fails only if the counter is full, and then it is readable already.
fn set(event: BorrowedFd<'_>) {
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// What the client of a channel waits for.
#[derive(Debug)]
pub(crate) struct Event {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl Event {
    fn new(sources: [Option<BorrowedFd<'_>>; 2]) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        for source in sources.into_iter().flatten().chain([timer.as_fd()]) {
            epoll::add(&epoll, source, EventData::new_u64(0), EventFlags::IN)?;
        }
        Ok(Self { epoll, timer })
    }

    /// Makes the event come after `timeout` at the latest.
    pub(crate) fn within(&self, timeout: Duration) {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A time that does not fit is as good as never.
        let it_value = Timespec::try_from(timeout).unwrap_or(none);
        let value = Itimerspec { it_interval: none, it_value };
        // It cannot fail: the file is a timer, and the time is in range.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
