use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use dmaengine::{DmaBuf, DmaTarget, Loan};
use netdma::{Conditions, ReceiveId, RecvFlags, Request, Verdict, Waiting, WakeReason};
use netstack::SocketId;

use crate::{
    Stack, TcpStream,
    core::{Key, TaskId},
    driver::Call,
    errno::{self, Errno},
    stream::Settings,
};

/// Buffers that are posted ahead of the data, and come back filled, in order: receiving in the
/// completion style (`io_uring`'s provided buffers, Windows' registered I/O).
///
/// Any number of buffers can be outstanding. Each owns its memory, so that nothing has to wait when
/// a call or a future ends; and while the program works on one, the engine fills the next. A buffer
/// comes back under the rules of [`TcpStream::recv`]; with [`RecvFlags::WAITALL`], when it is full.
///
/// Buffers of an [`Arena`](dmaengine::Arena) that is mapped for the engine ([`DmaBuf`]) can be
/// reached by every engine; so can a `Vec` if the program's allocator is the
/// [`Heap`](dmaengine::Heap) and that is mapped; otherwise by engines that take process addresses,
/// and the CPU fills it in place of others.
///
/// ```
/// # use sockets::{ReceiveRing, TcpStream};
/// # fn receive(stream: &TcpStream) -> std::io::Result<()> {
/// let mut ring = ReceiveRing::new(stream);
/// for _ in 0..8 {
///     ring.post(vec![0; 64 << 10]);
/// }
/// while let Some(received) = ring.wait(None)? {
///     let len = received.result?;
///     if len == 0 {
///         break; // the end of the stream
///     }
///     println!("{len} bytes, the first is {}", received.buffer[0]);
///     ring.post(received.buffer);
/// }
/// # Ok(())
/// # }
/// ```
///
/// In a task, without any runtime's help: `while let Some(received) = ring.recv().await? {..}`. While
/// tasks wait, and no thread is in a call, the stack's background thread drives it.
///
/// # Every buffer comes back
///
/// In the order in which they were posted, each once, whatever happens: filled; with the end of the
/// stream or its error; with `ECANCELED` after [`cancel`](Self::cancel); with `ENOTCONN` if the stream
/// was closed meanwhile. A buffer that has bytes comes back with them, and the error with the next.
/// No future and no call owns a buffer: dropping [`recv`](Self::recv) loses nothing. Dropping the
/// ring gives up its buffers and the bytes in them; they are freed when the last copy into them has
/// ended. To lose no byte, cancel and take what comes back.
pub struct ReceiveRing<B: DmaTarget = DmaBuf> {
    stack: Stack,
    socket: SocketId,
    settings: Arc<Settings>,
    outstanding: VecDeque<Posted<B>>,
    /// The task that waits for the first.
    task: Option<TaskId>,
}

struct Posted<B: DmaTarget> {
    id: ReceiveId,
    loan: Loan<B>,
}

/// A buffer that has come back.
#[derive(Debug)]
#[must_use = "the buffer comes back in here"]
pub struct Received<B> {
    /// The buffer.
    pub buffer: B,
    /// How many bytes were received into its beginning; 0 at the end of the stream, or if it is
    /// empty. What is behind them is unspecified.
    pub result: io::Result<usize>,
}

impl<B: DmaTarget> ReceiveRing<B> {
    /// For what `stream` receives. Receive calls on it while buffers are outstanding get what comes
    /// after those are filled.
    #[must_use]
    pub fn new(stream: &TcpStream) -> Self {
        Self {
            stack: stream.stack().clone(),
            socket: stream.id(),
            settings: Arc::clone(stream.settings()),
            outstanding: VecDeque::new(),
            task: None,
        }
    }

    /// Posts a buffer, behind those that are outstanding. What is queued already goes into it at
    /// once.
    pub fn post(&mut self, buffer: B) {
        self.post_with(buffer, RecvFlags::empty());
    }

    /// As [`post`](Self::post), with flags, of which only [`RecvFlags::WAITALL`] matters.
    pub fn post_with(&mut self, buffer: B, flags: RecvFlags) {
        let (loan, target) = Loan::new(buffer);
        let mut call = self.stack.call();
        let now = call.now();
        let request = Request {
            flags,
            low_water: call.core().stack.low_water(self.socket),
            copybreak: *self.settings.copybreak.lock(),
            waiting: Waiting::Elsewhere,
        };
        let id = call.core().post(now, self.socket, target, request);
        // The window may have opened.
        call.core().transmit(now);
        self.outstanding.push_back(Posted { id, loan });
    }

    /// How many buffers are outstanding.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// The next buffer, if it has come back; `None` if none is outstanding. Does not wait.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it has not; otherwise as for [`wait`](Self::wait).
    pub fn try_recv(&mut self) -> io::Result<Option<Received<B>>> {
        let Self { stack, socket, outstanding, .. } = self;
        let mut call = stack.call();
        call.turn();
        match take_next(&mut call, *socket, outstanding)? {
            Poll::Ready(next) => Ok(next),
            Poll::Pending => Err(Errno::AGAIN.into()),
        }
    }

    /// Waits for the next buffer, for at most `timeout`; `None` if none is outstanding. The stream's
    /// read timeout and its non-blocking mode do not matter here.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the timeout has passed, `Interrupted` if the thread's
    /// [`Interrupter`](crate::Interrupter) said so. `Other` if the engine has the buffer and cannot
    /// be stopped: it comes back if the engine comes to its senses.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<Received<B>>> {
        let Self { stack, socket, outstanding, .. } = self;
        let mut call = stack.call();
        let deadline = timeout.map(|timeout| call.now() + timeout);
        loop {
            if let Poll::Ready(next) = take_next(&mut call, *socket, outstanding)? {
                return Ok(next);
            }
            if deadline.is_some_and(|deadline| deadline <= call.now()) {
                return Err(Errno::AGAIN.into());
            }
            if call.take_interruption() {
                return Err(Errno::INTR.into());
            }
            let first = outstanding.front().map(|posted| posted.id);
            let progress = first.and_then(|id| call.core().offload.progress(id));
            if progress.is_some_and(|progress| progress.ended.is_some()) {
                call.wait_for_copies(Key::Socket(*socket));
            } else {
                call.wait(Key::Socket(*socket), deadline);
            }
        }
    }

    /// The next buffer; `None` if none is outstanding. The future may be dropped, and another made.
    ///
    /// # Errors
    ///
    /// Its output fails if the engine has the buffer and cannot be stopped.
    pub fn recv(&mut self) -> Recv<'_, B> {
        Recv { ring: self }
    }

    /// As polling [`recv`](Self::recv), for who implements a future or a stream of their own. Only
    /// the last task that polled is woken.
    ///
    /// # Errors
    ///
    /// As for [`recv`](Self::recv).
    pub fn poll_recv(&mut self, context: &Context<'_>) -> Poll<io::Result<Option<Received<B>>>> {
        let Self { stack, socket, outstanding, task, .. } = self;
        let mut call = stack.call();
        call.turn();
        let polled = take_next(&mut call, *socket, outstanding)?;
        // Dropped after the call: it may be anybody's code.
        let old = match &polled {
            Poll::Ready(_) => call.forget_task(task.take()),
            Poll::Pending => call.wake_task(task, Key::Socket(*socket), context.waker()),
        };
        drop(call);
        drop(old);
        polled.map(Ok)
    }

    /// No task waits any more.
    fn forget_task(&mut self) {
        if self.task.is_some() {
            let old = self.stack.call().forget_task(self.task.take());
            drop(old);
        }
    }

    /// Has the outstanding buffers come back, with what they have. Nothing more is received into
    /// them; those that have nothing fail with `ECANCELED`.
    pub fn cancel(&mut self) {
        let mut call = self.stack.call();
        for posted in &self.outstanding {
            call.core().offload.stop(posted.id);
        }
        // Another thread's receive call may be behind them.
        call.core().wake(Key::Socket(self.socket));
    }
}

/// Takes the first buffer, if it has come back.
fn take_next<B: DmaTarget>(
    call: &mut Call<'_>,
    socket: SocketId,
    outstanding: &mut VecDeque<Posted<B>>,
) -> io::Result<Poll<Option<Received<B>>>> {
    let Some(first) = outstanding.front() else { return Ok(Poll::Ready(None)) };
    let core = call.core();
    let id = first.id;
    let ended = core.offload.progress(id).and_then(|progress| progress.ended);
    let may_wait = core.check_link().is_ok();
    let result = match core.check(id, Conditions { may_wait, interrupted: false }) {
        Verdict::Return(0) if ended == Some(WakeReason::Stopped) => Err(Errno::CANCELED.into()),
        Verdict::Return(len) => Ok(len),
        Verdict::Fail(error) => Err(errno::of_recv(error, core.check_link())),
        Verdict::Copying if core.offload.is_engine_lost() => {
            return Err(io::Error::other("the copy engine cannot be stopped"));
        }
        Verdict::Copying | Verdict::Wait => return Ok(Poll::Pending),
    };
    // Nothing is in flight, or there would be no result: with the receive go the last pieces.
    let withdrawn = core.offload.withdraw(id);
    debug_assert!(withdrawn.is_ok(), "copies into a buffer that comes back");
    // Who waits behind it may have its turn.
    core.wake(Key::Socket(socket));
    let Some(Posted { id, loan }) = outstanding.pop_front() else { return Ok(Poll::Pending) };
    match loan.into_inner() {
        Ok(buffer) => Ok(Poll::Ready(Some(Received { buffer, result }))),
        Err(loan) => {
            outstanding.push_front(Posted { id, loan });
            Ok(Poll::Pending)
        }
    }
}

impl<B: DmaTarget> fmt::Debug for ReceiveRing<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveRing").field("outstanding", &self.len()).finish_non_exhaustive()
    }
}

impl<B: DmaTarget> Drop for ReceiveRing<B> {
    fn drop(&mut self) {
        let mut call = self.stack.call();
        for posted in &self.outstanding {
            call.core().offload.abandon(posted.id);
        }
        call.core().wake(Key::Socket(self.socket));
        drop(call);
        self.forget_task();
    }
}

/// The future of [`ReceiveRing::recv`]. It owns no buffer.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Recv<'a, B: DmaTarget> {
    ring: &'a mut ReceiveRing<B>,
}

impl<B: DmaTarget> Future for Recv<'_, B> {
    type Output = io::Result<Option<Received<B>>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.ring.poll_recv(context)
    }
}

impl<B: DmaTarget> Drop for Recv<'_, B> {
    fn drop(&mut self) {
        self.ring.forget_task();
    }
}

impl<B: DmaTarget> fmt::Debug for Recv<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recv").field("ring", &self.ring).finish_non_exhaustive()
    }
}
