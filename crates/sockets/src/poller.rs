use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
    time::Duration,
};

use netstack::PollFlags;
use rustix::event::{EventfdFlags, eventfd};

use crate::{
    PollEvent, Stack, TcpListener, TcpStream, Trigger,
    core::{Core, Key, PollerId},
    errno::Errno,
    poll_set::Interest,
    poller::sealed::Source,
};

/// Waits for many sockets of one stack: what `epoll` is for the kernel's.
///
/// The thread inside [`wait`](Self::wait) drives the stack, as every thread in a call does: packets
/// are processed, and copied for receive calls that wait, on its way. A program that waits in an
/// event loop of its own watches the poller's [`event`](Self::event) there.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// # let (stack, listener): (sockets::Stack, sockets::TcpListener) = unimplemented!();
/// use sockets::{PollFlags, Poller, PollEvents, Trigger};
///
/// listener.set_nonblocking(true)?;
/// let poller = Poller::new(&stack);
/// poller.add(&listener, 0, PollFlags::IN, Trigger::Level)?;
/// let mut events = PollEvents::with_capacity(64);
/// loop {
///     poller.wait(&mut events, None)?;
///     for event in &events {
///         println!("{} is ready for {:?}", event.token, event.flags);
///     }
/// }
/// # }
/// ```
pub struct Poller {
    stack: Stack,
    id: PollerId,
    event: OnceLock<Arc<OwnedFd>>,
}

/// What a [`Poller`] can watch: [`TcpStream`]s and [`TcpListener`]s.
pub trait Pollable: sealed::Pollable {}

pub(crate) mod sealed {
    use crate::{Stack, core::Key};

    pub trait Pollable {
        fn source(&self) -> Source<'_>;
    }

    /// What there is to watch.
    #[expect(missing_debug_implementations, reason = "nobody outside gets one")]
    pub struct Source<'a> {
        pub(crate) stack: &'a Stack,
        pub(crate) key: Key,
    }
}

impl Pollable for TcpStream {}
impl Pollable for TcpListener {}

/// Where [`Poller::wait`] puts what is ready.
#[derive(Debug)]
pub struct PollEvents {
    pub(crate) events: Vec<PollEvent>,
    pub(crate) max: usize,
}

impl PollEvents {
    /// Room for `capacity` sockets at once, at least for one.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let max = capacity.max(1);
        Self { events: Vec::with_capacity(max), max }
    }
}

impl std::ops::Deref for PollEvents {
    type Target = [PollEvent];

    fn deref(&self) -> &[PollEvent] {
        &self.events
    }
}

impl<'a> IntoIterator for &'a PollEvents {
    type Item = &'a PollEvent;
    type IntoIter = std::slice::Iter<'a, PollEvent>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}

impl Poller {
    /// A poller for sockets of `stack`.
    #[must_use]
    pub fn new(stack: &Stack) -> Self {
        let id = stack.call().core().add_poller();
        Self { stack: stack.clone(), id, event: OnceLock::new() }
    }

    /// Watches `socket` until it is [removed](Self::remove) or dropped. Its events have `token`.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if it is watched already (`EEXIST`), `InvalidInput` if it is another stack's
    /// (`EINVAL`).
    pub fn add(
        &self,
        socket: &impl Pollable,
        token: usize,
        flags: PollFlags,
        trigger: Trigger,
    ) -> io::Result<()> {
        let interest = Interest { token, flags, trigger };
        self.with(socket, Errno::EXIST, |core, key| core.watch(self.id, key, interest))
    }

    /// Watches `socket` for something else, or once more.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not watched (`ENOENT`), `InvalidInput` if it is another stack's.
    pub fn modify(
        &self,
        socket: &impl Pollable,
        token: usize,
        flags: PollFlags,
        trigger: Trigger,
    ) -> io::Result<()> {
        let interest = Interest { token, flags, trigger };
        self.with(socket, Errno::NOENT, |core, key| core.rewatch(self.id, key, interest))
    }

    /// Watches `socket` no more.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not watched (`ENOENT`), `InvalidInput` if it is another stack's.
    pub fn remove(&self, socket: &impl Pollable) -> io::Result<()> {
        self.with(socket, Errno::NOENT, |core, key| core.unwatch(self.id, key))
    }

    fn with(
        &self,
        socket: &impl Pollable,
        errno: Errno,
        body: impl FnOnce(&mut Core, Key) -> bool,
    ) -> io::Result<()> {
        let Source { stack, key } = socket.source();
        if !stack.is_same(&self.stack) {
            return Err(Errno::INVAL.into());
        }
        let done = body(self.stack.call().core(), key);
        if done { Ok(()) } else { Err(errno.into()) }
    }

    /// Waits until a socket is ready, [`notify`](Self::notify) is called, or `timeout` has passed,
    /// and puts what is ready into `events`. What was in there before is gone.
    ///
    /// # Errors
    ///
    /// `Interrupted` if the thread's [`Interrupter`](crate::Interrupter) said so (`EINTR`).
    pub fn wait(&self, events: &mut PollEvents, timeout: Option<Duration>) -> io::Result<()> {
        events.events.clear();
        let mut call = self.stack.call();
        let deadline = timeout.map(|timeout| call.now() + timeout);
        // However busy the program is with what is ready, packets are seen to.
        call.turn();
        loop {
            let notified = call.core().collect_events(self.id, events);
            if notified || !events.is_empty() {
                return Ok(());
            }
            if deadline.is_some_and(|deadline| deadline <= call.now()) {
                return Ok(());
            }
            if call.take_interruption() {
                return Err(Errno::INTR.into());
            }
            call.wait(Key::Poller(self.id), deadline);
        }
    }

    /// Ends one [`wait`](Self::wait), that of another thread or the next one, with what is ready,
    /// perhaps nothing.
    pub fn notify(&self) {
        self.stack.call().core().notify_poller(self.id);
    }

    /// A descriptor that is readable while [`wait`](Self::wait) may have something to tell: for
    /// `epoll`, or a runtime's reactor. Wait with a timeout of zero then. From the first call on the
    /// stack's background thread drives the stack whenever no call does.
    ///
    /// # Errors
    ///
    /// `EMFILE` and its like if there is no descriptor left.
    pub fn event(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(event) = self.event.get() {
            return Ok(event.as_fd());
        }
        let event = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        // Another thread may have been faster.
        let event = self.event.get_or_init(|| event);
        self.stack.call().signal_with(self.id, event);
        Ok(event.as_fd())
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stack.call().remove_poller(self.id);
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("id", &self.id).finish_non_exhaustive()
    }
}
