//! The thread that notices ends while every future sleeps, and deadlines.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, Timespec, epoll};

use super::{Core, state::Next};
use crate::{DmaSource, DmaTarget};

/// The first pause between two polls of a channel without events, and the longest: each is twice the
/// one before, so that a short copy is found soon and a long one costs little.
const MIN_STEP: Duration = Duration::from_micros(20);
const MAX_STEP: Duration = Duration::from_millis(1);

/// What ends the reaper's sleep from outside.
pub(super) fn wake_fd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
}

/// Where the reaper sleeps.
pub(super) struct Sleeper {
    epoll: OwnedFd,
    /// Kept open: epoll forgets a file that nobody has open.
    _event: Option<OwnedFd>,
}

impl Sleeper {
    /// A place to sleep until `wake` or a channel's `event` becomes readable.
    pub(super) fn new(wake: &OwnedFd, event: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered, both. The channel's event stays readable until it is armed again, which
        // nobody does while nothing is in flight; and the count of `wake` is nobody's business.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&epoll, wake, data, flags)?;
        let event = event.map(|event| event.try_clone_to_owned()).transpose()?;
        if let Some(event) = &event {
            epoll::add(&epoll, event.as_fd(), data, flags)?;
        }
        Ok(Self { epoll, _event: event })
    }

    fn sleep(&self, timeout: Option<Duration>) {
        // It always fits: sleeps are short or without end.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 2];
        // Interrupted, it looks around too early.
        let _ = epoll::wait(&self.epoll, &mut events[..], timeout.as_ref());
    }
}

/// Starts the reaper of `core`. It ends by itself after the last user.
pub(super) fn start<S: DmaSource, D: DmaTarget>(
    core: Arc<Core<S, D>>,
    sleeper: Sleeper,
) -> io::Result<()> {
    let name = "dma-reaper".to_owned();
    std::thread::Builder::new().name(name).spawn(move || run(core, &sleeper)).map(drop)
}

fn run<S: DmaSource, D: DmaTarget>(core: Arc<Core<S, D>>, sleeper: &Sleeper) {
    let mut step = MIN_STEP;
    loop {
        // A driver that panics must not take the thread with it that futures are woken by.
        let turn = |now| catch_unwind(AssertUnwindSafe(|| core.with(|state| state.turn(now))));
        let next = turn(Instant::now()).unwrap_or_else(|_| {
            // Without a look at the channel, if that is what it panics in.
            let expire = || core.with(|state| state.expire(Instant::now()));
            let _ = catch_unwind(AssertUnwindSafe(expire));
            Next::Step
        });
        match next {
            Next::Sleep(timeout) => {
                step = MIN_STEP;
                sleeper.sleep(timeout);
            }
            Next::Step => {
                std::thread::sleep(step);
                step = (step * 2).min(MAX_STEP);
            }
            Next::Close => break,
        }
    }
    let is_idle = catch_unwind(AssertUnwindSafe(|| core.with(|state| state.stop())));
    if !is_idle.unwrap_or(false) {
        // The engine may still write: channel and memory are leaked with what holds them.
        std::mem::forget(core);
    }
}
