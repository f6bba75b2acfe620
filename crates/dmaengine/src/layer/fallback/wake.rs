//! An event that comes even if the engine's does not.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::{Errno, Result},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec},
};

/// The event of the channel below, joined with a timer: who blocks on it also wakes when it is time
/// to look for an operation that does not end, or whose interrupt was lost.
#[derive(Debug)]
pub(super) struct Wake {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// On the layer's clock; the timer need not be set again before.
    set_until: Duration,
}

impl Wake {
    pub(super) fn new(event: BorrowedFd<'_>) -> Result<Self> {
        if cfg!(miri) {
            // It has no timers. The layer then has the engine's event alone.
            return Err(Errno::NOSYS);
        }
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        for fd in [event, timer.as_fd()] {
            epoll::add(&epoll, fd, EventData::new_u64(0), EventFlags::IN)?;
        }
        Ok(Self { epoll, timer, set_until: Duration::ZERO })
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Has the event come at `due`, or earlier. Events that come too early are allowed, so the timer
    /// of an earlier call will do as long as it has not fired.
    pub(super) fn set(&mut self, now: Duration, due: Duration) {
        if now < self.set_until && self.set_until <= due {
            return;
        }
        let after = due.saturating_sub(now).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A time too long for the kernel's type is as good as none.
        let it_value = Timespec::try_from(after).unwrap_or(zero);
        let time = Itimerspec { it_interval: zero, it_value };
        // It also makes a timer that has fired unreadable. It fails for bad arguments only.
        let set =
            rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time).is_ok();
        self.set_until = if set { now + after } else { Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

    use super::*;

    fn is_readable(wake: &Wake, within_seconds: i64) -> bool {
        let timeout = Timespec { tv_sec: within_seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(&wake.event(), PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }

    #[test]
    #[cfg_attr(miri, ignore = "no timers")]
    fn comes_with_the_engines_event_or_in_time_and_is_cleared() {
        const HOUR: Duration = Duration::from_secs(3600);
        const NOW: Duration = Duration::from_secs(1);
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let mut wake = Wake::new(event.as_fd()).unwrap();
        assert!(!is_readable(&wake, 0));
        wake.set(NOW, NOW);
        assert!(is_readable(&wake, 30), "it is time");
        wake.set(NOW * 2, HOUR);
        assert!(!is_readable(&wake, 0), "not again for an hour");
        rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
        assert!(is_readable(&wake, 30), "the engine's");
        rustix::io::read(&event, &mut [0; 8]).unwrap();
        wake.set(NOW * 3, HOUR * 2);
        assert!(!is_readable(&wake, 0));
        wake.set(NOW * 4, NOW * 4);
        assert!(is_readable(&wake, 30), "sooner than the timer that was set");
    }
}
